package image

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// grace is how long something that just arrived is left to whoever is about to name it.
const grace = 10 * time.Minute

// Sweep deletes blobs and layers that no name and no hold reaches. It runs beside pulls and builds: what
// arrived within the last minutes and is not named yet stays, as does what is still arriving.
func (s *Store) Sweep(ctx context.Context) (bytes int64, err error) {
	s.change.Lock()
	defer s.change.Unlock()
	return s.garbage.sweep(ctx)
}

// Discard deletes those of the given blobs and layers that no name and no hold reaches: what a load or
// pull brought in and could not use.
func (s *Store) Discard(ids ...digest.Digest) error {
	s.change.Lock()
	defer s.change.Unlock()
	keep := s.garbage.reached()
	for _, d := range ids {
		if l, err := s.Layers.Get(d); err == nil && !keep.layers[d] {
			if err := s.Layers.Remove(d); err != nil {
				return err
			}
			if _, err := s.parts.freeBlob(keep, l.Blob); err != nil {
				return err
			}
		}
		if _, err := s.parts.freeBlob(keep, d); err != nil {
			return err
		}
	}
	return nil
}

// garbage is what no name and no hold reaches.
type garbage struct {
	parts   parts
	catalog *catalog
	holds   *holds
}

func (g garbage) sweep(ctx context.Context) (bytes int64, err error) {
	bytes, err = g.dropHidden()
	if err != nil {
		return bytes, err
	}
	keep := g.reached()
	for _, l := range g.parts.allLayers() {
		if keep.layers[l.DiffID] {
			continue
		}
		if ctx.Err() != nil {
			return bytes, context.Cause(ctx)
		}
		gone, err := g.parts.layers.RemoveStale(l.DiffID, grace)
		if err != nil {
			return bytes, err
		}
		if gone {
			bytes += l.Size
		} else {
			keep.blobs[l.Blob] = true
		}
	}
	err = g.parts.blobs.Walk(func(d digest.Digest, size int64) error {
		if keep.blobs[d] {
			return nil
		}
		gone, err := g.parts.blobs.RemoveStale(d, grace)
		if gone {
			bytes += size
		}
		return err
	})
	if err != nil {
		return bytes, err
	}
	return bytes, g.parts.layers.SweepFixes()
}

// free deletes what roots that are gone had and nothing else has; it returns the layers, topmost first,
// and the bytes won. The caller holds Store.change.
func (g garbage) free(gone []*root) (layers []digest.Digest, bytes int64, err error) {
	keep := g.reached()
	for _, r := range gone {
		for _, l := range slices.Backward(g.parts.layersOf(r)) {
			if keep.layers[l.DiffID] {
				continue
			}
			if err := g.parts.layers.Remove(l.DiffID); err != nil {
				return layers, bytes, err
			}
			layers = append(layers, l.DiffID)
			bytes += l.Size
			n, err := g.parts.freeBlob(keep, l.Blob)
			if err != nil {
				return layers, bytes, err
			}
			bytes += n
		}
		for _, d := range r.blobs() {
			n, err := g.parts.freeBlob(keep, d)
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
