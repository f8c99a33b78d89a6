package hub

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/files"
	"tare/internal/base/ids"
)

// staleAfter is how long an upload that nobody goes on with is kept.
const staleAfter = 7 * 24 * time.Hour

// upload is a blob that is arriving.
type upload struct {
	id   string
	name string        // repository
	path string        // of the bytes
	busy chan struct{} // holds a token while a request works on it; guards all below
	f    *os.File
	hash digest.Digester // sha256 of what is there
	size int64
	gone bool // finished or cancelled
}

// sessions are the uploads of a registry.
type sessions struct {
	dir string

	mu      sync.Mutex // guards uploads
	uploads map[string]*upload
}

// close lets go of the files; the uploads stay on the disk.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.uploads {
		u.f.Close()
	}
	clear(s.uploads)
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

// start makes an empty upload, known to the disk.
func (s *sessions) start(name string) (*upload, error) {
	id := ids.New()[:32]
	u := &upload{id: id, name: name, path: filepath.Join(s.dir, id),
		busy: make(chan struct{}, 1), hash: digest.SHA256.Digester()}
	if err := files.Write(u.path+".repository", []byte(name+"\n"), 0o644, files.Fast); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		os.Remove(u.path + ".repository")
		return nil, err
	}
	u.f = f
	s.mu.Lock()
	s.uploads[id] = u
	s.mu.Unlock()
	return u, nil
}

func uploadUnknown(id string) *refusal {
	return refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload %s is unknown to this repository", id)
}

// take finds an upload of a repository, in memory or from before a restart, and locks it.
func (s *sessions) take(ctx context.Context, name, id string) (*upload, error) {
	if strings.Trim(id, "0123456789abcdef") != "" || len(id) != 32 {
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
	path := filepath.Join(s.dir, id)
	name, err := os.ReadFile(path + ".repository")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, uploadUnknown(id)
	} else if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o644)
	if err != nil {
		return nil, uploadUnknown(id)
	}
	u := &upload{id: id, name: strings.TrimSpace(string(name)), path: path, busy: make(chan struct{}, 1),
		f: f, hash: digest.SHA256.Digester()}
	if u.size, err = io.Copy(u.hash.Hash(), f); err != nil {
		f.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.uploads[id]; other != nil {
		f.Close()
		return other, nil
	}
	s.uploads[id] = u
	return u, nil
}

// forget ends an upload; its bytes go, unless they became a blob. u is locked.
func (s *sessions) forget(u *upload) {
	u.gone = true
	u.f.Close()
	os.Remove(u.path)
	os.Remove(u.path + ".repository")
	s.mu.Lock()
	delete(s.uploads, u.id)
	s.mu.Unlock()
}

// sweep removes what nobody went on with.
func (s *sessions) sweep() error {
	dir := s.dir
	if err := files.Sweep(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, isName := strings.CutSuffix(e.Name(), ".repository")
		if isName && exists(filepath.Join(dir, id)) {
			continue // goes with the bytes
		}
		info, err := e.Info()
		if err == nil && (isName || time.Since(info.ModTime()) > staleAfter) {
			os.Remove(filepath.Join(dir, id))
			os.Remove(filepath.Join(dir, id+".repository"))
		}
	}
	return nil
}

// receive appends a request's body. What came before a cut stays. If the body can't be stored, the
// upload is as it was before.
func (u *upload) receive(body io.Reader) error {
	mark, err := u.hash.Hash().(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	if _, err := u.f.Seek(u.size, io.SeekStart); err != nil {
		return err
	}
	start := u.size
	buf := make([]byte, 256<<10)
	for {
		n, readErr := io.ReadAtLeast(body, buf, len(buf))
		if n > 0 {
			if _, err := u.f.Write(buf[:n]); err != nil {
				u.size = start
				u.f.Truncate(start)
				if e := u.hash.Hash().(encoding.BinaryUnmarshaler).UnmarshalBinary(mark); e != nil {
					return e
				}
				return err
			}
			u.hash.Hash().Write(buf[:n])
			u.size += int64(n)
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF) && n < len(buf) && !isCut(body):
			return nil
		default:
			return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the request broke off: %v", readErr)
		}
	}
}

// bodyReader remembers how the body ended, because ReadAtLeast hides it.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil {
		b.err = err
	}
	return n, err
}

func isCut(r io.Reader) bool {
	b, ok := r.(*bodyReader)
	return ok && b.err != nil && b.err != io.EOF
}

func (u *upload) location() string { return "/v2/" + u.name + "/blobs/uploads/" + u.id }

// state sets the headers that tell how far the upload is.
func (u *upload) state(w http.ResponseWriter) {
	w.Header().Set("Location", u.location())
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
	w.Header().Set("Docker-Upload-UUID", u.id)
}

// startUpload serves POST: a mount, a whole blob in one request, or the start of a session.
func (h *Hub) startUpload(w http.ResponseWriter, r *http.Request, name, _ string) error {
	q := r.URL.Query()
	if q.Has("mount") {
		mounted, err := h.mount(w, q, name)
		if err != nil || mounted {
			return err
		}
	}
	var want digest.Digest
	if q.Has("digest") {
		var err error
		if want, err = parseDigest(q.Get("digest")); err != nil {
			return err
		}
	}
	u, err := h.sessions.start(name)
	if err != nil {
		return err
	}
	if err := u.lock(r.Context()); err != nil {
		return err
	}
	defer u.unlock()
	if want != "" {
		if err := u.receive(&bodyReader{r: r.Body}); err != nil {
			h.forget(u)
			return err
		}
		return h.finish(w, u, want)
	}
	u.state(w)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount links a blob of the repository named by from; false if it is not there. Without from nothing is
// mounted: whoever knows a digest may not read it for that.
func (h *Hub) mount(w http.ResponseWriter, q url.Values, name string) (bool, error) {
	d, err := parseDigest(q.Get("mount"))
	if err != nil {
		return false, err
	}
	from := q.Get("from")
	if len(from) > maxName || !namePattern.MatchString(from) {
		return false, nil
	}
	h.links.RLock()
	defer h.links.RUnlock()
	if !h.hasBlob(from, d) {
		return false, nil
	}
	if err := h.linkBlob(name, d); err != nil {
		return false, err
	}
	created(w, "/v2/"+name+"/blobs/"+d.String(), d)
	return true, nil
}

func created(w http.ResponseWriter, location string, d digest.Digest) {
	w.Header().Set("Location", location)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
}

// uploadStatus serves GET.
func (h *Hub) uploadStatus(w http.ResponseWriter, r *http.Request, name, arg string) error {
	u, err := h.take(r.Context(), name, arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	u.state(w)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// inOrder checks Content-Range ("first-last") against what is there.
func (u *upload) inOrder(w http.ResponseWriter, r *http.Request) error {
	v := r.Header.Get("Content-Range")
	if v == "" {
		return nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(v, "bytes "), "-")
	last, _, _ = strings.Cut(last, "/")
	a, err1 := strconv.ParseInt(first, 10, 64)
	b, err2 := strconv.ParseInt(last, 10, 64)
	if !ok || err1 != nil || err2 != nil || a < 0 || b < a-1 {
		return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "invalid Content-Range %q", v)
	}
	if a != u.size || r.ContentLength >= 0 && b-a+1 != r.ContentLength {
		u.state(w)
		return refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID",
			"Content-Range %s does not continue at byte %d with the %d bytes of the request", v, u.size, r.ContentLength)
	}
	return nil
}

// patchUpload appends a chunk.
func (h *Hub) patchUpload(w http.ResponseWriter, r *http.Request, name, arg string) error {
	u, err := h.take(r.Context(), name, arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	if err := u.inOrder(w, r); err != nil {
		return err
	}
	if err := u.receive(&bodyReader{r: r.Body}); err != nil {
		return err
	}
	u.state(w)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// finishUpload serves PUT: the last chunk, which may be empty, and the digest.
func (h *Hub) finishUpload(w http.ResponseWriter, r *http.Request, name, arg string) error {
	want, err := parseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	u, err := h.take(r.Context(), name, arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	if err := u.inOrder(w, r); err != nil {
		return err
	}
	if err := u.receive(&bodyReader{r: r.Body}); err != nil {
		return err
	}
	return h.finish(w, u, want)
}

// finish verifies an upload, makes it a blob of its repository, and answers when both are on the disk.
func (h *Hub) finish(w http.ResponseWriter, u *upload, want digest.Digest) error {
	got := u.hash.Digest()
	if want.Algorithm() != got.Algorithm() {
		if _, err := u.f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		var err error
		if got, err = want.Algorithm().FromReader(u.f); err != nil {
			return err
		}
	}
	if got != want {
		h.forget(u)
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "the content has digest %s, not %s", got, want)
	}
	if !exists(h.blobs.Path(want)) {
		if err := u.f.Sync(); err != nil {
			return err
		}
	}
	h.links.RLock()
	defer h.links.RUnlock()
	path := h.blobs.Path(want)
	if !exists(path) {
		if err := os.Rename(u.path, path); err != nil {
			return err
		}
		if err := files.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	if err := h.linkBlob(u.name, want); err != nil {
		return err
	}
	h.forget(u)
	created(w, "/v2/"+u.name+"/blobs/"+want.String(), want)
	return nil
}

// cancelUpload serves DELETE.
func (h *Hub) cancelUpload(w http.ResponseWriter, r *http.Request, name, arg string) error {
	u, err := h.take(r.Context(), name, arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	h.forget(u)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
