// Package pattern matches the names of repositories and tags.
//
//   - any characters of one component
//     **   any number of components: team/** is team/a and team/a/b, not team
//
// All other characters stand for themselves.
package pattern

import "strings"

// Match tells whether name fits pattern.
func Match(pattern, name string) bool {
	return components(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

// Any tells whether name fits one of patterns.
func Any(patterns []string, name string) bool {
	for _, p := range patterns {
		if Match(p, name) {
			return true
		}
	}
	return false
}

func components(patterns, names []string) bool {
	for len(patterns) > 0 {
		if patterns[0] == "**" {
			for len(patterns) > 1 && patterns[1] == "**" {
				patterns = patterns[1:]
			}
			if len(patterns) == 1 {
				return len(names) > 0
			}
			for i := range names {
				if components(patterns[1:], names[i:]) {
					return true
				}
			}
			return false
		}
		if len(names) == 0 || !component(patterns[0], names[0]) {
			return false
		}
		patterns, names = patterns[1:], names[1:]
	}
	return len(names) == 0
}

// component matches one component; it never looks back further than to the last star.
func component(pattern, name string) bool {
	star, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p, n = p+1, n+1
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
