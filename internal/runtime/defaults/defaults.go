// Package defaults is Docker's default container as an OCI spec: mounts,
// devices and their rules, capabilities, masked and read-only paths, seccomp
// profile. It is pure; the engine and the builder change a fresh copy.
//
// The values are those of Docker 28 (moby, oci/defaults.go and profiles/seccomp).
package defaults

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Spec returns a fresh copy of the default Linux spec: private pid, mount,
// network, uts, ipc and cgroup namespaces, no process arguments, no cgroup path.
// linux.devices is empty: the runtime makes the devices that every container has.
func Spec() *specs.Spec {
	umask := uint32(0o022)
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Cwd:  "/",
			User: specs.User{Umask: &umask},
			Env:  []string{Path},
			Capabilities: &specs.LinuxCapabilities{
				Bounding:  Capabilities(),
				Permitted: Capabilities(),
				Effective: Capabilities(),
			},
		},
		Root:   &specs.Root{Path: "rootfs"},
		Mounts: mounts(),
		Linux: &specs.Linux{
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.CgroupNamespace},
			},
			Resources: &specs.LinuxResources{Devices: deviceRules()},
		},
	}
}

// Path is the search path of a process that brings none.
const Path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ShmSize is the size of /dev/shm in bytes.
const ShmSize = 64 << 20

func mounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
	}
}

// deviceRules deny everything but the devices of every container; the runtime adds ptys and mknod.
func deviceRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range [...][2]int64{{1, 5}, {1, 3}, {1, 9}, {1, 8}, {5, 0}, {5, 1}} {
		rules = append(rules, rule(true, d[0], d[1]))
	}
	return append(rules, rule(false, 10, 229)) // /dev/fuse
}

func rule(allow bool, major, minor int64) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
}

var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Capabilities returns the names of the default set ("CAP_CHOWN", …), sorted.
func Capabilities() []string { return slices.Clone(capabilities) }
