package image

import (
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// runningPrefix starts the holder of an image whose container runs: force does not remove such an image.
const runningPrefix = "running container "

// cachePrefix starts the holder of a layer that the build cache keeps.
const cachePrefix = "build cache "

// Hold records holder (such as "container 4f…" or "build step k…") as a user of
// what it names: image ids, diffIDs, or digests of blobs. A second call with the same holder replaces the first. Holds live in
// memory; their owners take them again at start, before Sweep.
//
// A pull holds what it is about to use before it asks whether the store has it. A container that
// runs takes a second hold, "running container 4f…", for as long.
func (s *Store) Hold(holder string, ids ...digest.Digest) {
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	s.holds.by[holder] = slices.Clone(ids)
}

// Release ends all that holder holds. The data of an image that was removed by force meanwhile goes with its last holder.
func (s *Store) Release(holder string) {
	s.holds.mu.Lock()
	ids := s.holds.by[holder]
	delete(s.holds.by, holder)
	s.holds.mu.Unlock()
	hidden := s.catalog.now().hidden
	if slices.ContainsFunc(ids, func(id digest.Digest) bool { return hidden[id] != nil }) {
		s.change.Lock()
		defer s.change.Unlock()
		s.garbage.dropHidden()
	}
}

// Holders lists who holds an image or layer, sorted.
func (s *Store) Holders(id digest.Digest) []string { return s.holds.of(id) }

// holds are who uses what.
type holds struct {
	mu sync.Mutex // guards by
	by map[string][]digest.Digest
}

func (h *holds) of(id digest.Digest) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for holder, ids := range h.by {
		if slices.Contains(ids, id) {
			all = append(all, holder)
		}
	}
	slices.Sort(all)
	return all
}

// all is the set of all digests that somebody holds.
func (h *holds) all() map[digest.Digest]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[digest.Digest]bool{}
	for _, ids := range h.by {
		for _, id := range ids {
			all[id] = true
		}
	}
	return all
}

// users sorts an image's holders into containers that run and others; both by the id alone where they are containers.
func (h *holds) users(id digest.Digest) (running, other []string) {
	for _, holder := range h.of(id) {
		if r, ok := strings.CutPrefix(holder, runningPrefix); ok {
			running = append(running, r)
			continue
		}
		other = append(other, strings.TrimPrefix(holder, "container "))
	}
	return running, other
}

// unheld calls delete unless somebody holds id, and lets nobody take a hold meanwhile: who takes one and then looks
// finds either all or nothing. delete is quick.
func (h *holds) unheld(id digest.Digest, delete func()) (held bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ids := range h.by {
		if slices.Contains(ids, id) {
			return true
		}
	}
	delete()
	return false
}
