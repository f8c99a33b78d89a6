package hub

import (
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
)

// listTags serves tags/list in lexical order, with n and last.
func (h *Hub) listTags(w http.ResponseWriter, r *http.Request, name, _ string) error {
	if !h.known(name) {
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository %s is unknown to this registry", name)
	}
	entries, err := os.ReadDir(filepath.Join(h.repository(name), "_tags"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tags := []string{}
	for _, e := range entries {
		if tagPattern.MatchString(e.Name()) {
			tags = append(tags, e.Name())
		}
	}
	slices.Sort(tags)
	tags, err = page(w, r, tags)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"name": name, "tags": tags})
	return nil
}

// catalog lists the repositories that have manifests.
func (h *Hub) catalog(w http.ResponseWriter, r *http.Request) error {
	names := []string{}
	err := h.eachRepository(func(name string) error {
		if exists(filepath.Join(h.repository(name), "_manifests")) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	if names, err = page(w, r, names); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"repositories": names})
	return nil
}

// page cuts a sorted list by the query's last and n, and sets Link if something follows.
func page(w http.ResponseWriter, r *http.Request, all []string) ([]string, error) {
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(all, last)
		if found {
			i++
		}
		all = all[i:]
	}
	if !q.Has("n") {
		return all, nil
	}
	n, err := strconv.Atoi(q.Get("n"))
	if err != nil || n < 0 {
		return nil, refuse(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n=%s is not a number of entries", strings.ToValidUTF8(q.Get("n"), "?"))
	}
	if n >= len(all) {
		return all, nil
	}
	all = all[:n]
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {all[n-1]}}
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), next.Encode()))
	}
	return all, nil
}
