// Package settle lets blobs and layers appear without waiting for the disk,
// and still never be wrong after a power cut.
//
//	mark      a small file, named after an object, made before the object is renamed into place
//	settled   the file system was synced after the object was complete; its mark is gone
//	suspect   an object whose mark was made under another boot: its bytes may never have reached the disk
//
// Killing the process loses nothing that was written, so a mark made under this
// boot means nothing bad. Marks and renames go through the file system's
// journal in order: where the object survived a power cut, its mark did too. Some seconds after the
// last mark the whole file system is synced in the background, once for everything that arrived.
package settle

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is how long after the last mark the background sync starts: long enough
// to stay out of the way of a pull and the containers that start right after it.
const quiet = 10 * time.Second

// bootID changes with every boot of the kernel (random(4)).
var bootID = sync.OnceValue(func() []byte {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return []byte("unknown")
	}
	return bytes.TrimSpace(id)
})

// Marks are the marks of one folder. Safe for concurrent use, by one process.
type Marks struct {
	dir string

	mu      sync.Mutex // guards all below
	pending map[string]struct{}
	timer   *time.Timer
}

// Open uses (and makes) dir and returns the names that are suspect; the caller checks each and calls Clear.
func Open(dir string) (*Marks, []string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	m := &Marks{dir: dir, pending: map[string]struct{}{}}
	var suspects []string
	for _, e := range entries {
		id, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(id, bootID()) {
			suspects = append(suspects, e.Name())
			continue
		}
		m.pending[e.Name()] = struct{}{}
	}
	if len(m.pending) > 0 {
		m.schedule()
	}
	return m, suspects, nil
}

// Mark notes that the object called name is about to appear.
func (m *Marks) Mark(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.WriteFile(filepath.Join(m.dir, name), bootID(), 0o600); err != nil {
		return err
	}
	m.pending[name] = struct{}{}
	m.schedule()
	return nil
}

// schedule is called with mu held, or before m is shared.
func (m *Marks) schedule() {
	if m.timer != nil {
		m.timer.Reset(quiet)
		return
	}
	m.timer = time.AfterFunc(quiet, func() { m.Flush() })
}

// Clear takes a mark away: the object is gone, or was found whole.
func (m *Marks) Clear(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pending, name)
	if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Flush syncs the file system and takes the marks away that were made before it began.
func (m *Marks) Flush() error {
	m.mu.Lock()
	names := make([]string, 0, len(m.pending))
	for name := range m.pending {
		names = append(names, name)
	}
	clear(m.pending)
	m.mu.Unlock()
	if len(names) == 0 {
		return nil
	}
	d, err := os.Open(m.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: m.dir, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if _, again := m.pending[name]; !again {
			os.Remove(filepath.Join(m.dir, name))
		}
	}
	return nil
}

// Close stops the background sync. Marks that are left are taken up by the next Open.
func (m *Marks) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.timer != nil {
		m.timer.Stop()
	}
}
