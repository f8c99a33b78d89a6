package hub

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/hub/access"
	"tare/internal/hub/audit"
)

// uploadCall is a call of an upload, or one that starts one.
type uploadCall struct{ *call }

func (u *upload) location() string { return "/v2/" + u.name + "/blobs/uploads/" + u.id }

// state sets the headers that tell how far the upload is.
func (u *upload) state(w http.ResponseWriter) {
	w.Header().Set("Location", u.location())
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
	w.Header().Set("Docker-Upload-UUID", u.id)
}

// created answers that something was stored.
func (c *call) created(location string, d digest.Digest) {
	h := c.w.Header()
	h.Set("Location", location)
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
}

// gateWait is how long a body waits for others to be received.
const gateWait = time.Minute

// admit waits until the body may come.
func (c uploadCall) admit() (leave func(), err error) {
	if err := c.room(); err != nil {
		return nil, err
	}
	if most := int64(c.config.Limits.Blob); most > 0 && c.r.ContentLength > most {
		return nil, refuse(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a blob may have %d bytes", most)
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), gateWait)
	defer cancel()
	leave, err = c.gate.Enter(ctx, c.client())
	if err != nil && c.r.Context().Err() == nil {
		return nil, c.tooMany(time.Second, "too many uploads at once")
	}
	return leave, err
}

// patience is how long a body may stand still; with no bytes for so long its connection is cut.
const patience = time.Minute

// patientReader cuts a client that sends nothing; it sets the connection's deadline no more often than every few seconds.
type patientReader struct {
	io.Reader
	limit func(time.Time)
	set   time.Time
}

func (p *patientReader) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(p.set) > patience/10 {
		p.set = now
		p.limit(now.Add(patience))
	}
	return p.Reader.Read(b)
}

func (p *patientReader) end() { p.limit(time.Time{}) }

// receive appends the request's body to an upload.
func (c uploadCall) receive(u *upload) error {
	if c.r.ContentLength == 0 {
		return nil
	}
	leave, err := c.admit()
	if err != nil {
		return err
	}
	defer leave()
	before := u.size
	body := &patientReader{Reader: c.r.Body, limit: func(t time.Time) { http.NewResponseController(c.w).SetReadDeadline(t) }}
	err = u.receive(body, int64(c.config.Limits.Blob), nil)
	body.end()
	c.meters.received.Add(u.size - before)
	return err
}

// start serves POST: a mount, a whole blob in one request, or the start of a session.
func (c uploadCall) start() error {
	if k := c.cacheOf(c.name); k != nil {
		return k.readOnly(c.name)
	}
	q := c.r.URL.Query()
	if q.Has("mount") {
		mounted, err := c.mount(q)
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
	if err := c.room(); err != nil {
		return err
	}
	u, err := c.sessions.start(c.name)
	if err != nil {
		return err
	}
	if err := u.lock(c.r.Context()); err != nil {
		return err
	}
	defer u.unlock()
	if want != "" {
		if err := c.receive(u); err != nil {
			c.forget(u)
			return err
		}
		return c.finish(u, want)
	}
	u.state(c.w)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount links a blob of another repository: the one named by from, or without from any that the caller
// may pull from. It is false if there is none: then it goes on as an upload.
func (c uploadCall) mount(q url.Values) (bool, error) {
	d, err := parseDigest(q.Get("mount"))
	if err != nil {
		return false, err
	}
	sources := []string{q.Get("from")}
	if sources[0] == "" {
		sources = c.index.having(d)
	}
	c.links.RLock()
	defer c.links.RUnlock()
	for _, from := range sources {
		if len(from) > maxName || !namePattern.MatchString(from) || !(guard{c.call}).may(from, access.Pull) || !c.hasBlob(from, d) {
			continue
		}
		if err := c.linkBlob(c.name, d); err != nil {
			return false, err
		}
		c.pins.pin(c.name, d, c.client())
		c.created("/v2/"+c.name+"/blobs/"+d.String(), d)
		c.happened(audit.Entry{Action: "mount", Object: "blob", Digest: d.String(), From: from}, "")
		return true, nil
	}
	return false, nil
}

// status serves GET.
func (c uploadCall) status() error {
	u, err := c.take(c.r.Context(), c.name, c.arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	u.state(c.w)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// inOrder checks Content-Range ("first-last") against what is there.
func (c uploadCall) inOrder(u *upload) error {
	v := c.r.Header.Get("Content-Range")
	if v == "" {
		return nil
	}
	a, b, ok := parseRange(v)
	if !ok {
		return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "invalid Content-Range %q", v)
	}
	if a != u.size {
		u.state(c.w)
		return refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "Content-Range %s does not continue at byte %d", v, u.size)
	}
	if n := c.r.ContentLength; n >= 0 && b-a+1 != n {
		return refuse(http.StatusBadRequest, "SIZE_INVALID", "Content-Range %s does not describe the %d bytes of the request", v, n)
	}
	return nil
}

// parseRange reads "first-last", both inclusive; also with the unit, and the length, that RFC 9110 has.
func parseRange(v string) (first, last int64, ok bool) {
	x, y, ok := strings.Cut(strings.TrimPrefix(v, "bytes "), "-")
	y, _, _ = strings.Cut(y, "/")
	first, err1 := strconv.ParseInt(x, 10, 62)
	last, err2 := strconv.ParseInt(y, 10, 62)
	return first, last, ok && err1 == nil && err2 == nil && first >= 0 && last >= first-1
}

// patch appends a chunk.
func (c uploadCall) patch() error {
	u, err := c.take(c.r.Context(), c.name, c.arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	if err := c.inOrder(u); err != nil {
		return err
	}
	if err := c.receive(u); err != nil {
		return err
	}
	u.state(c.w)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// put serves PUT: the last chunk, which may be empty, and the digest.
func (c uploadCall) put() error {
	want, err := parseDigest(c.r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	u, err := c.take(c.r.Context(), c.name, c.arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	if err := c.inOrder(u); err != nil {
		return err
	}
	if err := c.receive(u); err != nil {
		return err
	}
	return c.finish(u, want)
}

// finish makes an upload a blob and answers.
func (c uploadCall) finish(u *upload, want digest.Digest) error {
	size := u.size
	c.pins.pin(c.name, want, c.client())
	if err := c.commit(u, want); err != nil {
		return err
	}
	c.created("/v2/"+c.name+"/blobs/"+want.String(), want)
	c.happened(audit.Entry{Action: "push", Object: "blob", Digest: want.String(), Bytes: size}, "application/octet-stream")
	return nil
}

// cancel serves DELETE.
func (c uploadCall) cancel() error {
	u, err := c.take(c.r.Context(), c.name, c.arg)
	if err != nil {
		return err
	}
	defer u.unlock()
	c.forget(u)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
