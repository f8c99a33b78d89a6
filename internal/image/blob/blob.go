// Package blob stores content by digest: the blobs/ folder of an OCI image
// layout (image-spec, image-layout.md). Engine and registry both use it.
//
// A blob appears under its digest only when all of its bytes are there and
// verified. What is still arriving lies in ingest/ under the digest it is meant
// to get, so that a transfer killed half-way goes on where it stopped.
package blob

import (
	"context"
	"os"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
)

// Store is the blobs of one layout. Its methods are safe for concurrent use, by one process.
type Store struct{}

// Open uses (and makes) dir/blobs and dir/ingest.
func Open(dir string) (*Store, error) { return nil, fault.Unsupported("") }

// Size returns a blob's length in bytes, NotFound if the store does not have it.
func (s *Store) Size(d digest.Digest) (int64, error) { return 0, fault.Unsupported("") }

// Reader opens a blob; NotFound if it is missing. The content is not verified again.
func (s *Store) Reader(d digest.Digest) (*os.File, error) { return nil, fault.Unsupported("") }

// Bytes reads a small blob (a manifest or config, at most 8 MiB) and verifies it.
func (s *Store) Bytes(d digest.Digest) ([]byte, error) { return nil, fault.Unsupported("") }

// Put stores a small blob and returns its digest.
func (s *Store) Put(data []byte) (digest.Digest, error) { return "", fault.Unsupported("") }

// Writer starts or resumes the arrival of a blob. want is "" if the digest is
// not known yet. Only one Writer per digest is open at a time: a second waits, or
// returns ctx's error.
func (s *Store) Writer(ctx context.Context, want digest.Digest) (*Writer, error) {
	return nil, fault.Unsupported("")
}

// Remove deletes a blob; a missing one is no error. Only gc calls it.
func (s *Store) Remove(d digest.Digest) error { return fault.Unsupported("") }

// Walk calls f for each blob.
func (s *Store) Walk(f func(d digest.Digest, size int64) error) error { return fault.Unsupported("") }

// Writer is a blob that is arriving.
type Writer struct{}

// Offset is the number of bytes already there; a new arrival starts at 0.
func (w *Writer) Offset() int64               { return 0 }
func (w *Writer) Write(p []byte) (int, error) { return 0, fault.Unsupported("") }

// Commit verifies digest (and size, if ≥ 0), makes the blob visible and returns its digest. On a mismatch
// the bytes are thrown away.
func (w *Writer) Commit(size int64) (digest.Digest, error) { return "", fault.Unsupported("") }

// Close without Commit keeps the bytes for a later Writer of the same digest, if it is known, else drops them.
func (w *Writer) Close() error { return nil }

// Reset drops the bytes that arrived, to start again from offset 0.
func (w *Writer) Reset() error { return nil }
