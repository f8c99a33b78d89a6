package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"tare/internal/base/fault"
)

// maxTags bounds what a registry that never ends its list can make us keep.
const maxTags = 1 << 20

// Tags lists all tags of the repository, page by page, in the registry's order.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	rq := request{method: http.MethodGet, path: "tags/list", query: url.Values{"n": {"1000"}}, byTag: true}
	for seen := map[string]bool{}; ; {
		rs, err := r.do(ctx, rq)
		if err != nil {
			return nil, pullError(r.name, err)
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		body, done := r.c.small(rs.Body)
		err = json.NewDecoder(io.LimitReader(body, 16<<20)).Decode(&page)
		done()
		if err != nil {
			return nil, fault.Unavailable("cannot read the tags of %s: %w", r.name, err)
		}
		if tags = append(tags, page.Tags...); len(tags) > maxTags {
			return nil, fault.Invalid("repository %s has more than %d tags", r.name, maxTags)
		}
		next := nextPage(rs.Header, rs.Request.URL)
		if next == "" || seen[next] {
			return tags, nil
		}
		seen[next] = true
		rq = request{method: http.MethodGet, path: next, byTag: true}
	}
}

// nextPage reads the Link header's rel="next" (RFC 8288), "" if there is none.
func nextPage(h http.Header, base *url.URL) string {
	for _, v := range h.Values("Link") {
		for _, link := range strings.Split(v, ",") {
			target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
			if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
				continue
			}
			u, err := base.Parse(target[1:])
			if err != nil || u.Host != base.Host {
				continue
			}
			return u.RequestURI()
		}
	}
	return ""
}
