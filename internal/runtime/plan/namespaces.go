package plan

import (
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
}

// namespaces says which kinds the container does not share with the host.
type namespaces struct {
	own uint64 // made or joined
	new uint64 // made
}

func (n namespaces) private(flag uint64) bool { return n.own&flag != 0 }

func compileNamespaces(p *Plan, spec *specs.Spec, host Host) (namespaces, error) {
	var ns namespaces
	var joins []Step
	for _, n := range spec.Linux.Namespaces {
		flag, ok := namespaceFlags[n.Type]
		if !ok {
			return ns, unsupported("linux.namespaces type " + string(n.Type))
		}
		if ns.own&flag != 0 {
			return ns, fault.Invalid("linux.namespaces names %s twice", n.Type)
		}
		ns.own |= flag
		switch {
		case n.Path == "":
			ns.new |= flag
		case !path.IsAbs(n.Path):
			return ns, fault.Invalid("linux.namespaces path %s is not absolute", n.Path)
		case n.Type == specs.MountNamespace:
			return ns, unsupported("joining a mount namespace by path")
		case n.Type == specs.PIDNamespace:
			p.PidNS = n.Path
		default:
			joins = append(joins, Step{Op: OpSetns, Why: "linux.namespaces " + string(n.Type), Path: n.Path, Flags: flag})
		}
	}
	if ns.new&unix.CLONE_NEWNS == 0 {
		return ns, unsupported("a container without its own mount namespace")
	}
	p.Clone = ns.new &^ unix.CLONE_NEWCGROUP
	if err := joinCgroup(p, spec, host); err != nil {
		return ns, err
	}
	p.Steps = append(p.Steps, joins...)
	if ns.new&unix.CLONE_NEWCGROUP != 0 {
		p.add(Step{Op: OpUnshare, Why: "linux.namespaces cgroup", Flags: unix.CLONE_NEWCGROUP})
	}
	p.add(Step{Op: OpKeyring, Why: "process"})
	if ns.new&unix.CLONE_NEWNET != 0 {
		p.add(Step{Op: OpLoopback, Why: "linux.namespaces network"})
	}
	return ns, nil
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
