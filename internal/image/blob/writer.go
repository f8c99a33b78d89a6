package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
	"tare/internal/base/files"
)

// Writer is a blob that is arriving. It is for one goroutine.
type Writer struct {
	store  *Store
	want   digest.Digest // "" if unknown
	locked bool          // the only one for want, whose bytes a later Writer may go on with
	f      *os.File      // nil after Commit or Close
	offset int64
	spread *Spread // nil while bytes come in order
	hash   digest.Digester
	over   bool  // Commit replaces a blob that is there
	broken error // a failed write: what the file holds is not what was hashed
}

// Writer starts or resumes the arrival of a blob. want is "" if the digest is
// not known yet. Only one Writer per digest is open at a time: a second waits, or
// returns ctx's error. Whoever waited should ask Size again: the first may have stored the blob.
func (s *Store) Writer(ctx context.Context, want digest.Digest) (*Writer, error) {
	if want == "" {
		return s.once("", digest.SHA256)
	}
	if err := valid(want); err != nil {
		return nil, err
	}
	if err := s.lock(ctx, want); err != nil {
		return nil, err
	}
	w := &Writer{store: s, want: want, locked: true}
	if err := w.resume(); err != nil {
		if w.f != nil {
			w.f.Close()
		}
		s.unlock(want)
		return nil, fmt.Errorf("cannot resume blob %s: %w", want, err)
	}
	return w, nil
}

// Once is Writer for bytes that come only once, such as a file's in an archive: nothing of them is kept for a later
// Writer, and what a crash leaves goes at the next start.
func (s *Store) Once(want digest.Digest) (*Writer, error) {
	if err := valid(want); err != nil {
		return nil, err
	}
	return s.once(want, want.Algorithm())
}

func (s *Store) once(want digest.Digest, alg digest.Algorithm) (*Writer, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "ingest"), files.TempPrefix)
	if err != nil {
		return nil, err
	}
	return &Writer{store: s, want: want, f: f, hash: alg.Digester()}, nil
}

// resume opens the bytes kept of an earlier transfer and hashes them again.
func (w *Writer) resume() error {
	f, err := os.OpenFile(w.store.ingestPath(w.want), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	w.f, w.hash = f, w.want.Algorithm().Digester()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	known, err := w.prefix(info.Size())
	if err != nil {
		return err
	}
	w.offset, err = io.Copy(w.hash.Hash(), io.LimitReader(f, known))
	return err
}

func (s *Store) lock(ctx context.Context, d digest.Digest) error {
	for {
		s.mu.Lock()
		busy, ok := s.open[d]
		if !ok {
			s.open[d] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Store) unlock(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.open[d])
	delete(s.open, d)
}

// Offset is the number of bytes already there; a new arrival starts at 0.
func (w *Writer) Offset() int64 { return w.offset }

// Digest is the digest of the bytes so far.
func (w *Writer) Digest() digest.Digest { return w.hash.Digest() }

func (w *Writer) Write(p []byte) (int, error) {
	switch {
	case w.broken != nil:
		return 0, w.broken
	case w.f == nil:
		return 0, fs.ErrClosed
	}
	n, err := w.f.WriteAt(p, w.offset)
	w.hash.Hash().Write(p[:n])
	w.offset += int64(n)
	if err == nil && w.spread != nil {
		err = w.spread.arrived(w.offset-int64(n), w.offset)
	}
	if err != nil {
		w.broken = fmt.Errorf("cannot write blob: %w", err)
		return n, w.broken
	}
	return n, nil
}

// Commit verifies digest (and size, if ≥ 0), makes the blob visible and returns its digest. On a mismatch
// the bytes are thrown away and the error is Invalid. The Writer is closed either way.
func (w *Writer) Commit(size int64) (digest.Digest, error) {
	if w.broken != nil {
		return "", w.broken
	}
	if w.f == nil {
		return "", fs.ErrClosed
	}
	got := w.hash.Digest()
	switch {
	case size >= 0 && size != w.offset:
		w.drop()
		return "", fault.Invalid("blob %s has %d bytes, expected %d", name(w.want, got), w.offset, size)
	case w.want != "" && got != w.want:
		w.drop()
		return "", fault.Invalid("blob %s failed verification: content has digest %s", w.want, got)
	}
	if err := w.publish(got); err != nil {
		w.Close()
		return "", fmt.Errorf("cannot store blob %s: %w", got, err)
	}
	return got, nil
}

// CommitOver is Commit for a blob whose stored form is damaged: it is replaced.
func (w *Writer) CommitOver(size int64) (digest.Digest, error) {
	w.over = true
	return w.Commit(size)
}

func name(want, got digest.Digest) digest.Digest {
	if want != "" {
		return want
	}
	return got
}

func (w *Writer) publish(d digest.Digest) error {
	path := w.store.Path(d)
	w.store.refresh(d)
	if _, err := os.Stat(path); err == nil && !w.over {
		w.drop()
		return nil
	}
	if err := w.f.Chmod(0o644); err != nil {
		return err
	}
	if info, err := w.f.Stat(); err != nil || info.Size() != w.offset {
		// Bytes after the content, of an earlier transfer that thought it longer.
		if err := w.f.Truncate(w.offset); err != nil {
			return err
		}
	}
	if err := w.store.marks.Mark(ingestName(d)); err != nil {
		return err
	}
	if err := os.Rename(w.f.Name(), path); err != nil {
		return err
	}
	w.closeSpread(true)
	return w.finish()
}

// Close without Commit keeps the bytes for a later Writer of the same digest, if it is known, else drops them.
// After Commit, or a second time, it does nothing.
func (w *Writer) Close() error {
	if w.f == nil {
		return nil
	}
	if !w.locked || w.offset == 0 && w.spread == nil || w.broken != nil {
		w.drop()
		return nil
	}
	w.closeSpread(false)
	return w.finish()
}

// drop forgets the bytes and closes.
func (w *Writer) drop() {
	w.closeSpread(true)
	if err := os.Remove(w.f.Name()); err == nil || errors.Is(err, fs.ErrNotExist) {
		w.offset = 0
	}
	w.finish()
}

func (w *Writer) finish() error {
	err := w.f.Close()
	w.f = nil
	if w.locked {
		w.store.unlock(w.want)
	}
	return err
}

// Reset drops the bytes that arrived, to start again from offset 0.
func (w *Writer) Reset() error {
	if w.f == nil {
		return fs.ErrClosed
	}
	w.closeSpread(true)
	if err := w.f.Truncate(0); err != nil {
		return err
	}
	w.hash.Hash().Reset()
	w.offset, w.broken = 0, nil
	return nil
}
