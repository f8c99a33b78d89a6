package engineapi

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"tare/internal/base/fault"
	"tare/internal/base/trace"
	"tare/internal/server/engineapi/compat"
)

// handler answers a request. An error it returns is written as the answer, unless the answer was begun.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one operation. In a pattern {x} stands for one segment of the path, {x...} for one or
// more (image names have slashes); handlers read them with Request.PathValue.
type route struct {
	method, pattern string
	handle          handler
}

// operation is the route as the API's description writes it.
func (rt route) operation() string {
	return rt.method + " " + strings.ReplaceAll(rt.pattern, "...}", "}")
}

// router finds the route of a request by its method and path, after taking the version off.
type router struct {
	routes map[string][]compiled // by method
	server string
	allows func(operation string) bool // nil: all are allowed
	by     string                      // who says so
	debugf func(format string, args ...any)
}

type compiled struct {
	route
	segments []string
}

func (t *router) add(rt route) {
	if t.routes == nil {
		t.routes = map[string][]compiled{}
	}
	c := compiled{route: rt, segments: strings.Split(rt.pattern[1:], "/")}
	t.routes[rt.method] = append(t.routes[rt.method], c)
}

// match fills values with the path's parts that stand at wildcards.
func (c compiled) match(path []string, values map[string]string) bool {
	clear(values)
	for i, seg := range c.segments {
		name, wild := strings.CutPrefix(seg, "{")
		name = strings.TrimSuffix(name, "}")
		name, many := strings.CutSuffix(name, "...")
		switch {
		case many:
			// The segments after it have to fit the path's end.
			rest := c.segments[i+1:]
			end := len(path) - len(rest)
			if end <= i || !fits(rest, path[end:]) {
				return false
			}
			values[name] = strings.Join(path[i:end], "/")
			return values[name] != ""
		case i >= len(path):
			return false
		case wild:
			if path[i] == "" {
				return false
			}
			values[name] = path[i]
		case seg != path[i]:
			return false
		}
	}
	return len(c.segments) == len(path)
}

func fits(segments, path []string) bool {
	for i := range segments {
		if segments[i] != path[i] {
			return false
		}
	}
	return true
}

func (t *router) find(method, path string, values map[string]string) (compiled, bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, c := range t.routes[method] {
		if c.match(parts, values) {
			return c, true
		}
	}
	return compiled{}, false
}

// ServeHTTP implements http.Handler.
func (t *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			t.debugf("panic at %s %s: %v\n%s", r.Method, r.URL.Path, p, debug.Stack())
			writeError(w, fault.Internal("internal error at %s %s: %v", r.Method, r.URL.Path, p))
		}
	}()
	path, version, err := splitVersion(r.URL.Path)
	h := w.Header()
	h.Set("Server", t.server)
	h.Set("Api-Version", MaxVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")
	if err != nil {
		writeError(w, err)
		return
	}
	values := map[string]string{}
	c, ok := t.find(r.Method, path, values)
	if !ok {
		writeError(w, fault.NotFound("page not found"))
		return
	}
	if t.allows != nil && !t.allows(c.operation()) {
		writeError(w, fault.Forbidden("%s is not allowed on this socket by %s", c.operation(), t.by))
		return
	}
	for k, v := range values {
		r.SetPathValue(k, v)
	}
	t.debugf("%s %s", r.Method, r.URL.RequestURI())
	if trace.On() {
		r = r.WithContext(trace.Begin(r.Context(), "server", c.method, c.pattern, ""))
	}
	ow := &observed{ResponseWriter: w}
	err = compat.Wrap(ow, r, c.method+" "+c.pattern, version, c.handle)
	switch {
	case err == nil:
	case ow.begun:
		t.debugf("%s %s: %v (after the answer began)", r.Method, r.URL.Path, err)
	default:
		t.debugf("%s %s: %v", r.Method, r.URL.Path, err)
		writeError(w, err)
	}
}

// splitVersion takes /v1.50 off a path. Without one the newest version is spoken.
func splitVersion(path string) (rest, version string, err error) {
	v, ok := strings.CutPrefix(path, "/v")
	if !ok || v == "" || v[0] < '0' || v[0] > '9' {
		return path, MaxVersion, nil
	}
	v, rest, _ = strings.Cut(v, "/")
	if strings.Trim(v, "0123456789.") != "" {
		return path, MaxVersion, nil
	}
	switch {
	case compat.Less(v, MinVersion):
		return "", "", fault.Invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, MinVersion)
	case compat.Less(MaxVersion, v):
		return "", "", fault.Invalid("client version %s is too new. Maximum supported API version is %s", v, MaxVersion)
	}
	return "/" + rest, v, nil
}

// observed knows whether an answer was begun.
type observed struct {
	http.ResponseWriter
	begun bool
}

func (o *observed) WriteHeader(status int) {
	o.begun = true
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(p []byte) (int, error) {
	o.begun = true
	return o.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// begin marks the answer as begun by other means than Write (a hijack).
func begin(w http.ResponseWriter) {
	for w != nil {
		if o, ok := w.(*observed); ok {
			o.begun = true
			return
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = u.Unwrap()
	}
}

// begun reports whether the answer was begun.
func begun(w http.ResponseWriter) bool {
	for w != nil {
		if o, ok := w.(*observed); ok {
			return o.begun
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
	return false
}

// boolean reads a query parameter as Docker does: "", 0, no, false and none are false, all else is true.
func boolean(r *http.Request, key string) bool { return truth(r.FormValue(key)) }

func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// booleanOr is boolean with another value for a parameter that isn't there.
func booleanOr(r *http.Request, key string, def bool) bool {
	if _, ok := r.Form[key]; !ok {
		return def
	}
	return boolean(r, key)
}

// number reads an integer parameter; absent or empty is def.
func number(r *http.Request, key string, def int64) (int64, error) {
	s := r.FormValue(key)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fault.Invalid("invalid value for %s: %s", key, fmt.Sprintf("%q is not an integer", s))
	}
	return n, nil
}
