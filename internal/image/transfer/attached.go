package transfer

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// What is said about an image, by attestations in its index and by manifests that refer to it, comes with it and goes with it. It is small,
// and it is not the image: a pull waits for it no longer than attachedWait after the image is there, and is right without it.
const (
	maxAttached     = 64        // manifests about one image
	maxAttachedBlob = 64 << 20  // bytes of one of their blobs
	maxAttachedSum  = 256 << 20 // and of all of them
	attachedWait    = 10 * time.Second
)

// attachment is a manifest about an image that came.
type attachment struct {
	subject  digest.Digest
	manifest ocispec.Descriptor
	referrer bool
}

// attached brings what is said about the image that is arriving. Its errors are warnings.
func (j *job) attached(ctx context.Context, target ocispec.Descriptor, index *document, manifest ocispec.Descriptor) []attachment {
	var all []attachment
	if index != nil {
		for _, d := range index.Manifests {
			if d.Annotations["vnd.docker.reference.type"] != "" && d.Annotations["vnd.docker.reference.digest"] == manifest.Digest.String() {
				all = append(all, attachment{manifest.Digest, d, false})
			}
		}
	}
	subjects := []digest.Digest{target.Digest}
	if manifest.Digest != target.Digest {
		subjects = append(subjects, manifest.Digest)
	}
	for _, s := range subjects {
		refs, err := j.repo.Referrers(ctx, s)
		if err != nil {
			slog.Debug("cannot list what is said of an image", "image", j.ref, "error", err)
			continue
		}
		for _, d := range refs {
			all = append(all, attachment{s, d, true})
		}
	}
	var came []attachment
	left := int64(maxAttachedSum)
	for _, a := range all[:min(len(all), maxAttached)] {
		if err := j.attachment(ctx, a, &left); err != nil {
			if ctx.Err() == nil {
				slog.Warn("what is said of an image did not come with it", "image", j.ref, "manifest", a.manifest.Digest, "error", err)
			}
			continue
		}
		came = append(came, a)
	}
	return came
}

func (j *job) attachment(ctx context.Context, a attachment, left *int64) error {
	if err := sound(a.manifest); err != nil {
		return err
	}
	data, err := j.manifest(ctx, &a.manifest)
	if err != nil {
		return err
	}
	var subject struct {
		Subject *ocispec.Descriptor `json:"subject"`
	}
	if json.Unmarshal(data, &subject); a.referrer && (subject.Subject == nil || subject.Subject.Digest != a.subject) {
		return fault.Invalid("manifest %s is listed as being about %s, which it is not", a.manifest.Digest, a.subject)
	}
	doc, err := parseAny(data, a.manifest)
	if err != nil {
		return err
	}
	for _, b := range doc.parts() {
		if b.Size > maxAttachedBlob || b.Size > *left {
			return fault.Invalid("blob %s has %d bytes, which is too much for what is said of an image", b.Digest, b.Size)
		}
		*left -= b.Size
		if err := j.small(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// small brings one blob.
func (j *job) small(ctx context.Context, d ocispec.Descriptor) error {
	if _, err := j.s.store.Blobs.Claim(d.Digest); err == nil {
		return nil
	}
	body, err := j.repo.Blob(ctx, d, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	w, err := j.s.store.Blobs.Once(d.Digest)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{body}, make([]byte, 64<<10)); err != nil {
		return err
	}
	_, err = w.Commit(d.Size)
	return err
}
