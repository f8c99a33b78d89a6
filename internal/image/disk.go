package image

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// Disk is what a store takes on its disk, in bytes as du counts them.
type Disk struct {
	// Layers, by diffID: the unpacked tree and the compressed blob together.
	Layers map[digest.Digest]int64
	// Cached are those layers that only the build cache holds.
	Cached map[digest.Digest]int64
	Total  int64 // all, manifests and what is arriving included
}

// Disk measures the store. A layer, which never changes, is measured once.
func (s *Store) Disk() (Disk, error) {
	d := Disk{Layers: map[digest.Digest]int64{}, Cached: map[digest.Digest]int64{}}
	blobs, err := s.Blobs.Disk()
	if err != nil {
		return d, err
	}
	d.Total = blobs
	inImages := map[digest.Digest]bool{}
	for _, r := range s.catalog.now().roots {
		for _, id := range r.config.RootFS.DiffIDs {
			inImages[id] = true
		}
	}
	for _, l := range s.parts.allLayers() {
		n, err := s.Layers.Disk(l.DiffID)
		if err != nil {
			return d, err
		}
		d.Total += n
		if l.Blob != "" {
			n += s.Blobs.DiskOf(l.Blob)
		}
		d.Layers[l.DiffID] = n
		if holders := s.Holders(l.DiffID); !inImages[l.DiffID] && len(holders) > 0 && strings.HasPrefix(holders[0], cachePrefix) {
			d.Cached[l.DiffID] = n
		}
	}
	n, err := s.Layers.DiskOfFixes()
	d.Total += n
	return d, err
}
