package image

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// runningPrefix starts the holder of an image whose container runs: force does not remove such an image.
const runningPrefix = "running container "

// Hold records holder (such as "container 4f…" or "build step k…") as a user of
// what it names: image ids, diffIDs, or digests of blobs. A second call with the same holder replaces the first. Holds live in
// memory; their owners take them again at start, before Sweep.
//
// A pull holds what it is about to use before it asks whether the store has it. A container that
// runs takes a second hold, "running container 4f…", for as long.
func (s *Store) Hold(holder string, ids ...digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[holder] = slices.Clone(ids)
}

// Release ends all that holder holds. The data of an image that was removed by force meanwhile goes with its last holder.
func (s *Store) Release(holder string) {
	s.mu.Lock()
	ids := s.holds[holder]
	delete(s.holds, holder)
	s.mu.Unlock()
	hidden := s.state.Load().hidden
	if slices.ContainsFunc(ids, func(id digest.Digest) bool { return hidden[id] != nil }) {
		s.change.Lock()
		defer s.change.Unlock()
		s.dropHidden()
	}
}

// Holders lists who holds an image or layer, sorted.
func (s *Store) Holders(id digest.Digest) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for h, ids := range s.holds {
		if slices.Contains(ids, id) {
			all = append(all, h)
		}
	}
	slices.Sort(all)
	return all
}

// held is the set of all digests that somebody holds.
func (s *Store) held() map[digest.Digest]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[digest.Digest]bool{}
	for _, ids := range s.holds {
		for _, id := range ids {
			all[id] = true
		}
	}
	return all
}

// users sorts an image's holders into containers that run and others; both by the id alone where they are containers.
func (s *Store) users(id digest.Digest) (running, other []string) {
	for _, h := range s.Holders(id) {
		if r, ok := strings.CutPrefix(h, runningPrefix); ok {
			running = append(running, r)
			continue
		}
		other = append(other, strings.TrimPrefix(h, "container "))
	}
	return running, other
}
