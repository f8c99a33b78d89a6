package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"

	"tare/internal/base/fault"
)

// Access says what a Repository is to be used for; tokens are asked for that much and no more.
type Access string

const (
	Pull Access = "pull"
	Push Access = "pull,push"
)

// Repository is one name at one host, as one user may see it. It keeps tokens and the
// endpoint that answered, so one is made per pull or push. It is safe for concurrent use.
type Repository struct {
	c      *Client
	name   reference.Named // without tag and digest
	access Access
	auth   *authorizer

	mu      sync.Mutex // guards all below
	mirrors []endpoint // that have not failed yet
	located bool       // mirrors and up are filled
	up      endpoint   // the registry itself
	reached bool       // some endpoint has answered
}

// Repository returns the repository of ref's name. auth may be nil.
func (c *Client) Repository(ref reference.Named, auth *registrytypes.AuthConfig, access Access) *Repository {
	name := reference.TrimNamed(ref)
	return &Repository{c: c, name: name, access: access, auth: newAuthorizer(c, auth)}
}

// Name is the repository's full name.
func (r *Repository) Name() reference.Named { return r.name }

// locate finds the endpoints to try, in order. Writers get the registry only.
func (r *Repository) locate(ctx context.Context, write bool) ([]endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.located {
		host := reference.Domain(r.name)
		up, err := r.c.upstream(ctx, host)
		if err != nil {
			return nil, err
		}
		if r.access == Pull {
			r.mirrors = r.c.mirrorEndpoints(ctx, host)
		}
		r.up, r.located = up, true
	}
	if write {
		return []endpoint{r.up}, nil
	}
	return append(r.mirrors[:len(r.mirrors):len(r.mirrors)], r.up), nil
}

// dropMirror stops asking a mirror that failed or lacks something.
func (r *Repository) dropMirror(e endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range r.mirrors {
		if m == e {
			r.mirrors = append(r.mirrors[:i:i], r.mirrors[i+1:]...)
			return
		}
	}
}

// request is one call of the API.
type request struct {
	method string
	path   string // below /v2/NAME/, or an absolute URL (a Location)
	query  url.Values
	header http.Header
	write  bool                          // only the registry itself may answer
	once   bool                          // the caller repeats, if it wants
	body   func() (io.ReadCloser, error) // nil for none; called for each try
	length int64                         // of body
}

// do makes a call: it tries mirrors, authenticates, and repeats what failed for a passing reason. The
// answer has a status below 400; other answers are an *Error.
func (r *Repository) do(ctx context.Context, rq request) (*http.Response, error) {
	for try := 1; ; try++ {
		rs, err := r.attempt(ctx, rq)
		if err == nil {
			return rs, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if rq.once || try >= tries || !passing(err) {
			return nil, err
		}
		r.mu.Lock()
		reached := r.reached
		r.mu.Unlock()
		if !reached && isDial(err) {
			return nil, err // nobody there: say so now
		}
		if err := r.c.sleep(ctx, try, err); err != nil {
			return nil, err
		}
	}
}

// attempt goes through the endpoints once.
func (r *Repository) attempt(ctx context.Context, rq request) (*http.Response, error) {
	endpoints, err := r.locate(ctx, rq.write)
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		rs, failed := r.send(ctx, e, rq)
		if failed == nil {
			r.mu.Lock()
			r.reached = true
			r.mu.Unlock()
			return rs, nil
		}
		err = failed
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if e.mirror {
			r.dropMirror(e)
			continue
		}
		r.mu.Lock()
		if asError(err) != nil {
			r.reached = true
		} else if e.insecure && !r.reached {
			r.located = false
			r.c.forget(e.host())
		}
		r.mu.Unlock()
	}
	return nil, err
}

// send asks one endpoint, with a second try after it has said how to authenticate.
func (r *Repository) send(ctx context.Context, e endpoint, rq request) (*http.Response, error) {
	target, err := r.url(e, rq)
	if err != nil {
		return nil, err
	}
	h, err := r.c.httpClient(e.host(), e.insecure)
	if err != nil {
		return nil, err
	}
	for authenticated := false; ; authenticated = true {
		hrq, err := http.NewRequestWithContext(ctx, rq.method, target.String(), nil)
		if err != nil {
			return nil, err
		}
		for k, vs := range rq.header {
			hrq.Header[k] = vs
		}
		hrq.Header.Set("User-Agent", r.c.config.UserAgent)
		if rq.body != nil {
			body, err := rq.body()
			if err != nil {
				return nil, err
			}
			hrq.Body, hrq.ContentLength = body, rq.length
			if rq.length == 0 {
				body.Close()
				hrq.Body = http.NoBody
			}
		}
		if target.Host == e.host() {
			r.auth.apply(e, hrq)
		}
		rs, err := h.Do(hrq)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, connectionError(err)
		}
		if rs.StatusCode < 400 {
			return rs, nil
		}
		refused := readError(rs)
		if rs.StatusCode != http.StatusUnauthorized || authenticated || target.Host != e.host() {
			return nil, refused
		}
		scope := "repository:" + reference.Path(r.name) + ":" + string(r.access)
		ok, err := r.auth.answer(ctx, e, h, rs.Header, scope)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, refused
		}
	}
}

// url joins endpoint and request.
func (r *Repository) url(e endpoint, rq request) (*url.URL, error) {
	u, err := url.Parse(e.base + "/v2/" + reference.Path(r.name) + "/" + rq.path)
	if rq.path != "" && (rq.path[0] == '/' || len(rq.path) > 7 && (rq.path[:7] == "http://" || rq.path[:7] == "https:/")) {
		var base *url.URL
		if base, err = url.Parse(e.base); err == nil {
			u, err = base.Parse(rq.path)
		}
	}
	if err != nil {
		return nil, fault.Invalid("registry %s sent an address that can't be parsed: %w", reference.Domain(r.name), err)
	}
	if len(rq.query) > 0 {
		q := u.Query()
		for k, vs := range rq.query {
			q[k] = vs
		}
		u.RawQuery = q.Encode()
	}
	return u, nil
}

// drain lets the connection be used again.
func drain(rs *http.Response) {
	io.Copy(io.Discard, io.LimitReader(rs.Body, 64<<10))
	rs.Body.Close()
}
