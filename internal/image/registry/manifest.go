package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// Docker's media types (image-manifest-v2-2.md), beside those of the image-spec.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	dockerSchema1      = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1JWS   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// maxManifest is the longest manifest that is read, in bytes.
const maxManifest = 8 << 20

// accepted are the media types of manifests, best first.
var accepted = []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, DockerManifestList, DockerManifest, "*/*;q=0.1"}

// Manifest fetches a manifest or index by tag or digest. Its digest is verified; MediaType, Digest and Size
// of the descriptor describe data. A schema 1 manifest is refused.
func (r *Repository) Manifest(ctx context.Context, tagOrDigest string) (data []byte, d ocispec.Descriptor, err error) {
	ref, err := r.ref(tagOrDigest)
	if err != nil {
		return nil, d, err
	}
	for try := 1; ; try++ {
		data, d, err = r.manifest(ctx, tagOrDigest)
		if err == nil || ctx.Err() != nil || try >= r.c.config.Tries || asError(err) != nil || !cut(err) {
			break
		}
		if err := r.c.sleep(ctx, try, err); err != nil {
			return nil, d, err
		}
	}
	return data, d, pullError(ref, err)
}

func (r *Repository) manifest(ctx context.Context, tagOrDigest string) ([]byte, ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	rs, err := r.do(ctx, request{method: http.MethodGet, path: "manifests/" + tagOrDigest, byTag: !strings.Contains(tagOrDigest, ":"), header: http.Header{"Accept": accepted}})
	if err != nil {
		return nil, d, err
	}
	body, done := r.c.small(rs.Body)
	defer done()
	data, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return nil, d, &cutError{err}
	}
	if len(data) > maxManifest {
		return nil, d, fault.Invalid("manifest %s of %s is longer than %d bytes", tagOrDigest, r.name, maxManifest)
	}
	d, err = describe(data, rs.Header.Get("Content-Type"))
	if err != nil {
		return nil, d, err
	}
	want := digest.Digest(rs.Header.Get("Docker-Content-Digest"))
	if asked, err := digest.Parse(tagOrDigest); err == nil {
		want = asked
	}
	if want != "" && want.Validate() == nil {
		if got := want.Algorithm().FromBytes(data); got != want {
			return nil, d, fault.Invalid("manifest verification failed for digest %s: the registry sent %s", want, got)
		}
		d.Digest = want
	}
	return data, d, nil
}

// cutError marks a body that broke off.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

func cut(err error) bool {
	_, ok := err.(*cutError)
	return ok
}

// describe makes the descriptor of a manifest; the body's mediaType goes before the header's.
func describe(data []byte, contentType string) (ocispec.Descriptor, error) {
	var body struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		ArtifactType  string          `json:"artifactType"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return ocispec.Descriptor{}, fault.Invalid("the registry sent a manifest that is not JSON: %w", err)
	}
	header, _, _ := mime.ParseMediaType(contentType)
	if header == dockerSchema1 || header == dockerSchema1JWS || body.SchemaVersion == 1 {
		return ocispec.Descriptor{}, fault.Invalid("manifest has schema version 1, which is no longer supported: ask the image's author to push it again with a current tool")
	}
	d := ocispec.Descriptor{MediaType: body.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	known := func(s string) bool {
		return s == ocispec.MediaTypeImageIndex || s == ocispec.MediaTypeImageManifest || s == DockerManifest || s == DockerManifestList
	}
	switch {
	case d.MediaType != "" && known(header) && header != d.MediaType:
		return d, fault.Invalid("the registry calls a manifest %s that calls itself %s", header, d.MediaType)
	case d.MediaType == "" && known(header):
		d.MediaType = header
	case d.MediaType == "" && body.Manifests != nil:
		d.MediaType = ocispec.MediaTypeImageIndex
	case d.MediaType == "" && body.Config != nil:
		d.MediaType = ocispec.MediaTypeImageManifest
	}
	if body.Manifests != nil && body.Config != nil {
		return d, fault.Invalid("manifest %s is index and image at once", d.Digest)
	}
	return d, nil
}

// HasManifest tells whether the registry itself has a manifest, and its digest (where the registry says it).
func (r *Repository) HasManifest(ctx context.Context, tagOrDigest string) (digest.Digest, bool, error) {
	rs, err := r.do(ctx, request{method: http.MethodHead, path: "manifests/" + tagOrDigest, write: r.access == Push, header: http.Header{"Accept": accepted}})
	if e := asError(err); e != nil && e.Status == http.StatusNotFound {
		return "", false, nil
	}
	if err != nil {
		ref, _ := r.ref(tagOrDigest)
		return "", false, pullError(ref, err)
	}
	drain(rs)
	return digest.Digest(rs.Header.Get("Docker-Content-Digest")), true, nil
}

// PutManifest stores a manifest under a tag or its digest.
func (r *Repository) PutManifest(ctx context.Context, tagOrDigest, mediaType string, data []byte) error {
	_, err := r.putManifest(ctx, tagOrDigest, mediaType, data)
	return err
}

func (r *Repository) putManifest(ctx context.Context, tagOrDigest, mediaType string, data []byte) (http.Header, error) {
	rs, err := r.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + tagOrDigest, write: true,
		header: http.Header{"Content-Type": {mediaType}},
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		length: int64(len(data)),
	})
	if err != nil {
		return nil, pushError(r.name, err)
	}
	drain(rs)
	want := digest.FromBytes(data)
	if got := rs.Header.Get("Docker-Content-Digest"); got != "" && got != want.String() {
		return nil, fault.Internal("registry %s stored the manifest as %s, it is %s", reference.Domain(r.name), got, want)
	}
	return rs.Header, nil
}

// ref is the name with a tag or digest, for messages.
func (r *Repository) ref(tagOrDigest string) (reference.Named, error) {
	if d, err := digest.Parse(tagOrDigest); err == nil {
		return reference.WithDigest(r.name, d)
	}
	ref, err := reference.WithTag(r.name, tagOrDigest)
	if err != nil {
		return nil, fault.Invalid("invalid tag %q: %w", tagOrDigest, err)
	}
	return ref, nil
}
