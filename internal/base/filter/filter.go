// Package filter is the Engine API's filters parameter: for each key a set of
// values, of which one has to match; all keys have to.
package filter

import (
	"encoding/json"
	"slices"
	"strings"

	"tare/internal/base/fault"
)

// Args maps a key to its values, sorted.
type Args map[string][]string

// Parse decodes the query parameter: {"key":["v",…]} or the older {"key":{"v":true,…}}. "" is no filter.
func Parse(s string) (Args, error) {
	if s == "" {
		return nil, nil
	}
	args := Args{}
	var byMap map[string]map[string]bool
	if err := json.Unmarshal([]byte(s), &byMap); err == nil {
		for k, vs := range byMap {
			for v, on := range vs {
				if on {
					args[k] = append(args[k], v)
				}
			}
			slices.Sort(args[k])
		}
		return args, nil
	}
	var byList map[string][]string
	if err := json.Unmarshal([]byte(s), &byList); err != nil {
		return nil, fault.Invalid("invalid filter: %s", s)
	}
	for k, vs := range byList {
		slices.Sort(vs)
		args[k] = vs
	}
	return args, nil
}

// Only fails with Docker's words if a key is not among those allowed.
func (a Args) Only(allowed ...string) error {
	for k := range a {
		if !slices.Contains(allowed, k) {
			return fault.Invalid("invalid filter '%s'", k)
		}
	}
	return nil
}

// Has tells whether the key is filtered on at all.
func (a Args) Has(key string) bool { return len(a[key]) > 0 }

// Match reports whether the key is absent or one of its values is accepted.
func (a Args) Match(key string, accept func(value string) bool) bool {
	vs := a[key]
	return len(vs) == 0 || slices.ContainsFunc(vs, accept)
}

// Labels matches "label" (all of them have to hold) and "label!" (none may) against an object's labels.
func (a Args) Labels(labels map[string]string) bool {
	has := func(want string) bool {
		k, v, withValue := strings.Cut(want, "=")
		got, ok := labels[k]
		return ok && (!withValue || got == v)
	}
	for _, want := range a["label"] {
		if !has(want) {
			return false
		}
	}
	return !slices.ContainsFunc(a["label!"], has)
}

// Bool reads a boolean key; absent is def.
func (a Args) Bool(key string, def bool) (bool, error) {
	vs := a[key]
	if len(vs) == 0 {
		return def, nil
	}
	switch {
	case len(vs) == 1 && (vs[0] == "1" || vs[0] == "true"):
		return true, nil
	case len(vs) == 1 && (vs[0] == "0" || vs[0] == "false"):
		return false, nil
	}
	return false, fault.Invalid("invalid filter '%s=%v'", key, vs)
}
