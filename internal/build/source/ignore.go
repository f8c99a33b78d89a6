package source

import (
	"bytes"
	"path"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"tare/internal/base/fault"
)

// Patterns reads a .dockerignore file.
func Patterns(text []byte) ([]string, error) { return ignorefile.ReadAll(bytes.NewReader(text)) }

// Prune removes what the patterns exclude; what is in an excluded folder stays if an exception names it.
func (a *Archive) Prune(patterns []string) error {
	if len(patterns) == 0 {
		return nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return fault.Invalid("invalid .dockerignore: %w", err)
	}
	_, err = a.prune(m, a.root, patternmatcher.MatchInfo{})
	return err
}

// prune reports whether something is left in dir.
func (a *Archive) prune(m *patternmatcher.PatternMatcher, dir *node, above patternmatcher.MatchInfo) (left bool, err error) {
	for name, n := range dir.children {
		rel := strings.TrimPrefix(path.Join(dir.Path, name), "/")
		match, info, err := m.MatchesUsingParentResults(rel, above)
		if err != nil {
			return false, fault.Invalid("invalid .dockerignore: %w", err)
		}
		keep := !match
		if n.IsDir() && (keep || m.Exclusions()) {
			some, err := a.prune(m, n, info)
			if err != nil {
				return false, err
			}
			keep = keep || some
		}
		if !keep {
			delete(dir.children, name)
			continue
		}
		left = true
	}
	return left, nil
}
