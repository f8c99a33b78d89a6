package hub

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// namePattern is distribution-spec's <name>; a component never starts with "_", so the folders of the
// store can't be meant.
var namePattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// tagPattern is distribution-spec's <reference> as a tag.
var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// maxName is the longest repository name.
const maxName = 255

// handler serves one kind of address; arg is what stands behind the pattern.
type handler func(h *Hub, w http.ResponseWriter, r *http.Request, name, arg string) error

// route is one line of the table: /v2/<name>/<infix><arg>.
type route struct {
	infix   string
	methods map[string]handler
}

// routes, longest infix first where one is the start of another.
var routes = []route{
	{"/blobs/uploads/", map[string]handler{
		"POST": (*Hub).startUpload, "GET": (*Hub).uploadStatus, "PATCH": (*Hub).patchUpload,
		"PUT": (*Hub).finishUpload, "DELETE": (*Hub).cancelUpload,
	}},
	{"/blobs/", map[string]handler{"GET": (*Hub).getBlob, "HEAD": (*Hub).getBlob, "DELETE": (*Hub).deleteBlob}},
	{"/manifests/", map[string]handler{
		"GET": (*Hub).getManifest, "HEAD": (*Hub).getManifest, "PUT": (*Hub).putManifest, "DELETE": (*Hub).deleteManifest,
	}},
	{"/tags/list", map[string]handler{"GET": (*Hub).listTags}},
	{"/referrers/", map[string]handler{"GET": (*Hub).listReferrers}},
}

func (h *Hub) route(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	path := r.URL.Path
	switch {
	case path == "/v2" || path == "/v2/":
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.fail(w, r, unsupported(r))
			return
		}
		writeJSON(w, http.StatusOK, struct{}{})
		return
	case path == "/v2/_catalog":
		if r.Method != http.MethodGet {
			h.fail(w, r, unsupported(r))
			return
		}
		if err := h.catalog(w, r); err != nil {
			h.fail(w, r, err)
		}
		return
	case !strings.HasPrefix(path, "/v2/"):
		h.fail(w, r, refuse(http.StatusNotFound, "NAME_UNKNOWN", "%s is not part of the API, which begins with /v2/", path))
		return
	}
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
		if len(name) > maxName || !namePattern.MatchString(name) {
			h.fail(w, r, refuse(http.StatusBadRequest, "NAME_INVALID", "invalid repository name %q", name))
			return
		}
		serve := route.methods[r.Method]
		if serve == nil || route.infix == "/blobs/uploads/" && (arg == "") != (r.Method == http.MethodPost) {
			h.fail(w, r, unsupported(r))
			return
		}
		if err := serve(h, w, r, name, arg); err != nil {
			h.fail(w, r, err)
		}
		return
	}
	h.fail(w, r, refuse(http.StatusNotFound, "NAME_UNKNOWN", "no such address: %s", path))
}

// parseDigest accepts what the store can hold.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
		return "", refuse(http.StatusBadRequest, "DIGEST_INVALID", "invalid digest %q", s)
	}
	return d, nil
}
