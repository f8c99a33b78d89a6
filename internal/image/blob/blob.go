// Package blob stores content by digest: the blobs/ folder of an OCI image
// layout (image-spec, image-layout.md). Engine and registry both use it.
//
// A blob appears under its digest only when all of its bytes are there and
// verified. What is still arriving lies in ingest/ under the digest it is meant
// to get, so that a transfer killed half-way goes on where it stopped.
//
// Commit does not wait for the disk. Killing the process loses nothing of a
// blob that appeared; after a power cut Open verifies the blobs that may not have reached the
// disk, and removes those that did not (package settle, docs/adr on it).
package blob

import (
	"context"
	_ "crypto/sha256" // digest.SHA256
	_ "crypto/sha512" // digest.SHA512
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/image/settle"
)

// maxSmall is the largest blob that Bytes reads: manifests and configs, 8 MiB.
const maxSmall = 8 << 20

// staleAfter is how long bytes of an unfinished transfer are kept for a later one.
const staleAfter = 24 * time.Hour

// Store is the blobs of one layout. Its methods are safe for concurrent use, by one process.
type Store struct {
	dir   string
	marks *settle.Marks

	mu    sync.Mutex // guards all below
	open  map[digest.Digest]chan struct{}
	fresh map[digest.Digest]time.Time
}

// Open uses (and makes) dir/blobs and dir/ingest. It removes what can't be resumed.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, open: map[digest.Digest]chan struct{}{}, fresh: map[digest.Digest]time.Time{}}
	for _, sub := range []string{"blobs/sha256", "blobs/sha512", "ingest"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := s.sweepIngest(); err != nil {
		return nil, err
	}
	marks, suspects, err := settle.Open(filepath.Join(dir, "ingest", "unsettled"))
	if err != nil {
		return nil, err
	}
	s.marks = marks
	for _, name := range suspects {
		if err := s.check(name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Close stops background work; the store must not be used afterwards.
func (s *Store) Close() { s.marks.Close() }

// sweepIngest removes transfers without a known digest, and those nobody resumed for a day.
func (s *Store) sweepIngest() error {
	dir := filepath.Join(s.dir, "ingest")
	if err := files.Sweep(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if time.Since(info.ModTime()) > staleAfter {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// check verifies a blob that was not synced when the machine went down. Its bytes in ingest/ are as suspect.
func (s *Store) check(name string) error {
	d := digest.Digest(strings.Replace(name, "-", ":", 1))
	if d.Validate() == nil {
		if err := s.verify(d); err != nil {
			if err := s.Remove(d); err != nil {
				return err
			}
		}
	}
	return s.marks.Clear(name)
}

// Verify reads a blob to its end and checks its digest: NotFound if it is missing, Internal if it is damaged.
func (s *Store) Verify(d digest.Digest) error { return s.verify(d) }

func (s *Store) verify(d digest.Digest) error {
	f, err := s.Reader(d)
	if err != nil {
		return err
	}
	defer f.Close()
	v := d.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		return err
	}
	if !v.Verified() {
		return damaged(d)
	}
	return nil
}

func damaged(d digest.Digest) error {
	return fault.Internal("blob %s is damaged: its content has another digest; remove and pull the image again", d)
}

// valid guards every path made of a digest.
func valid(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fault.Invalid("invalid digest %q: %w", string(d), err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fault.Invalid("invalid digest %q: algorithm %s is not supported", string(d), a)
	}
	return nil
}

// Path is where a blob of a valid digest lies, whether it is there or not.
func (s *Store) Path(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func ingestName(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func (s *Store) ingestPath(d digest.Digest) string {
	return filepath.Join(s.dir, "ingest", ingestName(d))
}

// missing turns a "no such file" into the store's NotFound.
func missing(d digest.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.NotFound("blob %s not found", d)
	}
	return err
}

// Size returns a blob's length in bytes, NotFound if the store does not have it.
func (s *Store) Size(d digest.Digest) (int64, error) {
	if err := valid(d); err != nil {
		return 0, err
	}
	info, err := os.Stat(s.Path(d))
	if err != nil {
		return 0, missing(d, err)
	}
	return info.Size(), nil
}

// Reader opens a blob; NotFound if it is missing. The content is not verified again.
func (s *Store) Reader(d digest.Digest) (*os.File, error) {
	if err := valid(d); err != nil {
		return nil, err
	}
	f, err := os.Open(s.Path(d))
	if err != nil {
		return nil, missing(d, err)
	}
	return f, nil
}

// Bytes reads a small blob (a manifest or config, at most 8 MiB) and verifies it.
func (s *Store) Bytes(d digest.Digest) ([]byte, error) {
	f, err := s.Reader(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSmall {
		return nil, fault.Invalid("blob %s is too large for a manifest or config (more than %d bytes)", d, maxSmall)
	}
	if d.Algorithm().FromBytes(data) != d {
		return nil, damaged(d)
	}
	return data, nil
}

// Put stores a small blob and returns its digest.
func (s *Store) Put(data []byte) (digest.Digest, error) {
	d := digest.FromBytes(data)
	if _, err := s.Claim(d); err == nil {
		return d, nil
	}
	w, err := s.Writer(context.Background(), "") // nobody would go on with a part of it
	if err != nil {
		return "", err
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		return "", err
	}
	return w.Commit(int64(len(data)))
}

// Remove deletes a blob; a missing one is no error. Only gc calls it.
func (s *Store) Remove(d digest.Digest) error {
	if err := valid(d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fresh, d)
	return s.remove(d)
}

func (s *Store) remove(d digest.Digest) error {
	if err := os.Remove(s.Path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.marks.Clear(ingestName(d))
}

// RemoveStale is Remove for a blob that this process did not store, or find again when it
// was to store it, at that time or later. It tells whether the blob is gone.
func (s *Store) RemoveStale(d digest.Digest, since time.Time) (bool, error) {
	if err := valid(d); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.fresh[d]; ok && !at.Before(since) {
		return false, nil
	}
	delete(s.fresh, d)
	return true, s.remove(d)
}

// Claim is Size for one who would store the blob if it weren't there: from then on RemoveStale spares it.
func (s *Store) Claim(d digest.Digest) (int64, error) {
	s.refresh(d)
	return s.Size(d)
}

// Disk is what all blobs and arrivals take on the disk, in bytes as du counts them.
func (s *Store) Disk() (int64, error) { return files.Usage(s.dir) }

// DiskOf is the same for one blob; 0 if it is not there.
func (s *Store) DiskOf(d digest.Digest) int64 {
	n, err := files.Usage(s.Path(d))
	if err != nil {
		return 0
	}
	return n
}

// DropParts removes the bytes of unfinished arrivals that nobody goes on with now.
func (s *Store) DropParts() (bytes int64, err error) {
	dir := filepath.Join(s.dir, "ingest")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		alg, hex, ok := strings.Cut(strings.TrimSuffix(e.Name(), aheadSuffix), "-")
		d := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex)
		if _, busy := s.open[d]; !ok || busy || !e.Type().IsRegular() || valid(d) != nil {
			continue
		}
		n, _ := files.Usage(filepath.Join(dir, e.Name()))
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return bytes, err
		}
		bytes += n
	}
	return bytes, nil
}

// Walk calls f for each blob.
func (s *Store) Walk(f func(d digest.Digest, size int64) error) error {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		entries, err := os.ReadDir(filepath.Join(s.dir, "blobs", alg.String()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(alg, e.Name())
			info, err := e.Info()
			if d.Validate() != nil || err != nil || !info.Mode().IsRegular() {
				continue
			}
			if err := f(d, info.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

// refresh notes that a blob is about to be stored. It comes before the look whether the blob is there: RemoveStale
// either sees it, or has removed the blob before the look.
func (s *Store) refresh(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh[d] = time.Now()
}
