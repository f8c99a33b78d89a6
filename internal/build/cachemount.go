package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tare/internal/build/cache"
	"tare/internal/build/copier"
	"tare/internal/build/graph"
	"tare/internal/build/rootfs"
	"tare/internal/build/solve"
)

// mounts are the cache folders of RUN steps, which outlive builds.
type mounts struct {
	dir string // DATA_ROOT/build/mounts

	mu    sync.Mutex               // guards locks
	locks map[string]chan struct{} // of folders that are used by one step at a time, by id
}

// path is where the folder of a cache record is.
func (m *mounts) path(key string) string { return filepath.Join(m.dir, key) }

// lock finds the lock of a cache folder.
func (m *mounts) lock(id string) chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	lock := m.locks[id]
	if lock == nil {
		lock = make(chan struct{}, 1)
		m.locks[id] = lock
	}
	return lock
}

// cacheMount finds or makes a cache folder, which outlives builds. Sharing "locked" waits until no other step uses it, "private" takes
// the first of several folders that nobody uses. end has to be called when the step is over.
func (w *worker) cacheMount(ctx context.Context, m graph.Mount, work solve.Work) (dir string, end func(), err error) {
	s, id, unlock := w.s, m.CacheID, func() {}
	for n := 0; m.Sharing == "private"; n++ {
		if id = fmt.Sprintf("%s #%d", m.CacheID, n); n == 0 {
			id = m.CacheID
		}
		lock := s.mounts.lock(id)
		select {
		case lock <- struct{}{}:
			unlock = func() { <-lock }
		default:
			continue
		}
		break
	}
	if m.Sharing == "locked" {
		lock := s.mounts.lock(id)
		select {
		case lock <- struct{}{}:
			unlock = func() { <-lock }
		case <-ctx.Done():
			return "", nil, ctx.Err()
		}
	}
	sum := sha256.Sum256([]byte(id))
	key := hex.EncodeToString(sum[:])
	user := "mount " + key + " " + time.Now().String()
	if _, ok := s.cache.Get(key, user); !ok {
		err = s.cache.Put(cache.Record{Key: key, Kind: "mount", About: "cached mount " + m.CacheID}, user)
	}
	end = func() {
		s.cache.Unpin(user)
		unlock()
	}
	dir = s.mounts.path(key)
	if err == nil {
		err = w.fillCache(ctx, m, work, dir)
	}
	if err != nil {
		end()
		return "", nil, err
	}
	return dir, end, nil
}

// fillCache makes a cache folder with what from= says it begins with, under a name that is set last.
func (w *worker) fillCache(ctx context.Context, m graph.Mount, work solve.Work, dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	fresh, err := os.MkdirTemp(w.s.tmp(), "cache-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if m.Path != "" {
		tree, done, err := w.tree(ctx, m.From, work)
		if err != nil {
			return err
		}
		defer done()
		sel, err := copier.Select(tree, "RUN --mount=type=cache", []string{m.Path}, nil, false)
		if err != nil {
			return err
		}
		if err := w.fetchFiles(ctx, m.From.Name, sel); err != nil {
			return err
		}
		root, err := rootfs.Open(nil, fresh, "")
		if err != nil {
			return err
		}
		defer root.Close()
		if err := copier.Copy(ctx, root, sel, copier.Options{Dest: "/", Word: "RUN"}); err != nil {
			return err
		}
	}
	if m.Path == "" || m.Path == "/" {
		if err := os.Chown(fresh, int(m.UID), int(m.GID)); err != nil {
			return err
		}
		if err := os.Chmod(fresh, os.FileMode(m.Mode).Perm()); err != nil {
			return err
		}
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, there := os.Lstat(dir); there == nil {
			return nil // another step was first
		}
		return err
	}
	return nil
}
