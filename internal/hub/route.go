package hub

import (
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"tare/internal/hub/access"
)

// namePattern is distribution-spec's <name>; a component never starts with "_", so the folders of the
// store can't be meant.
var namePattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// tagPattern is distribution-spec's <reference> as a tag.
var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// maxName is the longest repository name.
const maxName = 255

// call is one request. What the endpoints do is methods of types around it, one for each group of them.
type call struct {
	*Hub
	w    *recorder
	r    *http.Request
	name string // of the repository
	arg  string // what stands behind the pattern
	who  caller
}

// on makes a group's endpoint serve a call.
func on[G ~struct{ *call }](serve func(G) error) func(*call) error {
	return func(c *call) error { return serve(G{c}) }
}

// method is what one method of an address does, and the action one has to be allowed.
type method struct {
	action string
	serve  func(c *call) error
}

// route is one line of the table: /v2/<name>/<infix><arg>.
type route struct {
	infix   string
	kind    string // for metrics
	methods map[string]method
}

// routes, longest infix first where one is the start of another.
var routes = []route{
	{"/blobs/uploads/", "upload", map[string]method{
		"POST": {access.Push, on(uploadCall.start)}, "GET": {access.Push, on(uploadCall.status)}, "HEAD": {access.Push, on(uploadCall.status)},
		"PATCH": {access.Push, on(uploadCall.patch)}, "PUT": {access.Push, on(uploadCall.put)}, "DELETE": {access.Push, on(uploadCall.cancel)},
	}},
	{"/blobs/", "blob", map[string]method{
		"GET": {access.Pull, on(blobCall.get)}, "HEAD": {access.Pull, on(blobCall.get)}, "DELETE": {access.Delete, on(blobCall.delete)},
	}},
	{"/manifests/", "manifest", map[string]method{
		"GET": {access.Pull, on(manifestCall.get)}, "HEAD": {access.Pull, on(manifestCall.get)},
		"PUT": {access.Push, on(manifestCall.put)}, "DELETE": {access.Delete, on(manifestCall.delete)},
	}},
	{"/tags/list", "tags", map[string]method{"GET": {access.Pull, on(discovery.listTags)}, "HEAD": {access.Pull, on(discovery.listTags)}}},
	{"/referrers/", "referrers", map[string]method{"GET": {access.Pull, on(discovery.listReferrers)}, "HEAD": {access.Pull, on(discovery.listReferrers)}}},
}

// addresses are what may follow no repository.
var addresses = map[string]struct {
	kind  string
	serve func(c *call) error
	allow string
}{
	"/v2/":         {"base", (*call).base, "GET HEAD"},
	"/v2/_catalog": {"catalog", on(discovery.catalog), "GET HEAD"},
	tokenPath:      {"token", on(tokenCall.token), "GET POST"},
	"/healthz":     {"health", (*call).health, "GET HEAD"},
}

func (c *call) serve() {
	if err := c.route(); err != nil {
		c.fail(err)
	}
}

func (c *call) route() error {
	c.w.kind = "other"
	path := c.r.URL.Path
	if path == "/v2" {
		path = "/v2/"
	}
	if a, ok := addresses[path]; ok {
		c.w.kind = a.kind
		if !strings.Contains(a.allow, c.r.Method) {
			return c.unsupported()
		}
		if a.kind == "base" || a.kind == "catalog" {
			if err := (guard{c}).identify(); err != nil {
				return err
			}
		}
		return a.serve(c)
	}
	if !strings.HasPrefix(path, "/v2/") {
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "%s is not part of the API, which begins with /v2/", path)
	}
	c.w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	rest := strings.TrimPrefix(path, "/v2/")
	if strings.HasSuffix(rest, "/blobs/uploads") {
		rest += "/"
	}
	for _, route := range routes {
		i := strings.LastIndex(rest, route.infix)
		if i < 0 {
			continue
		}
		name, arg := rest[:i], rest[i+len(route.infix):]
		if strings.Contains(arg, "/") || route.infix == "/tags/list" && arg != "" {
			continue
		}
		c.name, c.arg, c.w.kind = name, arg, route.kind
		if len(name) > maxName || !namePattern.MatchString(name) {
			return refuse(http.StatusBadRequest, "NAME_INVALID", "invalid repository name %q", name)
		}
		m, ok := route.methods[c.r.Method]
		if !ok || route.kind == "upload" && (arg == "") != (c.r.Method == http.MethodPost) {
			return c.unsupported()
		}
		if err := (guard{c}).identify(); err != nil {
			return err
		}
		if err := (guard{c}).authorize(m.action); err != nil {
			return err
		}
		return m.serve(c)
	}
	return refuse(http.StatusNotFound, "NAME_UNKNOWN", "no such address: %s", path)
}

// base tells that this is a registry, and to a client that wants to know, that its name and password are right.
func (c *call) base() error {
	c.w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if c.access != nil && !c.who.proven {
		return guard{c}.challenge("")
	}
	return writeJSON(c.w, http.StatusOK, struct{}{})
}

// parseDigest accepts what the store can hold.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
		return "", refuse(http.StatusBadRequest, "DIGEST_INVALID", "invalid digest %q", s)
	}
	return d, nil
}

// remote is the client's address without port.
func (c *call) remote() string {
	host, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		return c.r.RemoteAddr
	}
	return host
}
