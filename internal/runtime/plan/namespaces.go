package plan

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup/unit"
)

var namespaceFlags = map[specs.LinuxNamespaceType]uint64{
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
	specs.UserNamespace:    unix.CLONE_NEWUSER,
	specs.TimeNamespace:    unix.CLONE_NEWTIME,
}

// namespaces says which kinds the container does not share with the host.
type namespaces struct {
	own uint64 // made or joined
	new uint64 // made
}

func (n namespaces) private(flag uint64) bool { return n.own&flag != 0 }

func compileNamespaces(p *Plan, spec *specs.Spec, host Host, opts Options) (namespaces, error) {
	var ns namespaces
	var joins []Step
	var user, clocks *Step
	for _, n := range spec.Linux.Namespaces {
		flag, ok := namespaceFlags[n.Type]
		if !ok {
			return ns, unsupported("linux.namespaces type " + string(n.Type))
		}
		if ns.own&flag != 0 {
			return ns, fault.Invalid("linux.namespaces names %s twice", n.Type)
		}
		ns.own |= flag
		join := Step{Op: OpSetns, Why: "linux.namespaces " + string(n.Type), Path: n.Path, Flags: flag}
		switch {
		case n.Path == "":
			ns.new |= flag
		case !path.IsAbs(n.Path):
			return ns, fault.Invalid("linux.namespaces path %s is not absolute", n.Path)
		case n.Type == specs.UserNamespace:
			user = &join
		case n.Type == specs.TimeNamespace:
			clocks = &join
		case n.Type == specs.PIDNamespace:
			p.PidNS = n.Path
		default:
			joins = append(joins, join)
		}
	}
	if ns.own&unix.CLONE_NEWNS == 0 {
		return ns, unsupported("a container without a mount namespace of its own")
	}
	p.Clone = ns.new &^ (unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME)
	if err := compileMappings(p, spec, ns); err != nil {
		return ns, err
	}
	if err := compileClocks(p, spec, ns); err != nil {
		return ns, err
	}
	if err := joinCgroup(p, spec, host); err != nil {
		return ns, err
	}
	// One that comes with a user namespace can't enter the host's once it is there.
	if ns.own&unix.CLONE_NEWUSER != 0 || clocks != nil {
		e := p.entrance()
		for _, j := range joins {
			if j.Flags == unix.CLONE_NEWNS && user == nil && ns.new&unix.CLONE_NEWUSER != 0 {
				return ns, unsupported("joining a mount namespace from a new user namespace")
			}
			e.Enter = append(e.Enter, j)
		}
		for _, j := range []*Step{clocks, user} {
			if j != nil {
				e.Enter = append(e.Enter, *j)
			}
		}
	} else {
		p.Steps = append(p.Steps, joins...)
	}
	if ns.new&unix.CLONE_NEWCGROUP != 0 {
		p.add(Step{Op: OpUnshare, Why: "linux.namespaces cgroup", Flags: unix.CLONE_NEWCGROUP})
	}
	if !opts.NoKeyring {
		p.add(Step{Op: OpKeyring, Why: "process"})
	}
	if ns.new&unix.CLONE_NEWNET != 0 {
		p.add(Step{Op: OpLoopback, Why: "linux.namespaces network"})
	}
	return ns, nil
}

// compileMappings checks the id mappings, which belong to a user namespace.
func compileMappings(p *Plan, spec *specs.Spec, ns namespaces) error {
	l := spec.Linux
	if ns.own&unix.CLONE_NEWUSER == 0 {
		if len(l.UIDMappings)+len(l.GIDMappings) != 0 {
			return fault.Invalid("linux.uidMappings and gidMappings need a user namespace")
		}
		return nil
	}
	if ns.new&unix.CLONE_NEWUSER == 0 {
		return nil // the one that is joined has its own; these say what it is
	}
	if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		return fault.Invalid("a new user namespace needs linux.uidMappings and gidMappings")
	}
	for _, m := range [...]struct {
		field string
		list  []specs.LinuxIDMapping
	}{{"linux.uidMappings", l.UIDMappings}, {"linux.gidMappings", l.GIDMappings}} {
		if err := checkMapping(m.field, m.list); err != nil {
			return err
		}
		if !mapped(m.list, 0) {
			return unsupported(m.field + " without the container's id 0")
		}
	}
	for _, id := range []struct {
		field string
		list  []specs.LinuxIDMapping
		id    uint32
	}{{"process.user.uid", l.UIDMappings, spec.Process.User.UID}, {"process.user.gid", l.GIDMappings, spec.Process.User.GID}} {
		if !mapped(id.list, id.id) {
			return fault.Invalid("%s %d is not in the user namespace's mapping", id.field, id.id)
		}
	}
	e := p.entrance()
	e.UIDs, e.GIDs = l.UIDMappings, l.GIDMappings
	return nil
}

func checkMapping(field string, list []specs.LinuxIDMapping) error {
	for _, m := range list {
		if m.Size == 0 {
			return fault.Invalid("%s: a size of 0", field)
		}
		if uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			return fault.Invalid("%s: %d:%d:%d goes beyond the highest id", field, m.ContainerID, m.HostID, m.Size)
		}
	}
	return nil
}

// mapped tells whether the container has that id.
func mapped(list []specs.LinuxIDMapping, id uint32) bool {
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return true
		}
	}
	return false
}

// compileClocks is linux.timeOffsets: what the container's clocks are ahead of the host's (time_namespaces(7)).
func compileClocks(p *Plan, spec *specs.Spec, ns namespaces) error {
	offsets := spec.Linux.TimeOffsets
	if ns.new&unix.CLONE_NEWTIME == 0 {
		if len(offsets) != 0 {
			return fault.Invalid("linux.timeOffsets need a new time namespace")
		}
		return nil
	}
	lines := []string{}
	for _, clock := range slices.Sorted(maps.Keys(offsets)) {
		o := offsets[clock]
		if clock != "monotonic" && clock != "boottime" {
			return fault.Invalid("linux.timeOffsets: clock %q is unknown", clock)
		}
		if o.Nanosecs >= 1e9 {
			return fault.Invalid("linux.timeOffsets %s: %d nanoseconds are more than a second", clock, o.Nanosecs)
		}
		lines = append(lines, fmt.Sprintf("%s %d %d", clock, o.Secs, o.Nanosecs))
	}
	p.entrance().Offsets = lines
	return nil
}

// joinCgroup makes the process move itself: writing another's pid would wait
// for a grace period of all CPUs, milliseconds on an idle machine. Under v1 it
// writes to tasks, not cgroup.procs, since only a single thread's own move is
// free of that wait; the stage does so from its main thread.
func joinCgroup(p *Plan, spec *specs.Spec, host Host) error {
	dir := spec.Linux.CgroupsPath
	if dir == "" {
		return nil
	}
	dir, err := cgroupPath(dir, host)
	if err != nil {
		return err
	}
	if host.Cgroup == CgroupV2 {
		p.CgroupDir = path.Join(host.Cgroups[""], dir)
		return nil
	}
	if host.Unified != "" {
		p.CgroupDir = path.Join(host.Unified, dir)
	}
	for _, h := range hierarchies(host) {
		p.add(Step{Op: OpCgroup, Why: "linux.cgroupsPath", Path: path.Join(h.mount, dir, "tasks")})
	}
	return nil
}

// cgroupPath is where a cgroupsPath is, below the root of each hierarchy; in systemd's form, where systemd will have put its unit.
func cgroupPath(p string, host Host) (string, error) {
	if !unit.Is(p) {
		return path.Clean("/" + p), nil
	}
	u, err := unit.Parse(p)
	if err != nil {
		return "", err
	}
	return path.Join("/", host.SystemdRoot, u.Path()), nil
}

// hierarchy is one mounted v1 tree; several controllers may share it.
type hierarchy struct {
	mount       string
	controllers []string
}

func hierarchies(host Host) []hierarchy {
	byMount := map[string][]string{}
	for c, m := range host.Cgroups {
		byMount[m] = append(byMount[m], c)
	}
	var hs []hierarchy
	for m, cs := range byMount {
		slices.Sort(cs)
		hs = append(hs, hierarchy{m, cs})
	}
	slices.SortFunc(hs, func(a, b hierarchy) int { return strings.Compare(a.mount, b.mount) })
	return hs
}
