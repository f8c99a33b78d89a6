package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/progress"
	"tare/internal/image"
	"tare/internal/image/registry"
)

// VerifyRequest says what to look at.
type VerifyRequest struct {
	Images []string // names or ids; none: the whole store
	Repair bool     // pull damaged blobs again, and unpack damaged layers again
	Auth   func(host string) *registrytypes.AuthConfig
}

// Finding is a damage, and what became of it.
type Finding struct {
	image.Damage
	Repaired bool
	Note     string // why it is not repaired, or what was done
}

// Verify checks what is in the store against its digests, and with Repair mends what it can. The error is about the work, not about what was found.
func (s *Service) Verify(ctx context.Context, rq VerifyRequest, p progress.Sink) (image.Verified, []Finding, error) {
	var images []*image.Image
	holder := "verify " + ids.New()
	defer s.store.Release(holder)
	for _, name := range rq.Images {
		img, err := s.store.Get(name)
		if err != nil {
			return image.Verified{}, nil, err
		}
		images = append(images, img)
	}
	done := s.store.Arrive() // what is looked at does not go meanwhile
	defer done()
	v, err := (image.Health{Store: s.store}).Verify(ctx, images, nil)
	if err != nil {
		return v, nil, err
	}
	var all []Finding
	for _, d := range v.Damage {
		f := Finding{Damage: d}
		if rq.Repair {
			s.repair(ctx, rq, &f, p)
		}
		if err := ctx.Err(); err != nil {
			return v, all, context.Cause(ctx)
		}
		all = append(all, f)
	}
	return v, all, nil
}

// repair mends one damage. Blobs come before layers, which are made of them.
func (s *Service) repair(ctx context.Context, rq VerifyRequest, f *Finding, p progress.Sink) {
	p.Status(ids.Short(f.Digest.String()), "Repairing "+f.Kind)
	var err error
	switch {
	case f.Kind == "layer":
		if err = (image.Health{Store: s.store}).RepairLayer(ctx, f.Damage); err == nil {
			f.Note = "unpacked again"
		}
	case len(f.Images) == 0:
		var gone bool
		if gone, err = (image.Health{Store: s.store}).Forget(f.Digest); gone {
			f.Note = "removed: no image has it"
		} else if err == nil {
			err = errors.New("an image has it by now: verify again")
		}
	default:
		err = fault.NotFound("the image was never pulled from or pushed to a registry: build or load it again")
		for _, name := range f.From {
			if err = s.refetch(ctx, rq, name, f.Damage); err == nil {
				f.Note = "pulled again from " + reference.FamiliarName(name)
				break
			}
		}
	}
	f.Repaired = err == nil
	if err != nil {
		f.Note = err.Error()
	}
}

// refetch puts a blob as a registry has it in the damaged one's place.
func (s *Service) refetch(ctx context.Context, rq VerifyRequest, name reference.Named, d image.Damage) error {
	var auth *registrytypes.AuthConfig
	if rq.Auth != nil {
		auth = rq.Auth(reference.Domain(name))
	}
	repo := s.registry.Repository(name, auth, registry.Pull)
	w, err := s.store.Blobs.Once(d.Digest)
	if err != nil {
		return err
	}
	defer w.Close()
	size := d.Desc.Size
	if isManifest(d.Desc.MediaType) {
		data, _, err := repo.Manifest(ctx, d.Digest.String())
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		size = int64(len(data))
	} else {
		body, err := repo.Blob(ctx, d.Desc, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{body}, make([]byte, 256<<10)); err != nil {
			return err
		}
	}
	if _, err := w.CommitOver(size); err != nil {
		return fmt.Errorf("what %s has is damaged, too: %w", reference.Domain(name), err)
	}
	return nil
}
