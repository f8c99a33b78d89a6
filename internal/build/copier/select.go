// Package copier copies files of a source.Tree into a rootfs.Root: what COPY, ADD and WORKDIR do.
//
//	item   one file or folder that the sources name, after wildcards
//	sum    the digest of items: names, types, modes, contents; no times, no owners of a context
//
// A folder as source means its contents. Destinations are resolved inside the root; what is below them is
// created through descriptors of their folders, so nothing in source or root can lead out.
package copier

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"

	"tare/internal/base/fault"
	"tare/internal/build/source"
)

// Item is a selected file or folder.
type Item struct {
	Entry *source.Entry
	Name  string // under which it arrives in a folder; with Parents its path from the pivot
}

// Selection is what a COPY takes from a tree.
type Selection struct {
	Tree    source.Tree
	Items   []Item
	Parents bool
	exclude *patternmatcher.PatternMatcher
}

// Select finds the sources. A name without wildcards that is not there is NotFound, in Docker's words; word is COPY or ADD.
func Select(t source.Tree, word string, paths, exclude []string, parents bool) (*Selection, error) {
	s := &Selection{Tree: t, Parents: parents}
	if len(exclude) > 0 {
		m, err := patternmatcher.New(exclude)
		if err != nil {
			return nil, fault.Invalid("invalid --exclude: %w", err)
		}
		s.exclude = m
	}
	for _, p := range paths {
		pivot, rest := "/", p
		if before, after, ok := strings.Cut(p, "/./"); parents && ok {
			pivot, rest = path.Join("/", before), "/"+after
		}
		names := []string{path.Join(pivot, rest)}
		if wildcards(p) {
			var err error
			if names, err = expand(t, path.Join(pivot, rest)); err != nil {
				return nil, err
			}
		}
		for _, name := range names {
			e, err := t.Stat(name, true)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fault.NotFound("%s failed: file not found in build context or excluded by .dockerignore: stat %s: file does not exist", word, strings.TrimPrefix(p, "/"))
			}
			if err != nil {
				return nil, fmt.Errorf("%s failed: %w", word, err)
			}
			item := Item{Entry: e, Name: path.Base(name)}
			if parents {
				item.Name = strings.TrimPrefix(strings.TrimPrefix(name, pivot), "/")
			}
			s.Items = append(s.Items, item)
		}
	}
	if len(paths) > 0 && len(s.Items) == 0 {
		return nil, fault.NotFound("%s failed: no source files were specified", word)
	}
	return s, nil
}

func wildcards(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// expand finds the names that match a pattern, part by part, sorted.
func expand(t source.Tree, pattern string) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fault.Invalid("invalid wildcard %s: %w", pattern, err)
	}
	names := []string{"/"}
	for part := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		var next []string
		for _, dir := range names {
			if !wildcards(part) {
				if name := path.Join(dir, strings.ReplaceAll(part, `\`, "")); exists(t, name) {
					next = append(next, name)
				}
				continue
			}
			e, err := t.Stat(dir, true)
			if err != nil || !e.IsDir() {
				continue
			}
			list, err := t.List(e)
			if err != nil {
				return nil, err
			}
			for _, c := range list {
				if ok, _ := path.Match(part, c.Name); ok {
					next = append(next, path.Join(dir, c.Name))
				}
			}
		}
		names = next
	}
	return names, nil
}

func exists(t source.Tree, name string) bool {
	_, err := t.Stat(name, true)
	return err == nil
}

// excluded tells whether --exclude names an entry; rel is its path from the item's folder.
func (s *Selection) excluded(rel string) (bool, error) {
	if s.exclude == nil {
		return false, nil
	}
	return s.exclude.MatchesOrParentMatches(rel)
}

// Sum is the digest of what would be copied. With owners, they are part of it.
func (s *Selection) Sum(owners bool) (string, error) {
	h := sha256.New()
	for _, i := range s.Items {
		fmt.Fprintf(h, "item %q\n", i.Name)
		if err := s.sum(h, i.Entry, "", owners); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s *Selection) sum(h hash.Hash, e *source.Entry, rel string, owners bool) error {
	fmt.Fprintf(h, "%q %o %q %x", rel, uint32(e.Mode), e.Link, e.Dev)
	if owners {
		fmt.Fprintf(h, " %d:%d", e.UID, e.GID)
	}
	for _, k := range slices.Sorted(keys(e.Xattrs)) {
		fmt.Fprintf(h, " %q=%q", k, e.Xattrs[k])
	}
	if e.Mode.IsRegular() {
		sum := e.Sum
		if sum == nil {
			r, err := s.Tree.Open(e)
			if err != nil {
				return err
			}
			c := sha256.New()
			_, err = io.Copy(c, r)
			r.Close()
			if err != nil {
				return err
			}
			sum = c.Sum(nil)
		}
		fmt.Fprintf(h, " %x", sum)
	}
	io.WriteString(h, "\n")
	if !e.IsDir() {
		return nil
	}
	list, err := s.Tree.List(e)
	if err != nil {
		return err
	}
	for _, c := range list {
		at := path.Join(rel, c.Name)
		skip, err := s.excluded(at)
		if err != nil {
			return err
		}
		if skip && !c.IsDir() {
			continue
		}
		if err := s.sum(h, c, at, owners); err != nil {
			return err
		}
	}
	return nil
}

func keys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
