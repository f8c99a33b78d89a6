package hub

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tare/internal/hub/access"
)

// discovery is a call that asks what there is: tags, referrers (distribution-spec's "Content Discovery"), and repositories.
type discovery struct{ *call }

// lexical is distribution-spec's order of tags: alphanumeric without regard to case; tags that differ in nothing else by byte.
func lexical(a, b string) int {
	return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
}

func (s *shelf) tagsOf(name string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.repository(name), "_tags"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tags := make([]string, 0, len(entries))
	for _, e := range entries {
		if tagPattern.MatchString(e.Name()) {
			tags = append(tags, e.Name())
		}
	}
	slices.SortFunc(tags, lexical)
	return tags, nil
}

// listTags serves tags/list in lexical order, with n and last.
func (c discovery) listTags() error {
	if !c.known(c.name) {
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository %s is unknown to this registry", c.name)
	}
	tags, err := c.tagsOf(c.name)
	if err != nil {
		return err
	}
	if tags, err = c.page(tags, 0); err != nil {
		return err
	}
	return writeJSON(c.w, http.StatusOK, map[string]any{"name": c.name, "tags": tags})
}

// catalogPage is how many repositories are listed at once.
const catalogPage = 1000

// catalog lists the repositories that have manifests and that the caller may pull from.
func (c discovery) catalog() error {
	if c.access != nil && !c.who.proven {
		return guard{c.call}.challenge("")
	}
	names := []string{}
	for _, name := range c.index.names() {
		if (c.access == nil || c.access.Allowed(c.who.id, name, access.Pull)) && exists(filepath.Join(c.repository(name), "_manifests")) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, lexical)
	names, err := c.page(names, catalogPage)
	if err != nil {
		return err
	}
	return writeJSON(c.w, http.StatusOK, map[string]any{"repositories": names})
}

// page cuts a sorted list by the query's last and n, and sets Link if something follows. most is
// how many are given at once, 0 for all.
func (c discovery) page(all []string, most int) ([]string, error) {
	q := c.r.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearchFunc(all, last, lexical)
		if found {
			i++
		}
		all = all[i:]
	}
	n := most
	if q.Has("n") {
		var err error
		if n, err = strconv.Atoi(q.Get("n")); err != nil || n < 0 {
			return nil, refuse(http.StatusBadRequest, "UNSUPPORTED", "n=%s is not a number of entries", strings.ToValidUTF8(q.Get("n"), "?"))
		}
		if n == 0 {
			return []string{}, nil
		}
		if most > 0 {
			n = min(n, most)
		}
	}
	if n == 0 || n >= len(all) {
		return all, nil
	}
	all = all[:n]
	next := url.Values{"n": {strconv.Itoa(n)}, "last": {all[n-1]}}
	c.w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, c.r.URL.EscapedPath(), next.Encode()))
	return all, nil
}
