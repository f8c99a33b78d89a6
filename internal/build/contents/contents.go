// Package contents keeps the contents of build contexts' files by their SHA-256, so that a file travels once.
//
//	pack    a file with many contents behind each other, and beside it an index of them
//	writer  appends to a pack of its own; what it committed is found
//	user    a build; packs that were used since the oldest running build began are not dropped
//
// What a crash left half written is not in an index, or is found damaged when it is read: a content is hashed each time it is.
package contents

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Digest is a SHA-256.
type Digest = [sha256.Size]byte

// full is the size from which a pack gets nothing more, in bytes.
const full = 256 << 20

// record is the length of an index's entry: digest, offset, size.
const record = sha256.Size + 16

// Store is a folder of packs. Safe for concurrent use.
type Store struct {
	dir string

	mu      sync.Mutex // guards all below
	limit   int64      // bytes of all packs
	index   map[Digest]place
	packs   []*pack
	next    int
	users   map[int]time.Time // when they began
	newUser int
}

type place struct {
	pack         *pack
	offset, size int64
}

type pack struct {
	name    string // without ending
	file    *os.File
	size    int64
	used    time.Time
	writing bool
}

// Open reads the indices in dir.
func Open(dir string, limit int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, limit: limit, index: map[Digest]place{}, users: map[int]time.Time{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".pack")
		if !ok {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(name, "%d", &n); err != nil {
			continue
		}
		s.next = max(s.next, n+1)
		if err := s.read(name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// read loads one pack. What lies behind the last indexed content is cut off.
func (s *Store) read(name string) error {
	index, err := os.ReadFile(filepath.Join(s.dir, name+".index"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name+".pack"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	p := &pack{name: name, file: f, used: st.ModTime()}
	all := len(index)
	for ; len(index) >= record; index = index[record:] {
		var d Digest
		copy(d[:], index)
		at := place{pack: p, offset: int64(binary.BigEndian.Uint64(index[32:])), size: int64(binary.BigEndian.Uint64(index[40:]))}
		if at.offset != p.size || at.size < 0 || at.offset+at.size > st.Size() || at.offset+at.size < at.offset {
			break
		}
		p.size = at.offset + at.size
		s.index[d] = at
	}
	if p.size == 0 {
		f.Close()
		s.unlink(p)
		return nil
	}
	s.packs = append(s.packs, p)
	if len(index) > 0 { // torn
		return os.Truncate(filepath.Join(s.dir, name+".index"), int64(all-len(index)))
	}
	return nil
}

func (s *Store) unlink(p *pack) {
	os.Remove(filepath.Join(s.dir, p.name+".pack"))
	os.Remove(filepath.Join(s.dir, p.name+".index"))
}

// Close lets go of the files.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packs {
		p.file.Close()
	}
}

// Use says that a build needs what it finds here until it calls end.
func (s *Store) Use() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newUser++
	n := s.newUser
	s.users[n] = time.Now()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.users, n)
		s.shrink(s.limit)
	})
}

// Missing returns those that are not here, each once, in their order, and marks the others as used.
func (s *Store) Missing(sums []Digest) (out []Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	seen := map[Digest]bool{}
	for _, d := range sums {
		if at, ok := s.index[d]; ok {
			at.pack.used = now
		} else if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	return out
}

// Open implements source.Contents.
func (s *Store) Open(sum Digest, size int64) (io.ReadCloser, error) {
	if size == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.index[sum]
	if !ok || at.size != size {
		return nil, fault.NotFound("the engine has no content %x of %d bytes", sum, size)
	}
	at.pack.used = time.Now()
	return &reader{s: s, want: sum, hash: sha256.New(), r: io.NewSectionReader(at.pack.file, at.offset, at.size), left: size}, nil
}

// reader hashes what it reads.
type reader struct {
	s    *Store
	want Digest
	hash hash.Hash
	r    io.Reader
	left int64
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.hash.Write(p[:n])
	if r.left -= int64(n); r.left == 0 && n > 0 || err == io.EOF && r.left > 0 {
		if Digest(r.hash.Sum(nil)) != r.want {
			r.s.forget(r.want)
			return 0, fault.Internal("a stored content of a build context is damaged (%x): build again", r.want)
		}
	}
	return n, err
}

func (r *reader) Close() error { return nil }

func (s *Store) forget(d Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.index, d)
}

// Writer appends contents to a pack. Not for concurrent use.
type Writer struct {
	s     *Store
	p     *pack
	w     *bufio.Writer
	size  int64 // of the pack, with what is not committed
	index []byte
	buf   []byte
}

// Begin takes a pack that has room and no writer, or makes one. The writer has to be closed.
func (s *Store) Begin() (*Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.packs, func(p *pack) bool { return !p.writing && p.size < full })
	if i < 0 {
		name := fmt.Sprintf("%08d", s.next)
		f, err := os.OpenFile(filepath.Join(s.dir, name+".pack"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		s.next++
		i = len(s.packs)
		s.packs = append(s.packs, &pack{name: name, file: f, used: time.Now()})
	}
	p := s.packs[i]
	p.writing = true
	w := &Writer{s: s, p: p, size: p.size, buf: make([]byte, 256<<10)}
	w.w = bufio.NewWriterSize(&at{f: p.file, offset: p.size}, 1<<20)
	return w, nil
}

// at writes from an offset on.
type at struct {
	f      *os.File
	offset int64
}

func (a *at) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.offset)
	a.offset += int64(n)
	return n, err
}

// Add reads a content of exactly size bytes. One with another digest is Invalid. After an error the writer can only be closed.
func (w *Writer) Add(want Digest, size int64, r io.Reader) error {
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(h, w.w)}, struct{ io.Reader }{io.LimitReader(r, size)}, w.buf)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if Digest(h.Sum(nil)) != want {
		return fault.Invalid("the content of a file is not what was announced (it changed while it was sent)")
	}
	w.index = append(w.index, want[:]...)
	w.index = binary.BigEndian.AppendUint64(w.index, uint64(w.size))
	w.index = binary.BigEndian.AppendUint64(w.index, uint64(size))
	w.size += size
	return nil
}

// Commit makes what was added known.
func (w *Writer) Commit() error {
	if err := w.w.Flush(); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(w.s.dir, w.p.name+".index"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(w.index)
	if err = cmp.Or(err, f.Close()); err != nil {
		return err
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for b := w.index; len(b) > 0; b = b[record:] {
		w.s.index[Digest(b[:32])] = place{pack: w.p, offset: int64(binary.BigEndian.Uint64(b[32:])), size: int64(binary.BigEndian.Uint64(b[40:]))}
	}
	w.index = w.index[:0]
	w.p.size, w.p.used = w.size, time.Now()
	return nil
}

// Close lets go of the pack; what was not committed is gone.
func (w *Writer) Close() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.p.file.Truncate(w.p.size)
	w.p.writing = false
	if w.p.size == 0 {
		w.s.drop(w.p)
	}
}

// drop removes a pack that nobody reads.
func (s *Store) drop(p *pack) {
	s.packs = slices.DeleteFunc(s.packs, func(q *pack) bool { return q == p })
	for d, at := range s.index {
		if at.pack == p {
			delete(s.index, d)
		}
	}
	s.unlink(p)
	p.file.Close()
}

// shrink drops the packs that were used longest ago, until the rest is within limit.
func (s *Store) shrink(limit int64) (won int64) {
	var total int64
	oldest := time.Now()
	for _, t := range s.users {
		if t.Before(oldest) {
			oldest = t
		}
	}
	for _, p := range s.packs {
		total += p.size
	}
	slices.SortFunc(s.packs, func(a, b *pack) int { return a.used.Compare(b.used) })
	for _, p := range slices.Clone(s.packs) {
		if total <= limit && limit > 0 || p.writing || p.used.After(oldest) {
			continue
		}
		total -= p.size
		won += p.size
		s.drop(p)
	}
	return won
}

// Shrink drops packs that no build uses, those used longest ago first, until the rest takes no more than limit bytes. It returns
// the bytes won.
func (s *Store) Shrink(limit int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shrink(limit)
}

// Usage is what the packs take, in bytes, and when they were last used.
func (s *Store) Usage() (bytes int64, used time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packs {
		var st unix.Stat_t
		if unix.Fstat(int(p.file.Fd()), &st) == nil {
			bytes += st.Blocks * 512
		}
		if p.used.After(used) {
			used = p.used
		}
	}
	return bytes, used
}
