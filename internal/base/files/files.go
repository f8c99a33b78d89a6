// Package files writes records so that a reader, or a restart after a crash,
// sees the old content or the new one and never a part: a temporary file
// beside the target, optionally synced, renamed over it.
package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TempPrefix starts the name of every temporary file; a start removes what a crash left (see Sweep).
const TempPrefix = ".tmp-"

// Durability says whether losing the newest content at a power cut would matter.
type Durability bool

const (
	// Fast waits for no fsync: the content survives kill -9, not always a power cut.
	Fast Durability = false
	// Synced returns after file and directory reached the disk.
	Synced Durability = true
)

// Write replaces path with data atomically.
func Write(path string, data []byte, mode fs.FileMode, d Durability) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, TempPrefix+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if d == Synced {
		if err = f.Sync(); err != nil {
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	if d == Synced {
		return SyncDir(dir)
	}
	return nil
}

// WriteJSON replaces path with v in indented JSON.
func WriteJSON(path string, v any, d Durability) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", path, err)
	}
	return Write(path, append(data, '\n'), 0o600, d)
}

// ReadJSON decodes path into v; the error names the file.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("cannot read record %s: %w", path, err)
	}
	return nil
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Sweep removes the temporary files that a crash left in dir. A missing dir is no error.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), TempPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
