package hub

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"tare/internal/hub/access"
	"tare/internal/hub/audit"
)

// tokenPath is where the registry's own token server is (distribution's "Token Authentication" and "OAuth2 token").
const tokenPath = "/auth/token"

// caller is who makes a request, as far as that is known.
type caller struct {
	id     access.Identity
	claims *access.Claims // of a token, which may be good for less than id may do
	proven bool           // a password or token was right
}

// guard finds out who makes a call, and decides what that one may do.
type guard struct{ *call }

// identify finds out who calls, and lets nobody come too often.
func (c guard) identify() error {
	err := c.credentials()
	key := c.remote()
	if c.who.id.Name != "" {
		key = c.who.id.Name
		c.w.actor = c.who.id.Name
	}
	if err != nil {
		return err
	}
	if wait := c.rate.Take(key); wait > 0 {
		return c.tooMany(wait, "more than %v requests a second", c.config.Limits.Rate)
	}
	return nil
}

func (c guard) credentials() error {
	if c.access == nil {
		return nil
	}
	scheme, value, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "bearer":
		claims, err := c.access.Tokens.Verify(strings.TrimSpace(value))
		if err != nil {
			return c.challenge("invalid_token")
		}
		id, ok := c.access.Identity(claims.Subject)
		if !ok {
			return c.challenge("invalid_token")
		}
		c.who = caller{id, claims, true}
	case "basic":
		name, password, ok := c.r.BasicAuth()
		if !ok {
			return c.challenge("")
		}
		id, err := c.login(name, password)
		if err != nil {
			return err
		}
		c.who = caller{id, nil, true}
	}
	return nil
}

// login checks a password; guessing is slowed down.
func (c guard) login(name, password string) (access.Identity, error) {
	if wait := c.failures.Wait(c.remote()); wait > 0 {
		return access.Identity{}, c.tooMany(wait, "too many failed logins")
	}
	id, err := c.access.Check(name, password)
	if errdefs.IsUnauthorized(err) {
		c.failures.Take(c.remote())
		c.record(audit.Entry{Actor: name, Action: "login", Status: http.StatusUnauthorized, Reason: err.Error()})
		f := c.challenge("")
		f.message = err.Error()
		return id, f
	}
	return id, err
}

// challenge says how to authenticate.
func (c guard) challenge(problem string) *refusal {
	f := refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	if c.access.Scheme() == "basic" {
		c.w.Header().Set("WWW-Authenticate", `Basic realm="`+c.access.Tokens.Service()+`"`)
		return f
	}
	v := `Bearer realm="` + c.address() + tokenPath + `",service="` + c.access.Tokens.Service() + `"`
	if c.name != "" {
		v += `,scope="` + c.scope() + `"`
		f.detail = []map[string]string{{"Type": "repository", "Name": c.name}}
	}
	if problem != "" {
		v += `,error="` + problem + `"`
	}
	c.w.Header().Set("WWW-Authenticate", v)
	return f
}

// scope is what a token for this request has to be good for.
func (c guard) scope() string {
	actions := "pull"
	switch c.r.Method {
	case http.MethodDelete:
		actions = "delete"
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		actions = "pull,push"
	}
	return "repository:" + c.name + ":" + actions
}

// address is the address that clients use for this registry.
func (c *call) address() string {
	if c.config.URL != "" {
		return strings.TrimSuffix(c.config.URL, "/")
	}
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: c.r.Host}).String()
}

// may tells whether the caller may do something in a repository: by right now, and by token where there is one.
func (c guard) may(repository, action string) bool {
	if c.access == nil {
		return true
	}
	if !c.access.Allowed(c.who.id, repository, action) {
		return false
	}
	return c.who.claims == nil || c.who.claims.Grants(repository, action) || action == access.Pull && c.access.Allowed(access.Identity{}, repository, action)
}

// authorize refuses what the caller may not do: with a challenge, where another name or token may help.
func (c guard) authorize(action string) error {
	if c.may(c.name, action) {
		return nil
	}
	if !c.who.id.Anonymous() && !c.access.Allowed(c.who.id, c.name, action) {
		return refuse(http.StatusForbidden, "DENIED", "requested access to the resource is denied")
	}
	problem := ""
	if c.who.claims != nil {
		problem = "insufficient_scope"
	}
	return c.challenge(problem)
}

// tokenCall is a call of the token server.
type tokenCall struct{ *call }

// token serves the token server: GET with a name and password or none, POST as OAuth2 has it.
func (c tokenCall) token() error {
	if c.access == nil {
		return refuse(http.StatusNotFound, "UNSUPPORTED", "this registry asks for no tokens")
	}
	if wait := c.rate.Take(c.remote()); wait > 0 {
		return c.tooMany(wait, "more than %v requests a second", c.config.Limits.Rate)
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, 64<<10)
	if err := c.r.ParseForm(); err != nil {
		return refuse(http.StatusBadRequest, "UNSUPPORTED", "the request can't be read: %v", err)
	}
	form := c.r.Form
	id, err := c.applicant(form)
	if err != nil {
		return err
	}
	c.w.actor = id.Name
	if s := form.Get("service"); s != "" && s != c.access.Tokens.Service() {
		return refuse(http.StatusBadRequest, "UNSUPPORTED", "service %q is not served here; this is %s", s, c.access.Tokens.Service())
	}
	var wanted []access.Access
	for _, line := range form["scope"] {
		for _, s := range strings.Fields(line) {
			if a, ok := access.ParseScope(s); ok && len(wanted) < 100 {
				wanted = append(wanted, a)
			}
		}
	}
	got := c.access.Cut(id, wanted)
	token, issued, err := c.access.Tokens.Issue(id, got)
	if err != nil {
		return err
	}
	answer := map[string]any{"token": token, "access_token": token, "expires_in": int(c.access.Tokens.Lifetime() / time.Second),
		"issued_at": issued.UTC().Format(time.RFC3339)}
	if !id.Anonymous() && (form.Get("offline_token") == "true" || form.Get("access_type") == "offline") {
		if answer["refresh_token"], err = c.access.Tokens.IssueRefresh(id); err != nil {
			return err
		}
	}
	if len(wanted) == 0 && !id.Anonymous() {
		c.record(audit.Entry{Actor: id.Name, Action: "login", Status: http.StatusOK})
	}
	c.w.Header().Set("Cache-Control", "no-store")
	return writeJSON(c.w, http.StatusOK, answer)
}

// applicant is who asks for a token.
func (c tokenCall) applicant(form url.Values) (access.Identity, error) {
	if c.r.Method == http.MethodGet {
		name, password, ok := c.r.BasicAuth()
		if !ok {
			if c.r.Header.Get("Authorization") != "" {
				return access.Identity{}, refuse(http.StatusUnauthorized, "UNAUTHORIZED", "a name and password are needed (Basic)")
			}
			return access.Identity{}, nil
		}
		id, err := guard{c.call}.login(name, password)
		c.w.Header().Del("WWW-Authenticate")
		return id, err
	}
	form = c.r.PostForm
	switch kind := form.Get("grant_type"); kind {
	case "password":
		id, err := guard{c.call}.login(form.Get("username"), form.Get("password"))
		c.w.Header().Del("WWW-Authenticate")
		return id, err
	case "refresh_token":
		id, err := c.access.Refresh(form.Get("refresh_token"))
		if errors.Is(err, errdefs.ErrUnauthenticated) {
			return id, refuse(http.StatusUnauthorized, "UNAUTHORIZED", "%v", err)
		}
		return id, err
	default:
		return access.Identity{}, refuse(http.StatusBadRequest, "UNSUPPORTED", "grant_type %q is neither password nor refresh_token", kind)
	}
}
