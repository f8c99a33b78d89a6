// Package cgroup is the runtime's and the engine's view of cgroups v1 and v2
// (cgroups(7), Documentation/admin-guide/cgroup-v2.rst). A Group is one
// container's directory, in every controller's hierarchy under v1.
//
// Three kinds of machine: v1, where each controller has a hierarchy; v2, where
// one tree has them all; hybrid, with v1 hierarchies and a v2 tree beside them,
// that has the controllers which v1 left it, mostly none. A group has a directory in
// all of them, and each controller is asked where it is.
//
// Two managers: with cgroupfs a group is a path, and its directories are made and
// removed here. With systemd it is a scope, a unit of systemd's, named by a cgroupsPath "slice:prefix:name";
// systemd makes it, shows it and knows its limits. The form of the path decides.
//
// One use:
//
//	g, err := cgroup.Open(spec.Linux.CgroupsPath)
//	err = g.Create(spec.Linux.Resources)  // limits are set, nobody is in it
//	…                                     // a process is born in g.Path(), or moves there itself
//	err = g.Settle()                      // now it holds the group
//	w, err := g.WatchOOM()                // a descriptor to wait on
//	err = g.Set(changed)
//	err = g.Remove()
package cgroup

import (
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup/unit"
)

// Group is a container's cgroup. Its methods may be called from several goroutines.
type Group struct {
	place
	unit *unit.Unit // systemd's; nil with cgroupfs
	bus  func() (bus, error)

	holder atomic.Pointer[holder] // between Create and Settle
	late   atomic.Pointer[string] // pids.max, to be written by Settle
}

// place is where a group is: its path, absolute, below the root of each of the host's hierarchies.
type place struct {
	path string
	host Hierarchies
}

// Open returns the group at an OCI cgroupsPath, which need not exist: a path such
// as "/tare/<instance>/<id>", or systemd's form "slice:prefix:name" (see IsUnit).
func Open(cgroupsPath string) (*Group, error) {
	h, err := Mounted()
	if err != nil {
		return nil, err
	}
	return h.Open(cgroupsPath)
}

// Open is like the function, in these hierarchies.
func (h Hierarchies) Open(cgroupsPath string) (*Group, error) {
	if IsUnit(cgroupsPath) {
		u, err := unit.Parse(cgroupsPath)
		if err != nil {
			return nil, err
		}
		return &Group{place: place{path.Join(SystemdRoot(), u.Path()), h}, unit: u, bus: systemBus}, nil
	}
	p := path.Clean("/" + cgroupsPath)
	if p == "/" {
		return nil, fault.Invalid("cgroup path %q names the root", cgroupsPath)
	}
	return &Group{place: place{p, h}}, nil
}

// Path is the group's place below the root of each hierarchy, whichever manager it
// has: what a plan needs to put a process into it.
func (g *Group) Path() string { return g.path }

// Unit is the name of the group's systemd unit, such as "docker-4f….scope"; "" with cgroupfs.
func (g *Group) Unit() string {
	if g.unit == nil {
		return ""
	}
	return g.unit.Name
}

// on finds a controller: the group's directory where its files are, and whether
// they are v2's. dir is "" if this machine has none.
func (g *place) on(controller string) (dir string, v2 bool) {
	if g.host.V2 {
		return g.host.Controllers[""] + g.path, true
	}
	if m, ok := g.host.Controllers[controller]; ok {
		return m + g.path, false
	}
	if g.host.inUnified(controller) {
		return g.host.Unified + g.path, true
	}
	return "", false
}

// dir is where a controller's files are; "" if this machine has none.
func (g *place) dir(controller string) string {
	dir, _ := g.on(controller)
	return dir
}

// v2 is the group's directory in the v2 tree; "" on a machine without one.
func (g *place) v2() string {
	switch {
	case g.host.V2:
		return g.host.Controllers[""] + g.path
	case g.host.Unified != "":
		return g.host.Unified + g.path
	}
	return ""
}

// dirs are all its directories, each once.
func (g *place) dirs() []string {
	var list []string
	for _, m := range g.host.mounts() {
		list = append(list, m+g.path)
	}
	return list
}

// IsUnit tells whether a cgroupsPath has systemd's form, "slice:prefix:name".
func IsUnit(cgroupsPath string) bool { return unit.Is(cgroupsPath) }

// SystemdRoot is the cgroup that systemd's tree begins at: its own, without the
// scope it put itself into. It is "/" but for a systemd in a container that sees its host's tree.
var SystemdRoot = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/1/cgroup")
	if err != nil {
		return "/"
	}
	return rootOf(string(b))
})

func rootOf(procCgroup string) string {
	root := "/"
	for line := range strings.Lines(procCgroup) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "" || f[1] == "name=systemd") {
			if at, ok := strings.CutSuffix(f[2], "/init.scope"); ok && at != "" {
				root = at
			}
		}
	}
	return root
}
