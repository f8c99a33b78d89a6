package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"tare/internal/base/files"
)

// SaveTo writes what open gives to a file, which appears only when it is whole, or to stdout if that is no terminal.
// what is what was not done, for errors.
func (e *Env) SaveTo(what, path string, open func() (io.ReadCloser, error)) error {
	if path == "" && e.StdoutTTY() {
		return errors.New("cowardly refusing to save to a terminal: use the -o flag or redirect")
	}
	if path != "" {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("failed to %s: invalid output path: %w", what, err)
		}
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	if path == "" {
		_, err := io.Copy(e.Stdout, r)
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // a pipe or device
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, r)
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), files.TempPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
