// Package cache remembers what build steps made.
//
//	key      hex SHA-256 of all that decides a step's result
//	record   what the step with that key made: a layer, or nothing (the step changed no file)
//	pin      a running build that uses a record; what is pinned is not removed
//
// There is one file per record. The layers are kept in the image store by a hold per record; a record whose layer is gone
// is dropped when it is met. Statistics of use are written in the background and may be lost in a crash.
//
// Lock order: Cache.mu is a leaf, except that the Holder is called under it.
package cache

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/files"
)

// Record is one step's result.
type Record struct {
	Key     string        `json:"key"`
	Parents []string      `json:"parents,omitempty"` // keys
	Kind    string        `json:"kind"`              // "run", "copy", "mkdir", "image", "mount"
	About   string        `json:"about"`
	Layer   digest.Digest `json:"layer,omitempty"` // diffID; "": nothing changed
	Size    int64         `json:"size"`            // bytes of the layer's files
	Created time.Time     `json:"created"`
	Took    time.Duration `json:"took,omitempty"`
	Since   time.Time     `json:"since,omitzero"` // files with this time or a later one have what the build made of it (solve.Work)
	Used    time.Time     `json:"used"`
	Uses    int           `json:"uses"` // after the build that made it
}

// Holder keeps layers from being removed: the image store.
type Holder interface {
	Hold(holder string, ids ...digest.Digest)
	Release(holder string)
}

// Cache is one data root's records. Safe for concurrent use.
type Cache struct {
	dir   string
	holds Holder
	has   func(diffID digest.Digest) bool

	mu      sync.Mutex // guards all below
	records map[string]*Record
	pins    map[string]map[string]bool // build → keys
	dirty   map[string]bool            // keys whose statistics are newer than their file
	saving  bool
	idle    sync.Cond // on mu: saving ended
}

// Open reads the records in dir, takes their holds and drops those whose layers has says are gone.
func Open(dir string, holds Holder, has func(diffID digest.Digest) bool) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := files.Sweep(dir); err != nil {
		return nil, err
	}
	c := &Cache{dir: dir, holds: holds, has: has, records: map[string]*Record{},
		pins: map[string]map[string]bool{}, dirty: map[string]bool{}}
	c.idle.L = &c.mu
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		r := &Record{}
		if err := files.ReadJSON(c.path(key), r); err != nil || r.Key != key || r.Layer != "" && !has(r.Layer) {
			os.Remove(c.path(key)) // losing a record costs a step's time, no more
			continue
		}
		c.records[key] = r
		if r.Layer != "" {
			holds.Hold(holder(key), r.Layer)
		}
	}
	return c, nil
}

func (c *Cache) path(key string) string { return filepath.Join(c.dir, key+".json") }
func holder(key string) string          { return "build cache " + key }

// Get finds a record and pins it for the build. Its layer is there.
func (c *Cache) Get(key, build string) (Record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[key]
	if r == nil {
		return Record{}, false
	}
	if r.Layer != "" && !c.has(r.Layer) {
		c.drop(key)
		return Record{}, false
	}
	r.Used = time.Now()
	r.Uses++
	c.pin(key, build)
	c.touch(key)
	return *r, true
}

// Put stores a record, pinned for the build, and holds its layer. The record it replaces, if any, loses its layer.
func (c *Cache) Put(r Record, build string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Layer != "" {
		c.holds.Hold(holder(r.Key), r.Layer)
	}
	if r.Created.IsZero() {
		r.Created = time.Now()
	}
	if r.Used.IsZero() {
		r.Used = r.Created
	}
	c.records[r.Key] = &r
	delete(c.dirty, r.Key)
	c.pin(r.Key, build)
	return files.WriteJSON(c.path(r.Key), &r, files.Fast)
}

// Pin keeps a record for the build.
func (c *Cache) Pin(key, build string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pin(key, build)
}

func (c *Cache) pin(key, build string) {
	if c.pins[build] == nil {
		c.pins[build] = map[string]bool{}
	}
	c.pins[build][key] = true
}

// Unpin ends the build's use of its records.
func (c *Cache) Unpin(build string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pins, build)
}

func (c *Cache) pinned(key string) bool {
	for _, keys := range c.pins {
		if keys[key] {
			return true
		}
	}
	return false
}

// Status is a record with its use.
type Status struct {
	Record
	InUse bool
}

// List returns all records, oldest first.
func (c *Cache) List() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Status, 0, len(c.records))
	for k, r := range c.records {
		out = append(out, Status{Record: *r, InUse: c.pinned(k)})
	}
	slices.SortFunc(out, func(a, b Status) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Key, b.Key))
	})
	return out
}

// Remove drops a record and its hold, unless a build uses it.
func (c *Cache) Remove(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records[key] == nil || c.pinned(key) {
		return false
	}
	c.drop(key)
	return true
}

func (c *Cache) drop(key string) {
	if c.records[key].Layer != "" {
		c.holds.Release(holder(key))
	}
	delete(c.records, key)
	delete(c.dirty, key)
	if err := os.Remove(c.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // read again at the next start, where it is worth as much
	}
}

// touch lets the background writer save the record's statistics.
func (c *Cache) touch(key string) {
	c.dirty[key] = true
	if c.saving {
		return
	}
	c.saving = true
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for len(c.dirty) > 0 {
			for k := range c.dirty {
				delete(c.dirty, k)
				r := *c.records[k]
				files.WriteJSON(c.path(k), &r, files.Fast)
				break
			}
			c.mu.Unlock() // let others in between two files
			c.mu.Lock()
		}
		c.saving = false
		c.idle.Broadcast()
	}()
}

// Close waits for the background writer.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.saving {
		c.idle.Wait()
	}
}
