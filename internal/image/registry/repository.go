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

	mu        sync.Mutex // guards all below
	endpoints []endpoint // to ask, in turn; mirrors that failed are taken out
	located   bool       // endpoints are filled
	reached   bool       // some endpoint has answered
}

// Repository returns the repository of ref's name. auth may be nil.
func (c *Client) Repository(ref reference.Named, auth *registrytypes.AuthConfig, access Access) *Repository {
	c, name := c.now(), reference.TrimNamed(ref)
	return &Repository{c: c, name: name, access: access, auth: newAuthorizer(c, auth)}
}

// Name is the repository's full name.
func (r *Repository) Name() reference.Named { return r.name }

// locate finds the endpoints to try for a request, in order. Writers get the registry only.
func (r *Repository) locate(ctx context.Context, rq request) ([]endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.located {
		all, err := r.c.endpoints(ctx, r.name, r.access)
		if err != nil {
			return nil, err
		}
		r.endpoints, r.located = all, true
	}
	if rq.write {
		return r.endpoints[len(r.endpoints)-1:], nil
	}
	var all []endpoint
	for _, e := range r.endpoints {
		if !e.digestsOnly || !rq.byTag {
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return nil, fault.NotFound("no mirror of %s may be asked for tags, and its registry is not to be asked: give a digest", reference.FamiliarName(r.name))
	}
	return all, nil
}

// drop stops asking a mirror that failed or lacks something, unless nobody else is left.
func (r *Repository) drop(e endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range r.endpoints {
		if m == e && len(r.endpoints) > 1 {
			r.endpoints = append(r.endpoints[:i:i], r.endpoints[i+1:]...)
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
	soft   bool                          // a mirror that lacks it is asked for other things again
	byTag  bool                          // the answer depends on what a tag stands for
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
		if rq.once || try >= r.c.config.Tries || !passing(err) {
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
	endpoints, err := r.locate(ctx, rq)
	if err != nil {
		return nil, err
	}
	for i, e := range endpoints {
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
		if e.mirror && i < len(endpoints)-1 {
			if !rq.soft {
				r.drop(e)
			}
			continue
		}
		r.mu.Lock()
		if asError(err) != nil {
			r.reached = true
		} else if e.insecure && !r.reached && !e.mirror {
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
		home := target.Host == e.host() && (target.Scheme == "https" || !e.secure())
		if home {
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
		refused := r.c.readError(rs)
		if rs.StatusCode != http.StatusUnauthorized || authenticated || !home {
			return nil, refused
		}
		if rs.Request != nil && rs.Request.URL.Host != target.Host {
			return nil, refused // the registry sent us elsewhere: who answers there gets no credentials
		}
		scope := "repository:" + e.path + ":" + string(r.access)
		ok, err := r.auth.answer(ctx, e, h, rs.Header, scope)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, refused
		}
	}
}

// url joins endpoint and request. An address on the endpoint's own host stays encrypted if the endpoint is: a registry behind a proxy
// that ends TLS often doesn't know that it is.
func (r *Repository) url(e endpoint, rq request) (*url.URL, error) {
	u, err := url.Parse(e.base + "/v2/" + e.path + "/" + rq.path)
	if rq.path != "" && (rq.path[0] == '/' || len(rq.path) > 7 && (rq.path[:7] == "http://" || rq.path[:7] == "https:/")) {
		var base *url.URL
		if base, err = url.Parse(e.base); err == nil {
			u, err = base.Parse(rq.path)
		}
		if err == nil && u.Scheme == "http" && e.secure() && u.Host == base.Host {
			u.Scheme = "https"
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
