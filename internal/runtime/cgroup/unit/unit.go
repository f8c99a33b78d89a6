// Package unit knows where systemd puts the cgroup of a unit, by the names alone: an
// OCI cgroupsPath in systemd's form is "slice:prefix:name" (systemd.slice(5), systemd.scope(5)).
package unit

import (
	"path"
	"strings"

	"tare/internal/base/fault"
)

// Unit is what such a path stands for.
type Unit struct {
	Slice string // "machine-web.slice"
	Name  string // "docker-4f….scope", or a slice
}

// IsSlice tells whether a cgroup parent is the name of a slice: containers in it are scopes of systemd's.
func IsSlice(parent string) bool {
	return strings.HasSuffix(parent, ".slice") && !strings.Contains(parent, "/")
}

// PathIn is the cgroupsPath of something in a parent: of a scope "tare-<id>.scope" if that is a slice's name, else of a directory.
func PathIn(parent, id string) string {
	if IsSlice(parent) {
		return parent + ":tare:" + id
	}
	return "/" + strings.Trim(parent, "/") + "/" + id
}

// Is tells whether a cgroupsPath has systemd's form.
func Is(cgroupsPath string) bool { return strings.Contains(cgroupsPath, ":") }

// Parse takes "slice:prefix:name": the scope prefix-name.scope in the slice, system.slice if
// that is empty. A name that ends in .slice is that slice itself.
func Parse(s string) (*Unit, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return nil, fault.Invalid("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", s)
	}
	u := &Unit{Slice: parts[0], Name: parts[2]}
	if u.Slice == "" {
		u.Slice = "system.slice"
	}
	if _, err := slicePath(u.Slice); err != nil {
		return nil, err
	}
	if u.Name == "" {
		return nil, fault.Invalid("cgroup path %q names no unit", s)
	}
	if !strings.HasSuffix(u.Name, ".slice") {
		if parts[1] != "" {
			u.Name = parts[1] + "-" + u.Name
		}
		u.Name += ".scope"
	}
	if strings.ContainsAny(u.Name, "/\x00") || len(u.Name) > 255 {
		return nil, fault.Invalid("cgroup path %q: %q is not a unit's name", s, u.Name)
	}
	return u, nil
}

// Path is where systemd puts the unit, below its own root.
func (u *Unit) Path() string {
	dir, _ := slicePath(u.Slice)
	if u.IsSlice() {
		dir, _ = slicePath(u.Name)
		return dir
	}
	return path.Join(dir, u.Name)
}

// IsSlice tells whether it is a slice itself.
func (u *Unit) IsSlice() bool { return strings.HasSuffix(u.Name, ".slice") }

// slicePath is a slice's directory: dashes in its name are the tree, so that
// a-b.slice is /a.slice/a-b.slice. "-.slice" is the root.
func slicePath(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	switch {
	case !ok || name == "" || strings.ContainsAny(name, "/\x00"):
		return "", fault.Invalid("%q is not the name of a systemd slice", slice)
	case name == "-":
		return "/", nil
	}
	dir, up := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fault.Invalid("%q is not the name of a systemd slice", slice)
		}
		up += part
		dir = path.Join(dir, up+".slice")
		up += "-"
	}
	return dir, nil
}
