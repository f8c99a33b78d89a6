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

// layout is where the files of the registry lie, as the package comment has it.
type layout struct{ root string }

// shelf is the files of the registry: blobs, and the records that make repositories.
type shelf struct {
	layout
	blobs  *blob.Store
	index  *index
	memory *memory
}

func newShelf(root string) *shelf {
	return &shelf{layout: layout{root}, index: newIndex(), memory: &memory{}}
}

func (l layout) repository(name string) string {
	return filepath.Join(l.root, "repositories", filepath.FromSlash(name))
}

func (l layout) blobLink(name string, d digest.Digest) string {
	return filepath.Join(l.repository(name), "_blobs", d.Algorithm().String(), d.Encoded())
}

func (l layout) manifestLink(name string, d digest.Digest) string {
	return filepath.Join(l.repository(name), "_manifests", d.Algorithm().String(), d.Encoded())
}

func (l layout) upstreamLink(name string, d digest.Digest) string {
	return filepath.Join(l.repository(name), "_upstream", d.Algorithm().String(), d.Encoded())
}

func (l layout) tagLink(name, tag string) string {
	return filepath.Join(l.repository(name), "_tags", tag)
}

func (l layout) referrersDir(name string, subject digest.Digest) string {
	return filepath.Join(l.repository(name), "_referrers", flat(subject))
}

// flat is a digest as one file name.
func flat(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// unflat is the reverse of flat.
func unflat(name string) (digest.Digest, error) {
	return parseDigest(strings.Replace(name, "-", ":", 1))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// known tells whether anything was ever pushed to a repository.
func (l layout) known(name string) bool {
	return exists(filepath.Join(l.repository(name), "_manifests")) || exists(filepath.Join(l.repository(name), "_blobs"))
}

// load builds the index of what lies on the disk, and removes what a crash left.
func (s *shelf) load() error {
	return s.eachRepository(func(name string) error {
		dir := s.repository(name)
		for _, sub := range []string{"_blobs", "_manifests", "_upstream", "_referrers"} {
			algs, err := os.ReadDir(filepath.Join(dir, sub))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, alg := range algs {
				within := filepath.Join(dir, sub, alg.Name())
				if err := files.Sweep(within); err != nil {
					return err
				}
				if sub != "_blobs" && sub != "_manifests" {
					continue
				}
				entries, err := os.ReadDir(within)
				if err != nil {
					return err
				}
				for _, e := range entries {
					if d, err := parseDigest(alg.Name() + ":" + e.Name()); err == nil {
						s.index.add(d, name, sub == "_manifests")
					}
				}
			}
		}
		return files.Sweep(filepath.Join(dir, "_tags"))
	})
}

// readRecord reads a small file that only this registry changes.
func (s *shelf) readRecord(path string) ([]byte, error) {
	return s.memory.read(path, os.ReadFile)
}

// writeRecord writes a record durably, folders included.
func (s *shelf) writeRecord(path string, data []byte) error {
	if err := makeDirs(filepath.Dir(path)); err != nil {
		return err
	}
	defer s.memory.forget(path)
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
func (s *shelf) unlink(path string) error {
	err := os.Remove(path)
	s.memory.forget(path)
	if err != nil {
		return err
	}
	return files.SyncDir(filepath.Dir(path))
}

// linkBlob makes a stored blob part of a repository; syncLinks brings that to the disk. links is held.
func (s *shelf) linkBlob(name string, d digest.Digest) error {
	path := s.blobLink(name, d)
	if exists(path) {
		return nil
	}
	if err := makeDirs(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	f.Close()
	s.index.add(d, name, false)
	return nil
}

// syncLinks returns when the links of a repository are on the disk.
func (s *shelf) syncLinks(name string, blobs []digest.Digest) error {
	synced := map[string]bool{}
	for _, d := range blobs {
		dir := filepath.Dir(s.blobLink(name, d))
		if synced[dir] || !exists(dir) {
			continue
		}
		synced[dir] = true
		if err := files.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// hasBlob tells whether a blob is readable in a repository.
func (s *shelf) hasBlob(name string, d digest.Digest) bool {
	return exists(s.blobLink(name, d)) && exists(s.blobs.Path(d))
}

// dropUnlinked removes a blob that no repository uses any more, and tells its size. links is held exclusively.
func (s *shelf) dropUnlinked(d digest.Digest) (freed int64, err error) {
	if s.index.used(d) {
		return 0, nil
	}
	freed = s.blobs.DiskOf(d)
	s.memory.forget(s.blobs.Path(d))
	return freed, s.blobs.Remove(d)
}

// eachRepository calls f for every repository, until it returns fs.SkipAll.
func (l layout) eachRepository(f func(name string) error) error {
	top := filepath.Join(l.root, "repositories")
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
		if name = filepath.ToSlash(name); l.known(name) {
			return f(name)
		}
		return nil
	})
}
