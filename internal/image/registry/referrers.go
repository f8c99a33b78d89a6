package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// Referrers lists the manifests whose subject is d (distribution-spec 1.1, "Listing Referrers"), also from the tag that clients of
// registries without that call keep the list under. A registry that knows neither has none. It is asked once.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	data, err := r.list(ctx, "referrers/"+d.String())
	if e := asError(err); e != nil && e.Status == http.StatusNotFound {
		data, err = r.list(ctx, "manifests/"+fallbackTag(d))
	}
	if e := asError(err); e != nil && e.Status < 500 && e.Status != http.StatusTooManyRequests {
		return nil, nil
	}
	if err != nil {
		return nil, pullError(r.name, err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(data, &idx); err != nil {
		return nil, fault.Invalid("cannot read the referrers of %s: %w", d, err)
	}
	return idx.Manifests, nil
}

// fallbackTag is where the list of referrers lies in registries that don't make it (distribution-spec 1.1, "Referrers Tag Schema").
func fallbackTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func (r *Repository) list(ctx context.Context, path string) ([]byte, error) {
	rs, err := r.do(ctx, request{method: http.MethodGet, path: path, once: true, soft: true, byTag: true, write: r.access == Push,
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}}})
	if err != nil {
		return nil, err
	}
	body, done := r.c.small(rs.Body)
	defer done()
	return io.ReadAll(io.LimitReader(body, maxManifest))
}

// PutReferrer stores a manifest about subject. Where the registry does not list referrers itself, the tag for that is updated.
func (r *Repository) PutReferrer(ctx context.Context, subject digest.Digest, d ocispec.Descriptor, data []byte) error {
	h, err := r.putManifest(ctx, d.Digest.String(), d.MediaType, data)
	if err != nil {
		return err
	}
	if h.Get("OCI-Subject") != "" {
		return nil
	}
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	old, err := r.list(ctx, "manifests/"+fallbackTag(subject))
	switch e := asError(err); {
	case err == nil:
		if err := json.Unmarshal(old, &idx); err != nil {
			return fault.Invalid("cannot read the referrers of %s at %s: %w", subject, reference.Domain(r.name), err)
		}
	case e == nil || e.Status != http.StatusNotFound:
		return pushError(r.name, err)
	}
	for _, m := range idx.Manifests {
		if m.Digest == d.Digest {
			return nil
		}
	}
	var m struct {
		ArtifactType string             `json:"artifactType"`
		Config       ocispec.Descriptor `json:"config"`
		Annotations  map[string]string  `json:"annotations"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return fault.Invalid("cannot read manifest %s: %w", d.Digest, err)
	}
	entry := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: m.ArtifactType, Annotations: m.Annotations}
	if entry.ArtifactType == "" {
		entry.ArtifactType = m.Config.MediaType
	}
	idx.Manifests = append(idx.Manifests, entry)
	if data, err = json.Marshal(idx); err != nil {
		return err
	}
	_, err = r.putManifest(ctx, fallbackTag(subject), ocispec.MediaTypeImageIndex, data)
	return err
}

// IsReferrersTag tells the tags that hold lists of referrers: they name no images.
func IsReferrersTag(tag string) bool {
	alg, hex, ok := strings.Cut(tag, "-")
	return ok && digest.NewDigestFromEncoded(digest.Algorithm(alg), hex).Validate() == nil
}
