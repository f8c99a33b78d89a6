package plan

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/runtime"
	"tare/internal/runtime/defaults"
)

var update = flag.Bool("update", false, "write the golden files")

var v1 = Host{Cgroup: CgroupV1, CanRaiseLimits: true, Cgroups: map[string]string{
	"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory", "name=systemd": "/sys/fs/cgroup/systemd",
}}
var v2 = Host{Cgroup: CgroupV2, Cgroups: map[string]string{"": "/sys/fs/cgroup"}}

// overlay is the root of the goldens.
var overlay = &runtime.Overlay{Lower: []string{"/layers/b/fs", "/layers/a/fs"}, Upper: "/c/upper", Work: "/c/work"}

// base is the smallest container: each golden shows one feature over it.
func base() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}}},
	}
}

func ptr[T any](v T) *T { return &v }

func own(s *specs.Spec, kinds ...specs.LinuxNamespaceType) {
	for _, k := range kinds {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k})
	}
}

func mount(s *specs.Spec, dest, typ, source string, options ...string) {
	s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: typ, Source: source, Options: options})
}

// feature is one golden file.
type feature struct {
	name   string
	change func(s *specs.Spec)
	host   *Host
	root   *runtime.Overlay
}

func features() []feature {
	return []feature{
		{name: "base", change: func(*specs.Spec) {}},
		{name: "default", change: func(s *specs.Spec) {
			d := defaults.Spec()
			d.Process.Args, d.Hostname, d.Linux.CgroupsPath = []string{"sh"}, "box", "/tare/main/4f"
			*s = *d
		}},
		{name: "args-env", change: func(s *specs.Spec) {
			s.Process.Args, s.Process.Env = []string{"/bin/sh", "-c", "echo \"a b\""}, []string{"A=1", "B=ü"}
		}},
		{name: "capabilities", change: func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN", "CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
		}},
		{name: "cgroup-join-v1", change: func(s *specs.Spec) { s.Linux.CgroupsPath = "/tare/main/4f" }},
		{name: "cgroup-join-v2", change: func(s *specs.Spec) { s.Linux.CgroupsPath = "/tare/main/4f" }, host: &v2},
		{name: "cgroup-mount-v1", change: func(s *specs.Spec) {
			own(s, specs.CgroupNamespace)
			mount(s, "/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid")
		}},
		{name: "cgroup-mount-v1-host-namespace", change: func(s *specs.Spec) {
			s.Linux.CgroupsPath = "/tare/4f"
			mount(s, "/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid")
		}},
		{name: "cgroup-mount-v2", change: func(s *specs.Spec) {
			own(s, specs.CgroupNamespace)
			mount(s, "/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid")
		}, host: &v2},
		{name: "cgroup-mount-v2-host-namespace", change: func(s *specs.Spec) {
			s.Linux.CgroupsPath = "/tare/4f"
			mount(s, "/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid")
		}, host: &v2},
		{name: "cwd", change: func(s *specs.Spec) { s.Process.Cwd = "/srv/../app/" }},
		{name: "devices", change: func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: ptr(os.FileMode(0o600)), UID: ptr(uint32(1)), GID: ptr(uint32(2))},
				{Path: "/dev/null", Type: "u", Major: 1, Minor: 3}, {Path: "/dev/pipe", Type: "p"}, {Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2},
			}
		}},
		{name: "dev-of-host", change: func(s *specs.Spec) { mount(s, "/dev", "bind", "/dev", "rbind") }},
		{name: "dev-read-only", change: func(s *specs.Spec) { mount(s, "/dev", "tmpfs", "tmpfs", "ro", "mode=755") }},
		{name: "hostname", change: func(s *specs.Spec) { own(s, specs.UTSNamespace); s.Hostname, s.Domainname = "box", "example" }},
		{name: "masked-read-only-paths", change: func(s *specs.Spec) {
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/proc/kcore"}, []string{"/proc/sys"}
		}},
		{name: "mount-bind", change: func(s *specs.Spec) {
			mount(s, "/a", "bind", "/h/a", "bind")
			mount(s, "/b", "", "/h/b", "rbind", "ro", "nosuid", "rprivate")
			mount(s, "/c", "bind", "/h/c", "rbind", "rro", "rnoexec", "rslave")
			mount(s, "/d", "bind", "/h/d", "rbind", "rw", "dev", "noatime", "shared")
			mount(s, "/../../e/../f", "bind", "/h/f", "bind", "relatime")
		}},
		{name: "mount-tmpfs", change: func(s *specs.Spec) {
			mount(s, "/t", "tmpfs", "tmpfs", "nosuid", "noexec", "nodev", "size=1m", "mode=1777")
			mount(s, "/u", "tmpfs", "", "ro", "private")
		}},
		{name: "mount-other", change: func(s *specs.Spec) {
			mount(s, "/proc", "proc", "proc")
			mount(s, "/dev/mqueue", "mqueue", "mqueue", "strictatime", "lazytime")
		}},
		{name: "namespaces", change: func(s *specs.Spec) {
			own(s, specs.PIDNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.IPCNamespace, specs.CgroupNamespace)
		}},
		{name: "namespaces-joined", change: func(s *specs.Spec) {
			for _, k := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.IPCNamespace, specs.CgroupNamespace} {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k, Path: "/proc/7/ns/" + string(k)})
			}
		}},
		{name: "no-new-privileges", change: func(s *specs.Spec) { s.Process.NoNewPrivileges = true; s.Linux.Seccomp = small() }},
		{name: "oom-score", change: func(s *specs.Spec) { s.Process.OOMScoreAdj = ptr(-500); s.Linux.CgroupsPath = "/x" }},
		{name: "personality", change: func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }},
		{name: "read-only-root", change: func(s *specs.Spec) { s.Root = &specs.Root{Path: "rootfs", Readonly: true} }},
		{name: "rlimits", change: func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1048576}, {Type: "RLIMIT_CORE", Soft: ^uint64(0), Hard: ^uint64(0)}}
		}},
		{name: "rlimits-clamped", change: func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 8192, Hard: 1048576}, {Type: "RLIMIT_CORE", Soft: ^uint64(0), Hard: ^uint64(0)}}
		}, host: &Host{Cgroup: CgroupV2, Hard: map[string]uint64{"RLIMIT_NOFILE": 4096}}},
		{name: "root-path", change: func(s *specs.Spec) { s.Root = &specs.Root{Path: "/bundle/rootfs/"} }, root: nil, host: &v1},
		{name: "root-overlay-read-only", change: func(s *specs.Spec) {}, root: &runtime.Overlay{Lower: []string{"/layers/b/fs", "/layers/a/fs"}}},
		{name: "root-overlay-volatile", change: func(s *specs.Spec) {}, root: &runtime.Overlay{Lower: []string{"/l"}, Upper: "/u", Work: "/w", Volatile: true}},
		{name: "root-propagation", change: func(s *specs.Spec) { s.Linux.RootfsPropagation = "shared" }},
		{name: "user-namespace", change: func(s *specs.Spec) {
			own(s, specs.UserNamespace, specs.PIDNamespace)
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1}, {ContainerID: 1, HostID: 300000, Size: 10}}
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/run/netns/x"})
		}},
		{name: "user-namespace-joined", change: func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/7/ns/user"}, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: "/proc/7/ns/ipc"})
		}},
		{name: "time-namespace", change: func(s *specs.Spec) {
			own(s, specs.TimeNamespace)
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 172800, Nanosecs: 7}, "boottime": {Secs: -3}}
		}},
		{name: "mount-namespace-joined", change: func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/7/ns/mnt" }},
		{name: "mount-idmap", change: func(s *specs.Spec) {
			own(s, specs.UserNamespace)
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}}
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
			mount(s, "/a", "bind", "/h/a", "rbind", "ridmap")
			mount(s, "/b", "bind", "/h/b", "bind", "idmap")
			s.Mounts[1].UIDMappings, s.Mounts[1].GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5, Size: 1}}, ids
		}},
		{name: "mount-copy-up", change: func(s *specs.Spec) { mount(s, "/etc", "tmpfs", "tmpfs", "tmpcopyup", "size=1m", "nosuid", "rro") }},
		{name: "mount-remount", change: func(s *specs.Spec) {
			mount(s, "/proc", "proc", "proc", "remount", "ro")
			mount(s, "/etc", "bind", "", "bind", "remount", "ro", "nodev")
			mount(s, "/acl", "ext4", "/dev/vdb", "acl")
		}},
		{name: "hooks", change: func(s *specs.Spec) {
			h := func(p string) []specs.Hook {
				return []specs.Hook{{Path: p, Args: []string{"h", "a b"}, Env: []string{"A=1"}, Timeout: ptr(3)}}
			}
			s.Hooks = &specs.Hooks{Prestart: h("/pre"), CreateRuntime: h("/cr"), CreateContainer: h("/cc"), StartContainer: append(h("/sc"), specs.Hook{Path: "/sc2"}), Poststart: h("/ps"), Poststop: h("/pp")} //nolint:staticcheck // deprecated, still in the spec
			s.Linux.MaskedPaths = []string{"/proc/kcore"}
		}},
		{name: "net-devices", change: func(s *specs.Spec) {
			own(s, specs.NetworkNamespace)
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth7": {Name: "eth0"}}
		}},
		{name: "scheduler", change: func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: -5, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE, Priority: 3}
		}},
		{name: "memory-policy", change: func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0-1,65", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
		}},
		{name: "security-modules", change: func(s *specs.Spec) {
			s.Process.ApparmorProfile, s.Process.SelinuxLabel, s.Linux.MountLabel = "docker-default", "a:b:c:s0:c1,c2", "a:b:d:s0:c1,c2"
			mount(s, "/t", "tmpfs", "tmpfs")
		}, host: &Host{Cgroup: CgroupV2, AppArmor: true, SELinux: true}},
		{name: "oom-score-kept", change: func(s *specs.Spec) { s.Process.OOMScoreAdj = ptr(-500) }, host: &Host{Cgroup: CgroupV2}},
		{name: "seccomp-listener", change: func(s *specs.Spec) {
			s.Linux.Seccomp = small()
			s.Linux.Seccomp.Syscalls[0].Action, s.Linux.Seccomp.ListenerPath = specs.ActNotify, "/run/agent.sock"
		}},
		{name: "seccomp", change: func(s *specs.Spec) { s.Linux.Seccomp = small() }},
		{name: "sysctl", change: func(s *specs.Spec) {
			own(s, specs.NetworkNamespace, specs.IPCNamespace)
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/rp_filter": "2", "kernel.shmmax": "3", "fs.mqueue.msg_max": "4", "net.ipv4.conf.eth0/1.rp_filter": "5"}
		}},
		{name: "terminal", change: func(s *specs.Spec) {
			s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Width: 80, Height: 24}
			s.Process.User.UID = 7
		}},
		{name: "user", change: func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 100, AdditionalGids: []uint32{4, 24}, Umask: ptr(uint32(0o27))}
		}},
	}
}

func small() *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write", "execve"}, Action: specs.ActAllow}}}
}

// The goldens leave out what every container has; base.golden shows it.
func TestGolden(t *testing.T) {
	common := map[string]bool{}
	for i, f := range features() {
		t.Run(f.name, func(t *testing.T) {
			s := base()
			f.change(s)
			root, host := overlay, v1
			if f.root != nil {
				root = f.root
			} else if s.Root != nil && filepath.IsAbs(s.Root.Path) {
				root = nil
			}
			if f.host != nil {
				host = *f.host
			}
			p, err := CompileWith(s, root, host, Options{Runtime: true})
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, p)
			got := p.String()
			if i == 0 {
				for l := range strings.Lines(got) {
					common[l] = true
				}
			} else if f.name != "default" {
				got = without(got, common)
			}
			golden(t, f.name, got)
		})
	}
}

func without(text string, common map[string]bool) string {
	var b strings.Builder
	for l := range strings.Lines(text) {
		if common[l] {
			l = "…\n"
			if strings.HasSuffix(b.String(), l) {
				continue
			}
		}
		b.WriteString(l)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the plan changed (-update writes it):\n%s\nwas:\n%s", got, want)
	}
}

func roundTrip(t *testing.T, p *Plan) {
	t.Helper()
	steps, err := Unmarshal(p.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	for i := range steps {
		want := p.Steps[i]
		want.Why = ""
		if len(want.List) == 0 {
			want.List = nil
		}
		if len(want.Env) == 0 {
			want.Env = nil
		}
		if !reflect.DeepEqual(steps[i], want) {
			t.Errorf("step %d arrives as %+v, was %+v", i, steps[i], want)
		}
	}
}

func TestGoldenExec(t *testing.T) {
	s := base()
	own(s, specs.PIDNamespace, specs.NetworkNamespace, specs.CgroupNamespace)
	s.Linux.CgroupsPath, s.Linux.Seccomp = "/tare/main/4f", small()
	p := &specs.Process{Args: []string{"ps"}, Cwd: "/tmp", Terminal: true, OOMScoreAdj: ptr(3), User: specs.User{UID: 5}}
	for name, host := range map[string]Host{"exec-v1": v1, "exec-v2": v2} {
		plan, err := CompileExec(s, p, host)
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, plan)
		golden(t, name, plan.String())
	}
}

// What is not honoured is refused, by its name.
func TestRefused(t *testing.T) {
	unsupported, invalid := errdefs.IsNotImplemented, errdefs.IsInvalidArgument
	relative := []specs.Hook{{Path: "x"}}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}}
	for _, c := range []struct {
		want   string
		class  func(error) bool
		change func(s *specs.Spec)
	}{
		{"hooks.prestart[0].path \"x\" is not absolute", invalid, func(s *specs.Spec) { s.Hooks = &specs.Hooks{Prestart: relative} }}, //nolint:staticcheck // deprecated, still in the spec
		{"hooks.createRuntime[0].path", invalid, func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: relative} }},
		{"hooks.poststop[0].timeout 0 is not above 0", invalid, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x", Timeout: ptr(0)}}}
		}},
		{"vm", unsupported, func(s *specs.Spec) { s.VM = &specs.VM{} }},
		{"need a user namespace", invalid, func(s *specs.Spec) { s.Linux.UIDMappings = ids }},
		{"needs linux.uidMappings and gidMappings", invalid, func(s *specs.Spec) { own(s, specs.UserNamespace); s.Linux.UIDMappings = ids }},
		{"linux.uidMappings without the container's id 0", unsupported, func(s *specs.Spec) {
			own(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 1, HostID: 1, Size: 1}}, ids
		}},
		{"a size of 0", invalid, func(s *specs.Spec) {
			own(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, []specs.LinuxIDMapping{{}}
		}},
		{"beyond the highest id", invalid, func(s *specs.Spec) {
			own(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, []specs.LinuxIDMapping{{Size: 1<<32 - 1, HostID: 1}}
		}},
		{"process.user.uid 10 is not in the user namespace's mapping", invalid, func(s *specs.Spec) {
			own(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings, s.Process.User.UID = ids, ids, 10
		}},
		{"joining a mount namespace from a new user namespace", unsupported, func(s *specs.Spec) {
			own(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings, s.Linux.Namespaces[0].Path = ids, ids, "/x"
		}},
		{"linux.namespaces type x", unsupported, func(s *specs.Spec) { own(s, "x") }},
		{"without a mount namespace of its own", unsupported, func(s *specs.Spec) { s.Linux.Namespaces = nil }},
		{"names pid twice", invalid, func(s *specs.Spec) { own(s, specs.PIDNamespace, specs.PIDNamespace) }},
		{"not absolute", invalid, func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "x" }},
		{"linux.mountLabel needs SELinux", invalid, func(s *specs.Spec) { s.Linux.MountLabel = "x" }},
		{"linux.intelRdt", unsupported, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }},
		{"linux.netDevices need a network namespace", invalid, func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}} }},
		{"linux.timeOffsets need a new time namespace", invalid, func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} }},
		{"clock \"x\" is unknown", invalid, func(s *specs.Spec) {
			own(s, specs.TimeNamespace)
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"x": {}}
		}},
		{"more than a second", invalid, func(s *specs.Spec) {
			own(s, specs.TimeNamespace)
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Nanosecs: 1e9}}
		}},
		{"linux.memoryPolicy.mode \"\" is unknown", invalid, func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} }},
		{"linux.memoryPolicy.flags \"x\"", invalid, func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Flags: []specs.MemoryPolicyFlagType{"x"}}
		}},
		{"linux.memoryPolicy.nodes: \"3-1\"", invalid, func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "3-1"}
		}},
		{"linux.personality.flags", unsupported, func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"x"}}
		}},
		{"is not the name of a systemd slice", invalid, func(s *specs.Spec) { s.Linux.CgroupsPath = "a:b:c" }},
		{"process.apparmorProfile x needs AppArmor", invalid, func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }},
		{"process.selinuxLabel x needs SELinux", invalid, func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }},
		{"process.oomScoreAdj 1001", invalid, func(s *specs.Spec) { s.Process.OOMScoreAdj = ptr(1001) }},
		{"process.commandLine", unsupported, func(s *specs.Spec) { s.Process.CommandLine = "x" }},
		{"process.user.username", unsupported, func(s *specs.Spec) { s.Process.User.Username = "x" }},
		{"process.scheduler.policy \"\" is unknown", invalid, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} }},
		{"process.scheduler.flags \"x\"", invalid, func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"x"}}
		}},
		{"process.scheduler.flags SCHED_FLAG_UTIL_CLAMP_MIN", unsupported, func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagUtilClampMin}}
		}},
		{"process.scheduler.priority", invalid, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO} }},
		{"process.scheduler.priority is for", invalid, func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Priority: 1}
		}},
		{"process.scheduler.runtime", invalid, func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Runtime: 1}
		}},
		{"process.scheduler.nice 20", invalid, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} }},
		{"process.ioPriority.class", invalid, func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{} }},
		{"process.ioPriority.priority 8", invalid, func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}},
		{"mounts[0]: idmap needs mappings", invalid, func(s *specs.Spec) { mount(s, "/x", "bind", "/y", "idmap") }},
		{"mounts[0]: uidMappings and gidMappings go together", invalid, func(s *specs.Spec) {
			mount(s, "/x", "bind", "/y")
			s.Mounts[0].UIDMappings = ids
		}},
		{"mounts[0]: an id mapping is for bind mounts", invalid, func(s *specs.Spec) {
			mount(s, "/x", "tmpfs", "tmpfs", "idmap")
			s.Mounts[0].UIDMappings, s.Mounts[0].GIDMappings = ids, ids
		}},
		{"mounts[0]: tmpcopyup is for a tmpfs", invalid, func(s *specs.Spec) { mount(s, "/x", "bind", "/y", "tmpcopyup") }},
		{"recursive options are not for cgroup", invalid, func(s *specs.Spec) { mount(s, "/x", "cgroup", "cgroup", "rro") }},
		{"option foo is unknown for a bind", invalid, func(s *specs.Spec) { mount(s, "/x", "bind", "/y", "foo") }},
		{"bind source \"y\" is not absolute", invalid, func(s *specs.Spec) { mount(s, "/x", "bind", "y") }},
		{"has no type", invalid, func(s *specs.Spec) { mount(s, "/x", "", "y") }},
		{"has no destination", invalid, func(s *specs.Spec) { mount(s, "", "tmpfs", "y") }},
		{"a bind mount on /", unsupported, func(s *specs.Spec) { mount(s, "/", "bind", "/y") }},
		{"bound from the host", invalid, func(s *specs.Spec) {
			mount(s, "/dev", "bind", "/dev")
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c"}}
		}},
		{"type \"x\" is unknown", invalid, func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "x"}} }},
		{"linux.rootfsPropagation x", invalid, func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" }},
		{"needs a uts namespace", invalid, func(s *specs.Spec) { s.Hostname = "x" }},
		{"needs a network namespace", invalid, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.x": "1"} }},
		{"needs an ipc namespace", invalid, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.sem": "1"} }},
		{"not in a separate kernel namespace", invalid, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }},
		{"is not a key", invalid, func(s *specs.Spec) {
			own(s, specs.NetworkNamespace)
			s.Linux.Sysctl = map[string]string{"net/../kernel/core_pattern": "1"}
		}},
		{"unknown capability \"CAP_X\"", invalid, func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Ambient: []string{"CAP_X"}}
		}},
		{"RLIMIT_X is unknown", invalid, func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }},
		{"above the hard limit", invalid, func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 2, Hard: 1}} }},
		{"given twice", invalid, func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU"}, {Type: "RLIMIT_CPU"}}
		}},
		{"no command specified", invalid, func(s *specs.Spec) { s.Process.Args = nil }},
		{"process.cwd \"x\"", invalid, func(s *specs.Spec) { s.Process.Cwd = "x" }},
		{"zero byte", invalid, func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }},
		{"no process", invalid, func(s *specs.Spec) { s.Process = nil }},
		{"no linux section", invalid, func(s *specs.Spec) { s.Linux = nil }},
	} {
		s := base()
		c.change(s)
		_, err := CompileWith(s, overlay, v1, Options{Runtime: true})
		if err == nil || !strings.Contains(err.Error(), c.want) || !c.class(err) {
			t.Errorf("%s: %v", c.want, err)
		}
	}
	for _, o := range []*runtime.Overlay{{}, {Lower: []string{"x"}}, {Lower: []string{"/x"}, Upper: "/y"}, {Lower: []string{"/x"}, Upper: "y", Work: "/z"}} {
		if _, err := Compile(base(), o, v1); err == nil {
			t.Errorf("overlay %+v: no error", o)
		}
	}
	if _, err := Compile(base(), nil, v1); err == nil {
		t.Error("no root: no error")
	}
}

// Who runs no hooks refuses them.
func TestRefusedWithoutRuntime(t *testing.T) {
	hook := []specs.Hook{{Path: "/x"}}
	for want, change := range map[string]func(s *specs.Spec){
		"hooks.prestart":             func(s *specs.Spec) { s.Hooks = &specs.Hooks{Prestart: hook} }, //nolint:staticcheck // deprecated, still in the spec
		"hooks.createRuntime":        func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: hook} },
		"hooks.createContainer":      func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateContainer: hook} },
		"hooks.startContainer":       func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: hook} },
		"hooks.poststart":            func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststart: hook} },
		"hooks.poststop":             func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: hook} },
		"linux.seccomp.listenerPath": func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{ListenerPath: "/x"} },
		"linux.netDevices": func(s *specs.Spec) {
			own(s, specs.NetworkNamespace)
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}}
		},
	} {
		s := base()
		change(s)
		if _, err := Compile(s, overlay, v1); !errdefs.IsNotImplemented(err) || !strings.HasPrefix(err.Error(), want+" ") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	p, _ := Compile(base(), overlay, v1)
	f.Add(p.Marshal())
	f.Add([]byte{255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) { Unmarshal(b) })
}

// A spec comes from outsiders: whatever it says, it is compiled or refused.
func FuzzCompile(f *testing.F) {
	for _, feature := range features() {
		s := base()
		feature.change(s)
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := new(specs.Spec)
		if json.Unmarshal(b, s) != nil {
			return
		}
		for _, root := range []*runtime.Overlay{overlay, nil} {
			if p, err := CompileWith(s, root, v1, Options{Runtime: true}); err == nil {
				_ = p.String()
				roundTrip(t, p)
			}
		}
		if s.Process != nil {
			_, _ = CompileExec(s, s.Process, v2)
		}
	})
}

// Every operation has words of its own.
func TestEveryStepIsReadable(t *testing.T) {
	for op := OpNone + 1; op < opEnd; op++ {
		s := Step{Op: op, Num: make([]uint64, 7)}
		if got := s.String(); strings.HasPrefix(got, "unknown") {
			t.Errorf("%d: %s", op, got)
		}
	}
}
