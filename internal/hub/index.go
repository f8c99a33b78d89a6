package hub

import (
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// index tells which repositories have a blob. It is rebuilt from the links at each start.
type index struct {
	mu    sync.RWMutex // guards all below
	at    map[digest.Digest][]place
	links map[string]int       // per repository
	dirty map[string]bool      // repositories that changed since garbage was last looked for
	pulls map[string]time.Time // of records whose time was set lately
}

type place struct {
	name     string
	manifest bool // a manifest's record, not a blob's link
}

func newIndex() *index {
	return &index{at: map[digest.Digest][]place{}, links: map[string]int{}, dirty: map[string]bool{}, pulls: map[string]time.Time{}}
}

func (x *index) add(d digest.Digest, name string, manifest bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dirty[name] = true
	p := place{name, manifest}
	if !slices.Contains(x.at[d], p) {
		x.at[d] = append(x.at[d], p)
		x.links[name]++
	}
}

func (x *index) remove(d digest.Digest, name string, manifest bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dirty[name] = true
	i := slices.Index(x.at[d], place{name, manifest})
	if i < 0 {
		return
	}
	if x.links[name]--; x.links[name] == 0 {
		delete(x.links, name)
	}
	if len(x.at[d]) == 1 {
		delete(x.at, d)
		return
	}
	x.at[d] = slices.Delete(x.at[d], i, i+1)
}

func (x *index) used(d digest.Digest) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.at[d]) > 0
}

// having lists the repositories that have a blob as a blob.
func (x *index) having(d digest.Digest) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var names []string
	for _, p := range x.at[d] {
		if !p.manifest {
			names = append(names, p.name)
		}
	}
	return names
}

// names lists the repositories that have anything, in no order.
func (x *index) names() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	names := make([]string, 0, len(x.links))
	for n := range x.links {
		names = append(names, n)
	}
	return names
}

// takeDirty lists the changed repositories and forgets that they changed.
func (x *index) takeDirty() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	names := make([]string, 0, len(x.dirty))
	for n := range x.dirty {
		names = append(names, n)
	}
	clear(x.dirty)
	slices.Sort(names)
	return names
}

func (x *index) markDirty(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dirty[name] = true
}

// pulledNow tells whether the last pull that was noted for a record is an hour ago.
func (x *index) pulledNow(path string) bool {
	now := time.Now()
	x.mu.RLock()
	last, ok := x.pulls[path]
	x.mu.RUnlock()
	if ok && now.Sub(last) < time.Hour {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.pulls) > 100_000 {
		clear(x.pulls)
	}
	x.pulls[path] = now
	return true
}

func (x *index) repositories() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.links)
}

func (x *index) blobs() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.at)
}

// memory keeps small files that were read lately.
type memory struct {
	mu      sync.Mutex // guards all below
	entries map[string][]byte
	size    int
	changes uint64
}

// maxMemory bounds it, in bytes; a file longer than maxRemembered is not kept.
const (
	maxMemory     = 16 << 20
	maxRemembered = 256 << 10
)

func (m *memory) read(path string, read func(string) ([]byte, error)) ([]byte, error) {
	m.mu.Lock()
	data, ok := m.entries[path]
	changes := m.changes
	m.mu.Unlock()
	if ok {
		return data, nil
	}
	data, err := read(path)
	if err != nil || len(data) > maxRemembered {
		return data, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes != changes { // what was read may be old
		return data, nil
	}
	if m.entries == nil || m.size > maxMemory {
		m.entries, m.size = map[string][]byte{}, 0
	}
	m.entries[path] = data
	m.size += len(data) + 2*len(path) + 64
	return data, nil
}

// forget is called after a file changed.
func (m *memory) forget(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	delete(m.entries, path)
}
