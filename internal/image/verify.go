package image

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"tare/internal/base/fault"
	"tare/internal/image/compress"
	"tare/internal/image/layer"
)

// Damage is a blob or a layer that is not what its digest says.
type Damage struct {
	Kind    string // "blob" or "layer"
	Digest  digest.Digest
	Problem string
	Images  []string // names (or ids) of the images that have it
	// From are the repositories that it may be pulled from again.
	From []reference.Named
	Desc ocispec.Descriptor // of the blob; of a layer's blob
}

// Verified is what a verification looked at.
type Verified struct {
	Blobs, Layers int
	Bytes         int64 // of blobs
	Damage        []Damage
}

// subject is a blob or layer to verify, and whose it is.
type subject struct {
	Damage
}

// Health is whether a store's blobs and layers are what their digests say.
type Health struct{ Store *Store }

// Verify reads every blob, and unpacks every layer once more, of the given images (none: of all, and what no image has as well), and tells what
// is damaged. It changes nothing. told, which may be nil, is called after each.
func (h Health) Verify(ctx context.Context, images []*Image, told func(kind string, d digest.Digest)) (Verified, error) {
	s := h.Store
	blobs, layers := h.subjects(images)
	var mu sync.Mutex // guards v
	v := Verified{Blobs: len(blobs), Layers: len(layers)}
	broken := map[digest.Digest]bool{}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, b := range blobs {
		group.Go(func() error {
			if err := gctx.Err(); err != nil {
				return context.Cause(gctx)
			}
			err := s.Blobs.Verify(b.Digest)
			size, _ := s.Blobs.Size(b.Digest)
			mu.Lock()
			defer mu.Unlock()
			v.Bytes += size
			if err != nil {
				if !errdefs.IsNotFound(err) && !errdefs.IsInternal(err) {
					return err
				}
				b.Problem, broken[b.Digest] = err.Error(), true
				v.Damage = append(v.Damage, b.Damage)
			}
			if told != nil {
				told(b.Kind, b.Digest)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return v, err
	}
	group, gctx = errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, l := range layers {
		group.Go(func() error {
			problem := "its compressed form is damaged, so it can't be compared"
			if !broken[l.Desc.Digest] {
				var err error
				if problem, err = h.verifyLayer(gctx, l.Desc, l.Digest, false); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if problem != "" {
				l.Problem = problem
				v.Damage = append(v.Damage, l.Damage)
			}
			if told != nil {
				told(l.Kind, l.Digest)
			}
			return nil
		})
	}
	err := group.Wait()
	slices.SortFunc(v.Damage, func(a, b Damage) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(string(a.Digest), string(b.Digest)))
	})
	return v, err
}

// subjects are the blobs and layers to look at.
func (h Health) subjects(images []*Image) (blobs, layers []*subject) {
	s := h.Store
	wanted := map[digest.Digest]bool{}
	for _, img := range images {
		wanted[img.ID] = true
	}
	st := s.catalog.now()
	allBlobs, allLayers := map[digest.Digest]*subject{}, map[digest.Digest]*subject{}
	note := func(m map[digest.Digest]*subject, kind string, d digest.Digest, desc ocispec.Descriptor, img *Image) {
		one := m[d]
		if one == nil {
			one = &subject{Damage{Kind: kind, Digest: d, Desc: desc}}
			m[d] = one
		}
		one.of(img)
	}
	for _, k := range slices.SortedFunc(maps.Keys(st.roots), compareKeys) {
		r := st.roots[k]
		img := st.images[r.image]
		if len(images) > 0 && !wanted[r.image] || img == nil {
			continue
		}
		note(allBlobs, "blob", r.target.Digest, r.target, img)
		note(allBlobs, "blob", r.manifest.Digest, r.manifest, img)
		note(allBlobs, "blob", r.image, r.conf, img)
		for i, l := range r.layers {
			note(allBlobs, "blob", l.Digest, l, img)
			note(allLayers, "layer", r.config.RootFS.DiffIDs[i], l, img)
		}
		for _, a := range r.attached {
			note(allBlobs, "blob", a.Digest, a, img)
		}
	}
	if len(images) == 0 {
		s.Blobs.Walk(func(d digest.Digest, size int64) error {
			if allBlobs[d] == nil {
				allBlobs[d] = &subject{Damage{Kind: "blob", Digest: d, Desc: ocispec.Descriptor{Digest: d, Size: size}}}
			}
			return nil
		})
		for _, l := range s.parts.allLayers() {
			if allLayers[l.DiffID] == nil && l.Blob != "" {
				allLayers[l.DiffID] = &subject{Damage{Kind: "layer", Digest: l.DiffID, Desc: ocispec.Descriptor{Digest: l.Blob, Size: l.BlobSize, MediaType: l.MediaType}}}
			}
		}
	}
	byDigest := func(a, b *subject) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
	return slices.SortedFunc(maps.Values(allBlobs), byDigest), slices.SortedFunc(maps.Values(allLayers), byDigest)
}

// of adds an image that has the subject.
func (s *subject) of(img *Image) {
	names := img.Names
	if len(names) == 0 {
		names = []string{img.ID.String()}
	}
	for _, n := range names {
		if !slices.Contains(s.Images, n) {
			s.Images = append(s.Images, n)
		}
	}
	for _, n := range slices.Concat(img.Digests, img.Names) {
		ref, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			continue
		}
		ref = reference.TrimNamed(ref)
		if !slices.ContainsFunc(s.From, func(have reference.Named) bool { return have.Name() == ref.Name() }) {
			s.From = append(s.From, ref)
		}
	}
}

// verifyLayer compares a layer with its blob, and with repair makes it anew where it differs. problem is "" for a layer that is whole.
func (h Health) verifyLayer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest, repair bool) (problem string, err error) {
	s := h.Store
	f, err := s.Blobs.Reader(d.Digest)
	if err != nil {
		return err.Error(), nil
	}
	defer f.Close()
	tar, _, err := compress.Reader(ctx, f)
	if err != nil {
		return err.Error(), nil
	}
	defer tar.Close()
	if _, err := s.Layers.Get(diffID); err != nil {
		if !repair {
			return "it is missing", nil
		}
		return "", s.parts.unpackBlob(ctx, d, diffID)
	}
	wrong, replace, discard, err := layer.Verify(ctx, s.Layers, diffID, tar)
	if errdefs.IsInvalidArgument(err) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	defer func() {
		if derr := discard(); err == nil {
			err = derr
		}
	}()
	if len(wrong) == 0 {
		return "", nil
	}
	if !repair {
		return strings.Join(wrong, "; "), nil
	}
	return "", replace()
}

// RepairLayer makes a layer anew from its blob, if it is damaged. What a running container uses is not touched: Conflict.
func (h Health) RepairLayer(ctx context.Context, d Damage) error {
	s := h.Store
	for _, r := range s.catalog.now().roots {
		if !slices.Contains(r.config.RootFS.DiffIDs, d.Digest) {
			continue
		}
		if running, _ := s.holds.users(r.image); len(running) > 0 {
			return fault.Conflict("cannot repair layer %s: running container %s uses it; stop it first", d.Digest, running[0])
		}
	}
	problem, err := h.verifyLayer(ctx, d.Desc, d.Digest, true)
	if err == nil && problem != "" {
		err = fault.Internal("%s", problem)
	}
	if err != nil {
		return fmt.Errorf("cannot repair layer %s: %w", d.Digest, err)
	}
	return nil
}

// Forget removes a damaged blob that no image has; it tells whether it did.
func (h Health) Forget(d digest.Digest) (bool, error) {
	s := h.Store
	s.change.Lock()
	defer s.change.Unlock()
	if s.garbage.reached().blobs[d] {
		return false, nil
	}
	return true, s.Blobs.Remove(d)
}
