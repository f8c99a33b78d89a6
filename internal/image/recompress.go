package image

import (
	"context"
	"encoding/json"
	"io"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"tare/internal/base/fault"
	"tare/internal/image/compress"
)

// Recompress makes a manifest for an image whose layers are compressed in another form; layers that are so already stay as they are. The same
// layers give the same blobs. Manifest and blobs are stored, but nothing names them: the caller has begun an arrival (Arrive), and
// discards (Discard) what made lists when it is done.
func Recompress(ctx context.Context, s *Store, img *Image, form compress.Form) (d ocispec.Descriptor, made []digest.Digest, err error) {
	data, err := s.Blobs.Bytes(img.Manifest.Digest)
	if err != nil {
		return d, nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return d, nil, fault.Invalid("cannot read manifest %s: %w", img.Manifest.Digest, err)
	}
	blobs := make([]digest.Digest, len(m.Layers)) // that were made
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for i, l := range m.Layers {
		if have, err := compress.FormOf(l.MediaType); err != nil || have == form {
			if err != nil {
				return d, nil, err
			}
			continue
		}
		group.Go(func() error {
			n, err := s.parts.recompress(ctx, l.Digest, form)
			m.Layers[i], blobs[i] = n, n.Digest
			return err
		})
	}
	err = group.Wait()
	made = slices.DeleteFunc(blobs, func(d digest.Digest) bool { return d == "" })
	if err != nil || len(made) == 0 {
		return img.Manifest, made, err
	}
	m.MediaType, m.Config.MediaType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	for i, l := range m.Layers {
		if f, err := compress.FormOf(l.MediaType); err == nil {
			m.Layers[i].MediaType = f.MediaType() // OCI's, all of them
		}
	}
	if data, err = json.Marshal(m); err != nil {
		return d, made, err
	}
	d = ocispec.Descriptor{MediaType: m.MediaType, Size: int64(len(data))}
	d.Digest, err = s.Blobs.Put(data)
	return d, append(made, d.Digest), err
}

// recompress writes a layer's blob in another form.
func (p parts) recompress(ctx context.Context, d digest.Digest, form compress.Form) (ocispec.Descriptor, error) {
	n := ocispec.Descriptor{MediaType: form.MediaType()}
	f, err := p.blobs.Reader(d)
	if err != nil {
		return n, err
	}
	defer f.Close()
	tar, _, err := compress.Reader(ctx, f)
	if err != nil {
		return n, err
	}
	defer tar.Close()
	w, err := p.blobs.Writer(ctx, "")
	if err != nil {
		return n, err
	}
	defer w.Close()
	z, err := compress.WriterOf(form, w)
	if err != nil {
		return n, err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{z}, &stopping{ctx, tar}, make([]byte, 256<<10))
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return n, err
	}
	n.Size = w.Offset()
	n.Digest, err = w.Commit(n.Size)
	return n, err
}

// stopping is a reader that ends with its context.
type stopping struct {
	ctx context.Context
	r   io.Reader
}

func (s *stopping) Read(b []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(b)
}
