package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// Mount makes a blob of another repository of the same registry visible here, without moving it.
// false means that the registry did not; the blob has to be uploaded then.
func (r *Repository) Mount(ctx context.Context, d digest.Digest, from reference.Named) (bool, error) {
	rs, err := r.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/", write: true,
		query: url.Values{"mount": {d.String()}, "from": {reference.Path(from)}}})
	if err != nil {
		if e := asError(err); e != nil && (e.denied() || e.Status == http.StatusNotFound) {
			return false, nil
		}
		return false, pushError(r.name, err)
	}
	drain(rs)
	if rs.StatusCode == http.StatusCreated {
		return true, nil
	}
	// 202: the registry has opened an upload instead, which nobody will use.
	if at := rs.Header.Get("Location"); at != "" {
		if rs, err := r.do(ctx, request{method: http.MethodDelete, path: at, write: true, once: true}); err == nil {
			drain(rs)
		}
	}
	return false, nil
}

// chunk is the length of one PATCH, in bytes, when an upload goes on after a cut.
const chunk = 32 << 20

// Upload stores a blob: in one request, or after a cut in chunks from where the registry has it. content gives its bytes at any offset; moved (may be nil) is told how far the upload is.
func (r *Repository) Upload(ctx context.Context, d ocispec.Descriptor, content io.ReaderAt, moved func(offset int64)) error {
	u := &upload{r: r, d: d, content: content, moved: moved}
	var err error
	for try := 1; try <= u.r.c.config.Tries; try++ {
		if u.location == "" {
			err = u.begin(ctx)
		}
		if err == nil {
			err = u.send(ctx)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !passing(err) && !errors.Is(err, errUploadLost) {
			break
		}
		if e := r.c.sleep(ctx, try, err); e != nil {
			return e
		}
		if u.location != "" {
			u.ask(ctx)
		}
		err = nil
	}
	if err == nil {
		err = fault.Unavailable("upload of blob %s to %s broke off %d times", d.Digest, reference.Domain(r.name), r.c.config.Tries)
	}
	return pushError(r.name, err)
}

// upload is one session of the registry (distribution-spec, "Pushing a blob in chunks").
type upload struct {
	r        *Repository
	d        ocispec.Descriptor
	content  io.ReaderAt
	moved    func(int64)
	location string // "" before begin and when the session is lost
	offset   int64  // bytes that the registry has
	chunked  bool   // there was a cut
}

var errUploadLost = errors.New("the registry lost the upload")

func (u *upload) begin(ctx context.Context) error {
	rs, err := u.r.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/", write: true})
	if err != nil {
		return err
	}
	drain(rs)
	u.location, u.offset, u.chunked = rs.Header.Get("Location"), 0, false
	if u.location == "" {
		return fault.Internal("registry %s opened an upload without saying where", reference.Domain(u.r.name))
	}
	return nil
}

// send moves what is missing and closes the upload.
func (u *upload) send(ctx context.Context) error {
	for u.chunked && u.offset < u.d.Size {
		n := min(int64(chunk), u.d.Size-u.offset)
		rs, err := u.r.do(ctx, request{method: http.MethodPatch, path: u.location, write: true, once: true,
			header: http.Header{
				"Content-Type":  {"application/octet-stream"},
				"Content-Range": {fmt.Sprintf("%d-%d", u.offset, u.offset+n-1)},
			},
			body: u.body(u.offset, n), length: n})
		if err != nil {
			return u.lost(err)
		}
		drain(rs)
		u.offset += n
		u.follow(rs.Header)
	}
	rq := request{method: http.MethodPut, path: u.location, write: true, once: true,
		query:  url.Values{"digest": {u.d.Digest.String()}},
		header: http.Header{"Content-Type": {"application/octet-stream"}}}
	if u.offset < u.d.Size {
		rq.body, rq.length = u.body(u.offset, u.d.Size-u.offset), u.d.Size-u.offset
	}
	rs, err := u.r.do(ctx, rq)
	if err != nil {
		return u.lost(err)
	}
	drain(rs)
	return nil
}

// lost tells a session that is gone, or does not take this offset, from other failures.
func (u *upload) lost(err error) error {
	e := asError(err)
	if e == nil || !u.chunked {
		return err
	}
	if e.Status == http.StatusNotFound || e.Status == http.StatusRequestedRangeNotSatisfiable {
		u.location = ""
		return errUploadLost
	}
	return err
}

// ask finds out how much the registry has; a session it does not know any more is given up.
func (u *upload) ask(ctx context.Context) {
	rs, err := u.r.do(ctx, request{method: http.MethodGet, path: u.location, write: true})
	if err != nil {
		// The blob may be there already: the answer was what broke.
		u.location = ""
		return
	}
	drain(rs)
	u.follow(rs.Header)
	u.offset, u.chunked = rangeEnd(rs.Header.Get("Range")), true
	if u.offset > u.d.Size {
		u.location = ""
	}
}

func (u *upload) follow(h http.Header) {
	if at := h.Get("Location"); at != "" {
		u.location = at
	}
}

// rangeEnd reads "0-1023" as 1024; "0-0" is nothing, which is how registries say so.
func rangeEnd(s string) int64 {
	_, end, ok := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(end, 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return n + 1
}

// body gives n bytes of the content, and counts them.
func (u *upload) body(offset, n int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		return io.NopCloser(&counted{r: io.NewSectionReader(u.content, offset, n), at: offset, moved: u.moved}), nil
	}
}

type counted struct {
	r     io.Reader
	at    int64
	moved func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.at += int64(n)
	if n > 0 && c.moved != nil {
		c.moved(c.at)
	}
	return n, err
}
