package hub

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/files"
	"tare/internal/base/ids"
)

// upload is a blob that is arriving.
type upload struct {
	id   string
	name string        // repository
	path string        // of the bytes
	busy chan struct{} // holds a token while a request works on it; guards all below
	hash hash.Hash     // SHA-256 of what is there
	size int64
	gone bool // finished or cancelled
}

// sessions are the uploads of a registry.
type sessions struct {
	dir string

	mu      sync.Mutex // guards uploads
	uploads map[string]*upload
}

// lock waits for the request that works on the upload, such as one whose client is gone.
func (u *upload) lock(ctx context.Context) error {
	select {
	case u.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *upload) unlock() { <-u.busy }

func newUpload(dir, id, name string) *upload {
	return &upload{id: id, name: name, path: filepath.Join(dir, id), busy: make(chan struct{}, 1), hash: digest.SHA256.Hash()}
}

// start makes an empty upload, known to the disk.
func (s *sessions) start(name string) (*upload, error) {
	x := ids.New()
	id := strings.Join([]string{x[:8], x[8:12], "4" + x[13:16], "a" + x[17:20], x[20:32]}, "-") // a UUID (RFC 9562, version 4)
	u := newUpload(s.dir, id, name)
	if err := os.WriteFile(u.path+".repository", []byte(name+"\n"), 0o644); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		os.Remove(u.path + ".repository")
		return nil, err
	}
	f.Close()
	s.mu.Lock()
	s.uploads[id] = u
	s.mu.Unlock()
	return u, nil
}

func uploadUnknown(id string) *refusal {
	return refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload %s is unknown to this repository", id)
}

var uploadID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// take finds an upload of a repository, in memory or from before a restart, and locks it.
func (s *sessions) take(ctx context.Context, name, id string) (*upload, error) {
	if !uploadID.MatchString(id) {
		return nil, uploadUnknown(id)
	}
	s.mu.Lock()
	u := s.uploads[id]
	s.mu.Unlock()
	if u == nil {
		var err error
		if u, err = s.reopen(id); err != nil {
			return nil, err
		}
	}
	if u.name != name {
		return nil, uploadUnknown(id)
	}
	if err := u.lock(ctx); err != nil {
		return nil, err
	}
	if u.gone {
		u.unlock()
		return nil, uploadUnknown(id)
	}
	return u, nil
}

// reopen reads an upload of an earlier run and hashes its bytes again.
func (s *sessions) reopen(id string) (*upload, error) {
	name, err := os.ReadFile(filepath.Join(s.dir, id) + ".repository")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, uploadUnknown(id)
	} else if err != nil {
		return nil, err
	}
	u := newUpload(s.dir, id, strings.TrimSpace(string(name)))
	f, err := os.Open(u.path)
	if err != nil {
		return nil, uploadUnknown(id)
	}
	defer f.Close()
	if u.size, err = io.Copy(u.hash, f); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.uploads[id]; other != nil {
		return other, nil
	}
	s.uploads[id] = u
	return u, nil
}

// forget ends an upload; its bytes go, unless they became a blob. u is locked.
func (s *sessions) forget(u *upload) {
	u.gone = true
	os.Remove(u.path)
	os.Remove(u.path + ".repository")
	s.mu.Lock()
	delete(s.uploads, u.id)
	s.mu.Unlock()
}

// sweep removes what nobody went on with for that long, and what a crash left.
func (s *sessions) sweep(stale time.Duration) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, isName := strings.CutSuffix(e.Name(), ".repository")
		path := filepath.Join(s.dir, id)
		info, err := e.Info()
		if err != nil || isName && exists(path) {
			continue // it goes with the bytes
		}
		if age := time.Since(info.ModTime()); isName && age > min(stale, time.Minute) || !isName && age > stale || strings.HasPrefix(id, files.TempPrefix) {
			s.mu.Lock()
			u := s.uploads[id]
			s.mu.Unlock()
			if u == nil {
				u = newUpload(s.dir, id, "")
			}
			select {
			case u.busy <- struct{}{}:
				s.forget(u)
				u.unlock()
			default: // somebody works on it
			}
		}
	}
	return nil
}

// chunk is what is read, written and hashed in one piece, in bytes.
const chunk = 128 << 10

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// flushEvery is after how many bytes the disk is asked to begin writing, so that the wait at the end is short.
const flushEvery = 8 << 20

// receive appends a request's body, up to most bytes in all (0 is no limit). What came before a cut stays. If the
// body can't be stored, the upload is as it was before. u is locked.
func (u *upload) receive(body io.Reader, most int64, progress func(size int64)) error {
	mark, err := u.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(u.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(u.size, io.SeekStart); err != nil {
		return err
	}
	start := u.size
	h := hasher{to: u.hash}
	rollback := func(err error) error {
		h.wait()
		u.size = start
		f.Truncate(start)
		if e := u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(mark); e != nil {
			return e
		}
		return err
	}
	flushed := u.size
	for {
		buf := chunks.Get().(*[]byte)
		n, readErr := fill(body, *buf)
		if most > 0 && u.size+int64(n) > most {
			chunks.Put(buf)
			return rollback(refuse(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a blob may have %d bytes", most))
		}
		if n > 0 {
			if _, err := f.Write((*buf)[:n]); err != nil {
				chunks.Put(buf)
				return rollback(err)
			}
			u.size += int64(n)
			if progress != nil {
				progress(u.size)
			}
			if u.size-flushed >= flushEvery {
				unix.SyncFileRange(int(f.Fd()), flushed, u.size-flushed, unix.SYNC_FILE_RANGE_WRITE)
				flushed = u.size
			}
		}
		h.add(buf, n, readErr == nil)
		if readErr == nil {
			continue
		}
		h.wait()
		if readErr == io.EOF {
			return nil
		}
		return fmt.Errorf("%w: %w", errBrokeOff, readErr)
	}
}

var errBrokeOff = refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the request broke off")

// fill reads until buf is full; the error is how r ended, if it did.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// hasher hashes beside the goroutine that reads and writes, once there is more than one chunk.
type hasher struct {
	to   hash.Hash
	work chan piece
	done chan struct{}
}

type piece struct {
	buf *[]byte
	n   int
}

func (h *hasher) add(buf *[]byte, n int, more bool) {
	if h.work == nil && !more {
		h.to.Write((*buf)[:n])
		chunks.Put(buf)
		return
	}
	if h.work == nil {
		h.work, h.done = make(chan piece, 1), make(chan struct{})
		go func() {
			defer close(h.done)
			for p := range h.work {
				h.to.Write((*p.buf)[:p.n])
				chunks.Put(p.buf)
			}
		}()
	}
	h.work <- piece{buf, n}
}

// wait returns when all is hashed.
func (h *hasher) wait() {
	if h.work != nil {
		close(h.work)
		<-h.done
		h.work = nil
	}
}

// commit verifies an upload and makes it a blob of its repository. Killing the process loses nothing of it from then on; it is on the
// disk when settled has returned. What does not fit its digest goes. u is locked.
func (h *Hub) commit(u *upload, want digest.Digest) error {
	got := digest.NewDigest(digest.SHA256, u.hash)
	if want.Algorithm() != got.Algorithm() {
		f, err := os.Open(u.path)
		if err != nil {
			return err
		}
		got, err = want.Algorithm().FromReader(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	if got != want {
		h.forget(u)
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "the content has digest %s, not %s", got, want)
	}
	h.links.RLock()
	defer h.links.RUnlock()
	if path := h.blobs.Path(want); !exists(path) {
		if err := h.settling.begin(want, u.path, func() error { return os.Rename(u.path, path) }); err != nil {
			return err
		}
	}
	if err := h.linkBlob(u.name, want); err != nil {
		return err
	}
	h.forget(u)
	return nil
}
