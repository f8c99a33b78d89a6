package plan

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

func compileRoot(p *Plan, spec *specs.Spec, rootfs *runtime.Overlay) error {
	rp := spec.Linux.RootfsPropagation
	prop, ok := propagation[rp]
	switch {
	case rp == "":
		prop = unix.MS_SLAVE
	case !ok:
		return fault.Invalid("linux.rootfsPropagation %s is unknown", rp)
	case prop&unix.MS_UNBINDABLE != 0:
		prop = unix.MS_PRIVATE
	}
	// Nothing mounted from here on reaches the host, unless shared was asked for.
	p.add(Step{Op: OpPropagation, Why: "linux.rootfsPropagation", Path: "/", Prop: prop | unix.MS_REC})
	if rootfs == nil {
		if spec.Root == nil || !path.IsAbs(spec.Root.Path) {
			return fault.Invalid("root.path must be absolute")
		}
		p.add(Step{Op: OpRoot, Why: "root.path", Path: path.Clean(spec.Root.Path)})
		return nil
	}
	s, err := Overlay(rootfs)
	if err != nil {
		return err
	}
	p.add(s)
	return nil
}

// Overlay is the step that mounts the root from layers. Its Path is where: on the work directory, or without one on the topmost layer.
func Overlay(rootfs *runtime.Overlay) (Step, error) {
	if len(rootfs.Lower) == 0 {
		return Step{}, fault.Invalid("the root has no layers")
	}
	if (rootfs.Upper == "") != (rootfs.Work == "") {
		return Step{}, fault.Invalid("an overlay's upper and work directories go together")
	}
	s := Step{Op: OpOverlay, Why: "rootfs", List: rootfs.Lower, Source: rootfs.Upper, Type: rootfs.Work}
	if s.Path = rootfs.Work; s.Path == "" {
		s.Path = rootfs.Lower[0]
	}
	if rootfs.Volatile && rootfs.Upper != "" {
		s.Data = "volatile"
	}
	dirs := rootfs.Lower
	if rootfs.Upper != "" {
		dirs = append([]string{rootfs.Upper, rootfs.Work}, dirs...)
	}
	for _, dir := range dirs {
		if !path.IsAbs(dir) {
			return Step{}, fault.Invalid("overlay directory %s is not absolute", dir)
		}
	}
	return s, nil
}

func compileMounts(p *Plan, spec *specs.Spec, ns namespaces, host Host) error {
	var last []Step // what must wait until everything inside is made
	hostDev := false
	for i, m := range spec.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		if m.Destination == "" {
			return fault.Invalid("%s has no destination", field)
		}
		dest := path.Clean("/" + m.Destination)
		o := parseOptions(m.Options)
		ids, err := mountIDs(field, &m, o, spec)
		if err != nil {
			return err
		}
		isBind := m.Type == "bind" || o.flags&unix.MS_BIND != 0
		switch {
		case o.copyUp && (m.Type != "tmpfs" || isBind || o.flags&unix.MS_REMOUNT != 0):
			return fault.Invalid("%s: tmpcopyup is for a tmpfs", field)
		case ids != nil && (!isBind || o.flags&unix.MS_REMOUNT != 0):
			return fault.Invalid("%s: an id mapping is for bind mounts", field)
		case o.flags&unix.MS_REMOUNT != 0:
			s := Step{Op: OpRemount, Why: field, Path: dest, Set: o.set, Clear: o.clear, RecSet: o.recSet, RecClear: o.recClear, Prop: o.prop}
			if !isBind {
				s.Type, s.Flags, s.Data = m.Type, o.flags, strings.Join(o.data, ",")
				if s.Type == "" {
					s.Type = "none"
				}
			}
			p.add(s)
		case isBind:
			if dest == "/dev" {
				hostDev = true
			}
			below := ""
			for _, word := range o.data {
				sub, ok := strings.CutPrefix(word, "subpath=") // Tare's own: a path below the source, resolved inside it
				if !ok || sub == "" {
					return fault.Invalid("%s: option %s is unknown for a bind mount", field, word)
				}
				below = sub
			}
			if !path.IsAbs(m.Source) {
				return fault.Invalid("%s: bind source %q is not absolute", field, m.Source)
			}
			if dest == "/" {
				return unsupported(field + ": a bind mount on /")
			}
			s := Step{Op: OpBind, Why: field, Path: dest, Source: m.Source, Data: below, Flags: o.flags & unix.MS_REC,
				Set: o.set, Clear: o.clear, RecSet: o.recSet, RecClear: o.recClear, Prop: o.prop}
			if ids != nil {
				s.Num = ids.pack()
			}
			p.add(s)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			if o.recSet|o.recClear != 0 {
				return fault.Invalid("%s: recursive options are not for cgroup", field)
			}
			last = append(last, compileCgroupMount(p, spec, ns, host, field, dest, o)...)
		case m.Type == "":
			return fault.Invalid("%s has no type", field)
		default:
			src := m.Source
			if src == "" {
				src = m.Type
			}
			flags := o.flags
			if m.Type == "tmpfs" && dest == "/dev" && flags&unix.MS_RDONLY != 0 {
				flags &^= unix.MS_RDONLY
				last = append(last, Step{Op: OpAttr, Why: field, Path: dest, Set: unix.MOUNT_ATTR_RDONLY})
			}
			op := OpMount
			switch {
			case o.copyUp:
				op = OpCopyUp
			case m.Type == "tmpfs" && !slices.ContainsFunc(o.data, func(w string) bool { return strings.HasPrefix(w, "mode=") }):
				op = OpTmpfs
			}
			if l := spec.Linux.MountLabel; l != "" && m.Type != "proc" && m.Type != "sysfs" {
				o.data = append(o.data, quoted(l))
			}
			p.add(Step{Op: op, Why: field, Path: dest, Source: src, Type: m.Type, Flags: flags, Data: strings.Join(o.data, ","),
				RecSet: o.recSet, RecClear: o.recClear, Prop: o.prop})
		}
	}
	if hostDev {
		if len(spec.Linux.Devices) != 0 {
			return fault.Invalid("linux.devices can't be made in a /dev that is bound from the host")
		}
	} else if err := compileDev(p, spec, ns); err != nil {
		return err
	}
	p.Steps = append(p.Steps, last...)
	return nil
}

// mountIDs is the id mapping of a mount, nil without: its own, else with the idmap option the container's.
func mountIDs(field string, m *specs.Mount, o options, spec *specs.Spec) (*IDMap, error) {
	uids, gids := m.UIDMappings, m.GIDMappings
	switch {
	case (len(uids) == 0) != (len(gids) == 0):
		return nil, fault.Invalid("%s: uidMappings and gidMappings go together", field)
	case len(uids) == 0 && !o.idmap:
		return nil, nil
	case len(uids) == 0:
		if uids, gids = spec.Linux.UIDMappings, spec.Linux.GIDMappings; len(uids) == 0 || len(gids) == 0 {
			return nil, fault.Invalid("%s: idmap needs mappings, of the mount or of the container's user namespace", field)
		}
	}
	if err := errors.Join(checkMapping(field+".uidMappings", uids), checkMapping(field+".gidMappings", gids)); err != nil {
		return nil, err
	}
	return &IDMap{UIDs: uids, GIDs: gids, Recursive: o.ridmap}, nil
}

// compileCgroupMount shows the container its own cgroup. Under v1 every
// hierarchy is mounted in a tmpfs, by the name it has on the host. It returns
// the step that makes that tmpfs read-only.
func compileCgroupMount(p *Plan, spec *specs.Spec, ns namespaces, host Host, field, dest string, o options) []Step {
	own, _ := cgroupPath(spec.Linux.CgroupsPath, host) // joinCgroup refused what is wrong
	if host.Cgroup == CgroupV2 {
		if ns.private(unix.CLONE_NEWCGROUP) {
			p.add(Step{Op: OpMount, Why: field, Path: dest, Source: "cgroup", Type: "cgroup2", Flags: o.flags, Prop: o.prop})
		} else {
			p.add(Step{Op: OpBind, Why: field, Path: dest, Source: path.Join(host.Cgroups[""], own), Set: o.set, Clear: o.clear, Prop: o.prop})
		}
		return nil
	}
	p.add(Step{Op: OpMount, Why: field, Path: dest, Source: "tmpfs", Type: "tmpfs", Flags: o.flags &^ unix.MS_RDONLY, Data: "mode=755", Prop: o.prop})
	for _, h := range hierarchies(host) {
		base := path.Base(h.mount)
		at := path.Join(dest, base)
		if ns.private(unix.CLONE_NEWCGROUP) {
			p.add(Step{Op: OpMount, Why: field, Path: at, Source: "cgroup", Type: "cgroup", Flags: o.flags, Data: strings.Join(h.controllers, ","), Prop: o.prop})
		} else {
			p.add(Step{Op: OpBind, Why: field, Path: at, Source: path.Join(h.mount, own), Set: o.set, Clear: o.clear, Prop: o.prop})
		}
		for _, c := range h.controllers {
			if n := strings.TrimPrefix(c, "name="); n != base {
				p.add(Step{Op: OpSymlink, Why: field, Path: path.Join(dest, n), Source: base})
			}
		}
	}
	if o.flags&unix.MS_RDONLY == 0 {
		return nil
	}
	return []Step{{Op: OpAttr, Why: field, Path: dest, Set: unix.MOUNT_ATTR_RDONLY}}
}

// defaultDevices are those that every container has (runtime-spec config-linux.md, "Default Devices").
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

func compileDev(p *Plan, spec *specs.Spec, ns namespaces) error {
	inUser := ns.own&unix.CLONE_NEWUSER != 0
	add := func(s Step, source string) {
		if inUser && s.Type != "p" {
			s.Op, s.Source = OpHostDevice, source
		}
		p.add(s)
	}
	given := map[string]bool{}
	for _, d := range spec.Linux.Devices {
		given[path.Clean("/"+d.Path)] = true
	}
	for _, d := range defaultDevices {
		if !given[d.Path] {
			add(device(d, d.Path, "default devices"), d.Path)
		}
	}
	for i, d := range spec.Linux.Devices {
		at, typ := path.Clean("/"+d.Path), d.Type
		switch typ {
		case "c", "b", "p":
		case "u":
			d.Type = "c"
		default:
			return fault.Invalid("linux.devices[%d]: type %q is unknown", i, typ)
		}
		if at == "/dev/ptmx" {
			continue // the container's own, below
		}
		if d.Major < 0 || d.Minor < 0 {
			return fault.Invalid("linux.devices[%d]: %d:%d is no device's number", i, d.Major, d.Minor)
		}
		add(device(d, at, fmt.Sprintf("linux.devices[%d]", i)), at)
	}
	for _, l := range [...][2]string{
		{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"}, {"/dev/core", "/proc/kcore"}, {"/dev/ptmx", "pts/ptmx"},
	} {
		p.add(Step{Op: OpSymlink, Why: "default links", Path: l[0], Source: l[1]})
	}
	return nil
}

func device(d specs.LinuxDevice, at, why string) Step {
	mode, uid, gid := os.FileMode(0o666), uint32(0), uint32(0)
	if d.FileMode != nil {
		mode = *d.FileMode
	}
	if d.UID != nil {
		uid = *d.UID
	}
	if d.GID != nil {
		gid = *d.GID
	}
	return Step{Op: OpDevice, Why: why, Path: at, Type: d.Type,
		Num: []uint64{uint64(d.Major), uint64(d.Minor), uint64(mode & 0o7777), uint64(uid), uint64(gid)}}
}

// compileSeal comes when everything is in place: what is hidden and what can't be written.
func compileSeal(p *Plan, spec *specs.Spec) {
	for _, at := range spec.Linux.ReadonlyPaths {
		p.add(Step{Op: OpReadonly, Why: "linux.readonlyPaths", Path: path.Clean("/" + at)})
	}
	for _, at := range spec.Linux.MaskedPaths {
		p.add(Step{Op: OpMask, Why: "linux.maskedPaths", Path: path.Clean("/" + at)})
	}
	if spec.Root != nil && spec.Root.Readonly {
		p.add(Step{Op: OpAttr, Why: "root.readonly", Path: "/", Set: unix.MOUNT_ATTR_RDONLY})
	}
}
