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
	"maps"
	"path"
	"slices"
	"strconv"
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
	m := summing{s: s, h: sha256.New(), owners: owners, buf: make([]byte, 0, 64<<10)}
	for _, i := range s.Items {
		m.buf = append(strconv.AppendQuote(append(m.buf, "item "...), i.Name), '\n')
		if err := m.entry(i.Entry, ""); err != nil {
			return "", err
		}
	}
	m.h.Write(m.buf)
	return hex.EncodeToString(m.h.Sum(nil)), nil
}

// summing hashes lines, many at once.
type summing struct {
	s      *Selection
	h      hash.Hash
	owners bool
	buf    []byte
}

func (m *summing) entry(e *source.Entry, rel string) error {
	b := m.buf
	b = strconv.AppendQuote(b, rel)
	b = strconv.AppendUint(append(b, ' '), uint64(e.Mode), 8)
	b = strconv.AppendQuote(append(b, ' '), e.Link)
	b = strconv.AppendUint(append(b, ' '), e.Dev, 16)
	if m.owners {
		b = fmt.Appendf(b, " %d:%d", e.UID, e.GID)
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		b = fmt.Appendf(b, " %q=%q", k, e.Xattrs[k])
	}
	if e.Mode.IsRegular() {
		sum := e.Sum
		if sum == nil {
			var err error
			if sum, err = m.content(e); err != nil {
				return err
			}
		}
		b = hex.AppendEncode(append(b, ' '), sum)
	}
	m.buf = append(b, '\n')
	if len(m.buf) > 60<<10 {
		m.h.Write(m.buf)
		m.buf = m.buf[:0]
	}
	if !e.IsDir() {
		return nil
	}
	list, err := m.s.Tree.List(e)
	if err != nil {
		return err
	}
	for _, c := range list {
		at := path.Join(rel, c.Name)
		skip, err := m.s.excluded(at)
		if err != nil {
			return err
		}
		if skip {
			continue
		}
		if err := m.entry(c, at); err != nil {
			return err
		}
	}
	return nil
}

func (m *summing) content(e *source.Entry) ([]byte, error) {
	r, err := m.s.Tree.Open(e)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c := sha256.New()
	_, err = io.Copy(c, r)
	return c.Sum(nil), err
}

// Files calls f for every regular file that would be copied.
func (s *Selection) Files(f func(*source.Entry)) error {
	return s.All(func(e *source.Entry) {
		if e.Mode.IsRegular() {
			f(e)
		}
	})
}

// All calls f for everything that would be copied.
func (s *Selection) All(f func(*source.Entry)) error {
	var down func(e *source.Entry, rel string) error
	down = func(e *source.Entry, rel string) error {
		f(e)
		if !e.IsDir() {
			return nil
		}
		list, err := s.Tree.List(e)
		if err != nil {
			return err
		}
		for _, c := range list {
			at := path.Join(rel, c.Name)
			if skip, err := s.excluded(at); err != nil {
				return err
			} else if skip {
				continue
			}
			if err := down(c, at); err != nil {
				return err
			}
		}
		return nil
	}
	for _, i := range s.Items {
		if err := down(i.Entry, ""); err != nil {
			return err
		}
	}
	return nil
}
