package network

import (
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Get finds a network by name, id or unique prefix.
func (m *Manager) Get(ref string) (network.Inspect, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, err := m.find(ref)
	if err != nil {
		return network.Inspect{}, err
	}
	return s.inspect(), nil
}

// List returns the networks that match (driver, id, label, name, scope, type, dangling), by name.
func (m *Manager) List(f filter.Args) ([]network.Inspect, error) {
	if err := f.Only("driver", "id", "label", "name", "scope", "type", "dangling"); err != nil {
		return nil, err
	}
	for _, t := range f["type"] {
		if t != "builtin" && t != "custom" {
			return nil, fault.Invalid("invalid filter: 'type'='%s'", t)
		}
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := []network.Inspect{}
	for _, s := range m.networks {
		ok := f.Match("driver", func(v string) bool { return v == s.Driver }) &&
			f.Match("id", func(v string) bool { return strings.HasPrefix(s.ID, v) || matches(v, s.ID) }) &&
			f.Match("name", func(v string) bool { return matches(v, s.Name) }) &&
			f.Match("scope", func(v string) bool { return v == s.Scope }) &&
			f.Match("type", func(v string) bool { return (v == "builtin") == s.builtin() }) &&
			f.Labels(s.Labels)
		if ok && f.Has("dangling") {
			ok = dangling == (!s.builtin() && len(s.endpoints) == 0)
		}
		if ok {
			out = append(out, s.inspect())
		}
	}
	slices.SortFunc(out, func(a, b network.Inspect) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// matches is how Docker's list filters compare: as a part of the value or as a regular expression.
func matches(pattern, value string) bool {
	if strings.Contains(value, pattern) {
		return true
	}
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(value)
}
