package execute

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/runtime/defaults"

	"tare/internal/runtime/cgroup/unit"
)

// hostname of every step: one that changed would be noise in what steps write.
const hostname = "buildstep"

// spec describes the process: the default container, with the step's mounts and limits.
func (e *Executor) spec(id string, p Process) (*specs.Spec, error) {
	s := defaults.Spec()
	if s.Process == nil {
		s.Process = &specs.Process{}
	}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, defaults.Throttles(os.DirFS("/sys"))...)
	s.Root = &specs.Root{Path: "rootfs"}
	s.Hostname = hostname
	s.Process.Terminal = false
	s.Process.Args, s.Process.Env, s.Process.Cwd, s.Process.User = p.Args, p.Env, p.Cwd, p.User
	s.Process.Rlimits = append(s.Process.Rlimits, p.Rlimits...)
	if s.Linux.Seccomp == nil {
		var err error
		if s.Linux.Seccomp, err = defaults.Seccomp(defaults.Capabilities()); err != nil {
			return nil, err
		}
	}
	s.Linux.CgroupsPath = unit.PathIn(e.CgroupParent, id)
	if p.Limits != nil {
		if s.Linux.Resources == nil {
			s.Linux.Resources = &specs.LinuxResources{}
		}
		s.Linux.Resources.Memory, s.Linux.Resources.CPU = p.Limits.Memory, p.Limits.CPU
	}
	if p.Insecure {
		s.Linux.Seccomp, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
		all := everyCapability()
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		for i, m := range s.Mounts {
			if m.Type == "sysfs" || m.Type == "cgroup" {
				s.Mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
			}
		}
	}
	if p.Network == "host" {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	}
	own := []specs.Mount{
		Bind(filepath.Join(p.Dir, "resolv.conf"), "/etc/resolv.conf", true),
		Bind(filepath.Join(p.Dir, "hosts"), "/etc/hosts", true),
	}
	for _, m := range p.Mounts {
		own = slices.DeleteFunc(own, func(o specs.Mount) bool { return o.Destination == m.Destination })
		s.Mounts = slices.DeleteFunc(s.Mounts, func(o specs.Mount) bool { return o.Destination == m.Destination })
	}
	own = append(own, p.Mounts...)
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/"))
	})
	if p.ShmSize > 0 {
		for i, m := range s.Mounts {
			if m.Destination == "/dev/shm" {
				o := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "size=") })
				s.Mounts[i].Options = append(o, "size="+strconv.FormatInt(p.ShmSize, 10))
			}
		}
	}
	s.Mounts = append(s.Mounts, own...)
	return s, nil
}

// Bind is a bind mount of a host path.
func Bind(source, target string, readOnly bool) specs.Mount {
	o := []string{"rbind", "rprivate"}
	if readOnly {
		o = append(o, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: o}
}

// Tmpfs is a tmpfs mount; size in bytes, 0 for the kernel's default.
func Tmpfs(target string, size int64) specs.Mount {
	o := []string{"nosuid", "nodev", "mode=1777"}
	if size > 0 {
		o = append(o, "size="+strconv.FormatInt(size, 10))
	}
	return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: o}
}
