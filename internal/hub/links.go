package hub

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/files"
	"tare/internal/image/blob"
)

// shelf is the files of the registry: blobs, and the records that make repositories.
type shelf struct {
	root  string
	blobs *blob.Store
}

func (s *shelf) repository(name string) string {
	return filepath.Join(s.root, "repositories", filepath.FromSlash(name))
}

func (s *shelf) blobLink(name string, d digest.Digest) string {
	return filepath.Join(s.repository(name), "_blobs", d.Algorithm().String(), d.Encoded())
}

func (s *shelf) manifestLink(name string, d digest.Digest) string {
	return filepath.Join(s.repository(name), "_manifests", d.Algorithm().String(), d.Encoded())
}

func (s *shelf) tagLink(name, tag string) string {
	return filepath.Join(s.repository(name), "_tags", tag)
}

func (s *shelf) referrersDir(name string, subject digest.Digest) string {
	return filepath.Join(s.repository(name), "_referrers", flat(subject))
}

// flat is a digest as one file name.
func flat(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// known tells whether anything was ever pushed to a repository.
func (s *shelf) known(name string) bool {
	return exists(filepath.Join(s.repository(name), "_manifests")) || exists(filepath.Join(s.repository(name), "_blobs"))
}

// writeLink writes a record durably, folders included.
func writeLink(path string, data []byte) error {
	if err := makeDirs(filepath.Dir(path)); err != nil {
		return err
	}
	return files.Write(path, data, 0o644, files.Synced)
}

// makeDirs is MkdirAll that waits for the disk where it made something.
func makeDirs(dir string) error {
	if exists(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return files.SyncDir(parent)
}

// unlink removes a record durably; a missing one is fs.ErrNotExist.
func unlink(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return files.SyncDir(filepath.Dir(path))
}

// linkBlob makes a stored blob part of a repository.
func (s *shelf) linkBlob(name string, d digest.Digest) error {
	path := s.blobLink(name, d)
	if exists(path) {
		return nil
	}
	return writeLink(path, nil)
}

// hasBlob tells whether a blob is readable in a repository.
func (s *shelf) hasBlob(name string, d digest.Digest) bool {
	return exists(s.blobLink(name, d)) && exists(s.blobs.Path(d))
}

// dropUnlinked removes a blob that no repository uses any more. links is held exclusively.
func (s *shelf) dropUnlinked(d digest.Digest) error {
	used := false
	err := s.eachRepository(func(name string) error {
		if exists(s.blobLink(name, d)) || exists(s.manifestLink(name, d)) {
			used = true
			return fs.SkipAll
		}
		return nil
	})
	if err != nil || used {
		return err
	}
	return s.blobs.Remove(d)
}

// eachRepository calls f for every repository in lexical order, until it returns fs.SkipAll.
func (s *shelf) eachRepository(f func(name string) error) error {
	top := filepath.Join(s.root, "repositories")
	return filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !e.IsDir() {
			return nil
		}
		switch {
		case strings.HasPrefix(e.Name(), "_"):
			return fs.SkipDir
		case path == top:
			return nil
		}
		name, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		if name = filepath.ToSlash(name); s.known(name) {
			return f(name)
		}
		return nil
	})
}
