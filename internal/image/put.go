package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"tare/internal/base/fault"
	"tare/internal/image/layer"
)

// Tag lets name point at the image that ref names; the name's former image may become dangling.
func (s *Store) Tag(ref string, name reference.NamedTagged) error {
	s.change.Lock()
	defer s.change.Unlock()
	st := s.catalog.now()
	img, _, err := st.find(ref)
	if err != nil {
		return err
	}
	key := rootKey{img.Target.Digest, img.Manifest.Digest}
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		if n, ok := st.names[nameKey(named)]; ok {
			key = n.root // this very target, where the image has several
		}
	}
	if err := s.catalog.update(func(next *state) error { return next.point(name, key) }); err != nil {
		return fmt.Errorf("cannot tag %s: %w", reference.FamiliarString(name), err)
	}
	s.Announce("tag", img, reference.FamiliarString(name))
	return nil
}

// Name is Tag for an image that was just stored; no event is published.
func (s *Store) Name(img *Image, tag reference.NamedTagged) error {
	s.change.Lock()
	defer s.change.Unlock()
	err := s.catalog.update(func(next *state) error { return next.point(tag, rootKey{img.Target.Digest, img.Manifest.Digest}) })
	if err != nil {
		return fmt.Errorf("cannot name %s: %w", reference.FamiliarString(tag), err)
	}
	return nil
}

// point sets a tag, and brings an image back that was removed by force.
func (st *state) point(tag reference.NamedTagged, key rootKey) error {
	plain, err := reference.WithTag(reference.TrimNamed(tag), tag.Tag())
	if err != nil {
		return fault.Invalid("%w", err)
	}
	if st.roots[key] == nil {
		return fault.NotFound("No such image: %s", key.target)
	}
	st.names[plain.String()] = name{ref: plain, root: key, since: time.Now()}
	st.revive(st.roots[key].image)
	return nil
}

func (st *state) revive(image digest.Digest) {
	for k, r := range st.roots {
		if r.image == image && r.removed {
			again := *r
			again.removed = false
			st.roots[k] = &again
		}
	}
}

// Put makes an image from a config and layers that are already stored, compressed blobs included
// (see Commit), writes its manifest and sets names. The config's diffIDs are set from the layers. The
// same config and layers give the same image.
func (s *Store) Put(config *Config, layers []layer.Layer, names ...reference.NamedTagged) (*Image, error) {
	c := *config
	c.RootFS.Type = "layers"
	c.RootFS.DiffIDs = make([]digest.Digest, len(layers))
	for i, l := range layers {
		c.RootFS.DiffIDs[i] = l.DiffID
	}
	data, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("cannot encode config: %w", err)
	}
	img, err := s.PutConfig(data, layers, names...)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		s.Announce("tag", img, reference.FamiliarString(n))
	}
	return img, nil
}

// PutConfig is Put for a config in the very bytes that make the image's id; its diffIDs have to be
// the layers'. No tag events are published.
func (s *Store) PutConfig(data []byte, layers []layer.Layer, names ...reference.NamedTagged) (*Image, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers:    make([]ocispec.Descriptor, len(layers)),
	}
	for i, l := range layers {
		if l.Blob == "" {
			return nil, fault.Internal("layer %s has no compressed blob", l.DiffID)
		}
		m.Layers[i] = ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Blob, Size: l.BlobSize}
	}
	var err error
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Size: int64(len(data))}
	if m.Config.Digest, err = s.Blobs.Put(data); err != nil {
		return nil, err
	}
	if data, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("cannot encode manifest: %w", err)
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Size: int64(len(data))}
	if d.Digest, err = s.Blobs.Put(data); err != nil {
		return nil, err
	}
	img, err := s.put(d, func(next *state, r *root) error {
		for i, l := range layers {
			if r.config.RootFS.DiffIDs[i] != l.DiffID {
				return fault.Invalid("layer %d has diffID %s, the config says %s", i, l.DiffID, r.config.RootFS.DiffIDs[i])
			}
		}
		for _, n := range names {
			if err := next.point(n, r.key()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot store image: %w", err)
	}
	return img, nil
}

// Unpack makes the layers of the manifest or index d from its blobs, all of which are stored; it is what PutManifest wants
// done. It returns the image's id and its layers' diffIDs.
func (s *Store) Unpack(ctx context.Context, d ocispec.Descriptor) (id digest.Digest, diffIDs []digest.Digest, err error) {
	r, err := s.parts.resolve(d, "")
	if err != nil {
		return "", nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for i, diffID := range r.config.RootFS.DiffIDs {
		group.Go(func() error { return s.parts.unpackBlob(ctx, r.layers[i], diffID) })
	}
	return r.image, slices.Clone(r.config.RootFS.DiffIDs), group.Wait()
}

// PutManifest makes the manifest or index d, whose blobs are stored and layers unpacked, known, and points name at
// it. Pull ends with it. A tag in name is set; name@digest is recorded, being what
// the registry calls it. With name nil the image is kept without a name (Tag gives it some). Of an index, the
// manifest for d.Platform is taken, else this host's, else one that is in the store; blobs of other
// platforms may be missing.
func (s *Store) PutManifest(d ocispec.Descriptor, ref reference.Named) (*Image, error) {
	return s.put(d, func(next *state, r *root) error {
		if ref == nil {
			return nil
		}
		if digested, ok := ref.(reference.Digested); ok && digested.Digest() != d.Digest {
			return fault.Invalid("%s is not manifest %s", reference.FamiliarString(ref), d.Digest)
		}
		canonical, err := reference.WithDigest(reference.TrimNamed(ref), d.Digest)
		if err != nil {
			return fault.Invalid("%w", err)
		}
		next.names[canonical.String()] = name{ref: canonical, root: r.key(), since: time.Now()}
		next.revive(r.image)
		if _, ok := ref.(reference.Digested); !ok {
			ref = reference.TagNameOnly(ref)
		}
		if tag, ok := ref.(reference.NamedTagged); ok {
			return next.point(tag, r.key())
		}
		return nil
	})
}

// put verifies that all of an image is there, adds its root and lets name set names.
func (s *Store) put(d ocispec.Descriptor, name func(*state, *root) error) (*Image, error) {
	s.change.Lock()
	defer s.change.Unlock()
	r, err := s.parts.resolve(d, "")
	if err != nil {
		return nil, err
	}
	for i, id := range r.config.RootFS.DiffIDs {
		l, err := s.Layers.Get(id)
		if err != nil {
			return nil, err
		}
		if _, err := s.Blobs.Size(r.layers[i].Digest); err != nil {
			return nil, err
		}
		if err := s.parts.recordBlob(l, r.layers[i]); err != nil {
			return nil, err
		}
	}
	r.attached = s.parts.attached(r, s.catalog.now().referrers)
	err = s.catalog.update(func(next *state) error {
		if old, ok := next.roots[r.key()]; ok {
			r.since = old.since
		}
		next.roots[r.key()] = r
		next.revive(r.image)
		return name(next, r)
	})
	if err != nil {
		return nil, err
	}
	return s.catalog.now().images[r.image], nil
}

// Commit turns an upper directory into a stored layer with its compressed blob (gzip, reproducible). The
// directory is consumed; nothing may be mounted on it.
func (s *Store) Commit(ctx context.Context, upper string) (layer.Layer, error) {
	return s.CommitAt(ctx, upper, layer.Times{})
}

// CommitAt does the same with other times in the blob than the directory has.
func (s *Store) CommitAt(ctx context.Context, upper string, t layer.Times) (layer.Layer, error) {
	return s.parts.commit(ctx, func(w io.Writer) (layer.Layer, error) { return s.Layers.AdoptAt(ctx, upper, w, t) })
}

// CommitTar does the same for an uncompressed tar stream. layer.WriteTar makes one of a directory that stays in use.
func (s *Store) CommitTar(ctx context.Context, tar io.Reader) (layer.Layer, error) {
	return s.parts.commit(ctx, func(w io.Writer) (layer.Layer, error) {
		return s.Layers.Unpack(ctx, io.TeeReader(tar, w), "")
	})
}
