package registry

import (
	"context"
	"encoding/json"
	"io"

	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// Inspect describes what a name stands for at its registry: `GET /distribution/{name}/json`.
func (c *Client) Inspect(ctx context.Context, ref reference.Named, auth *registrytypes.AuthConfig) (registrytypes.DistributionInspect, error) {
	r := c.Repository(ref, auth, Pull)
	data, d, err := r.Manifest(ctx, TagOrDigest(ref))
	if err != nil {
		return registrytypes.DistributionInspect{}, err
	}
	info := registrytypes.DistributionInspect{Descriptor: d, Platforms: []ocispec.Platform{}}
	var body struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    ocispec.Descriptor   `json:"config"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return info, fault.Invalid("cannot read manifest %s: %w", d.Digest, err)
	}
	for _, m := range body.Manifests {
		if m.Platform != nil {
			info.Platforms = append(info.Platforms, *m.Platform)
		}
	}
	if body.Config.Digest == "" || body.Config.Size > maxManifest {
		return info, nil
	}
	blob, err := r.Blob(ctx, body.Config, 0)
	if err != nil {
		return info, err
	}
	defer blob.Close()
	raw, err := io.ReadAll(blob)
	if err != nil {
		return info, err
	}
	if body.Config.Digest.Algorithm().FromBytes(raw) != body.Config.Digest {
		return info, fault.Invalid("config %s of %s arrived damaged", body.Config.Digest, ref)
	}
	var p ocispec.Platform
	if json.Unmarshal(raw, &p) == nil && p.OS != "" {
		info.Platforms = append(info.Platforms, p)
	}
	return info, nil
}

// TagOrDigest is the part of a reference that a registry is asked for; the digest goes before the tag, "latest" stands for neither.
func TagOrDigest(ref reference.Reference) string {
	if d, ok := ref.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}
