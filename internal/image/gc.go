package image

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"tare/internal/image/layer"
)

// Sweep deletes blobs and layers that no name and no hold reaches, at once; what arrives (Arrive) stays.
func (s *Store) Sweep(ctx context.Context) (bytes int64, err error) {
	s.change.Lock()
	defer s.change.Unlock()
	return s.garbage.sweep(ctx)
}

// Discard deletes those of the given blobs and layers that no name, no hold and no arrival reaches: what a load or
// pull brought in and could not use.
func (s *Store) Discard(ids ...digest.Digest) (err error) {
	s.change.Lock()
	defer s.change.Unlock()
	files := newDeletion()
	defer func() {
		if derr := files.Wait(); err == nil {
			err = derr
		}
	}()
	since := s.garbage.arrivals.since()
	keep := s.garbage.reached()
	for _, d := range ids {
		if l, err := s.Layers.Get(d); err == nil && !keep.layers[d] {
			gone, _, err := s.garbage.freeLayer(keep, since, l, files)
			if err != nil {
				return err
			}
			if !gone {
				keep.blobs[l.Blob] = true
			}
		}
	}
	for _, d := range ids {
		if _, err := s.garbage.freeBlob(keep, since, d); err != nil {
			return err
		}
	}
	return nil
}

// newDeletion deletes the files of layers side by side: one is bound by the disk's answers, not by the disk.
func newDeletion() *errgroup.Group {
	g := &errgroup.Group{}
	g.SetLimit(max(4, runtime.NumCPU()))
	return g
}

// garbage is what no name and no hold reaches.
type garbage struct {
	parts    parts
	catalog  *catalog
	holds    *holds
	arrivals *arrivals
}

func (g garbage) sweep(ctx context.Context) (bytes int64, err error) {
	bytes, err = g.dropHidden()
	if err != nil || ctx.Err() != nil {
		return bytes, err
	}
	n, err := g.unreached()
	return bytes + n, err
}

// unreached deletes all layers and blobs that nothing reaches. The caller holds Store.change.
func (g garbage) unreached() (bytes int64, err error) {
	since := g.arrivals.since() // before looking who holds what
	keep := g.reached()
	files := newDeletion()
	defer func() {
		if derr := files.Wait(); err == nil {
			err = derr
		}
	}()
	for _, l := range g.parts.allLayers() {
		if keep.layers[l.DiffID] {
			continue
		}
		gone, n, err := g.freeLayer(keep, since, l, files)
		if err != nil {
			return bytes, err
		}
		if bytes += n; !gone {
			keep.blobs[l.Blob] = true
		}
	}
	err = g.parts.blobs.Walk(func(d digest.Digest, size int64) error {
		n, err := g.freeBlob(keep, since, d)
		bytes += n
		return err
	})
	if err != nil {
		return bytes, err
	}
	return bytes, g.parts.layers.SweepFixes()
}

// freeLayer deletes a layer that nothing reaches, with its blob, unless somebody holds it by now or is about to name it.
// Its files go with others', in the background of files.
func (g garbage) freeLayer(keep needed, since time.Time, l layer.Layer, files *errgroup.Group) (gone bool, bytes int64, err error) {
	var rest func() error
	held := g.holds.unheld(l.DiffID, func() {
		gone, rest, err = g.parts.layers.Detach(l.DiffID, since)
	})
	if err != nil || held {
		return false, 0, err
	}
	if !gone {
		g.arrivals.spare()
		return false, 0, nil
	}
	files.Go(rest)
	n, err := g.freeBlob(keep, since, l.Blob)
	return true, l.Size + n, err
}

// freeBlob does the same for a blob.
func (g garbage) freeBlob(keep needed, since time.Time, d digest.Digest) (bytes int64, err error) {
	if d == "" || keep.blobs[d] {
		return 0, nil
	}
	size, err := g.parts.blobs.Size(d)
	if err != nil {
		return 0, nil
	}
	gone := false
	held := g.holds.unheld(d, func() { gone, err = g.parts.blobs.RemoveStale(d, since) })
	switch {
	case err != nil || held:
		return 0, err
	case !gone:
		g.arrivals.spare()
		return 0, nil
	}
	return size, nil
}

// free deletes what roots that are gone had and nothing else has; it returns the layers, topmost first,
// and the bytes won. The caller holds Store.change.
func (g garbage) free(gone []*root) (layers []digest.Digest, bytes int64, err error) {
	since := g.arrivals.since()
	keep := g.reached()
	files := newDeletion()
	defer func() {
		if derr := files.Wait(); err == nil {
			err = derr
		}
	}()
	for _, r := range gone {
		for _, l := range slices.Backward(g.parts.layersOf(r)) {
			if keep.layers[l.DiffID] {
				continue
			}
			done, n, err := g.freeLayer(keep, since, l, files)
			if err != nil {
				return layers, bytes, err
			}
			bytes += n
			if done {
				layers = append(layers, l.DiffID)
			} else {
				keep.blobs[l.Blob] = true
			}
		}
		for _, d := range r.blobs() {
			n, err := g.freeBlob(keep, since, d)
			if err != nil {
				return layers, bytes, err
			}
			bytes += n
		}
	}
	if len(layers) > 0 {
		err = g.parts.layers.SweepFixes()
	}
	return layers, bytes, err
}

// needed is what roots and holds need. A digest may be in one and not in the other: an uncompressed blob has its layer's diffID.
type needed struct{ blobs, layers map[digest.Digest]bool }

func (g garbage) reached() needed {
	keep := needed{blobs: g.holds.all(), layers: g.holds.all()}
	for _, r := range g.catalog.now().roots {
		for _, d := range r.blobs() {
			keep.blobs[d] = true
		}
		for _, d := range r.config.RootFS.DiffIDs {
			keep.layers[d] = true
		}
	}
	for d := range keep.layers {
		if l, err := g.parts.layers.Get(d); err == nil && l.Blob != "" {
			keep.blobs[l.Blob] = true
		}
	}
	return keep
}

// dropHidden forgets images that were removed by force and that nobody holds any more. The caller holds Store.change.
func (g garbage) dropHidden() (bytes int64, err error) {
	held := g.holds.all()
	var gone []*root
	for _, r := range g.catalog.now().roots {
		if r.removed && !held[r.image] {
			gone = append(gone, r)
		}
	}
	if len(gone) == 0 {
		return 0, nil
	}
	err = g.catalog.update(func(next *state) error {
		for _, r := range gone {
			delete(next.roots, r.key())
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	_, bytes, err = g.free(gone)
	return bytes, err
}
