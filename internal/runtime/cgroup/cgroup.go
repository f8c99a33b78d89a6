// Package cgroup is the runtime's and the engine's view of cgroups v1 and v2
// (cgroups(7), Documentation/admin-guide/cgroup-v2.rst). A Group is one
// container's directory, in every controller's hierarchy under v1.
//
// A hybrid machine, with controllers on v1 and a v2 tree that has none, counts as v1.
package cgroup

import (
	"path"
	"strings"

	"tare/internal/base/fault"
)

// Group is a container's cgroup. Its methods may be called from several goroutines.
type Group struct {
	path string // absolute, below the root of each hierarchy
	host Hierarchies
}

// Open returns the group at an OCI cgroupsPath such as "/tare/<instance>/<id>"; it need not exist.
func Open(cgroupsPath string) (*Group, error) {
	h, err := Mounted()
	if err != nil {
		return nil, err
	}
	return h.Open(cgroupsPath)
}

// Open is like the function, in these hierarchies.
func (h Hierarchies) Open(cgroupsPath string) (*Group, error) {
	if strings.Contains(cgroupsPath, ":") {
		return nil, fault.Unsupported("cgroup path %s: systemd's form is not supported by this runtime", cgroupsPath)
	}
	p := path.Clean("/" + cgroupsPath)
	if p == "/" {
		return nil, fault.Invalid("cgroup path %q names the root", cgroupsPath)
	}
	return &Group{path: p, host: h}, nil
}

// Path is the group's place below the root of each hierarchy.
func (g *Group) Path() string { return g.path }

// dir is the group's directory for a controller; "" if that is not mounted.
func (g *Group) dir(controller string) string {
	if g.host.V2 {
		controller = ""
	}
	m, ok := g.host.Controllers[controller]
	if !ok {
		return ""
	}
	return m + g.path
}

// dirs are all its directories, each once.
func (g *Group) dirs() []string {
	var list []string
	for _, m := range g.host.mounts() {
		list = append(list, m+g.path)
	}
	return list
}
