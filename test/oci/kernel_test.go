package oci

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// kernel: host names, sysctls, personality, memory policy, what this kernel may lack.
func kernel() []clause {
	sysctl := func(kv map[string]string) edit { return onLinux(func(l *specs.Linux) { l.Sysctl = kv }) }
	return []clause{
		{"kernel/hostname", "config.md, hostname", func(c *check) {
			c.equal("hostname", c.sh("hostname", func(s *specs.Spec) { s.Hostname = "a.name" }), "a.name")
		}},
		{"kernel/hostname-unset", "config.md, hostname", func(c *check) {
			h, _ := os.Hostname()
			c.equal("hostname", c.sh("hostname", func(s *specs.Spec) { s.Hostname = "" }), h)
		}},
		{"kernel/domainname", "config.md, domainname; runc, hostname.bats", func(c *check) {
			c.equal("domainname", c.sh("cat /proc/sys/kernel/domainname", func(s *specs.Spec) { s.Domainname = "example.org" }), "example.org")
		}},
		{"kernel/sysctl-net", "config-linux.md, Sysctl", func(c *check) {
			c.equal("value", c.sh("cat /proc/sys/net/ipv4/ip_forward", sysctl(map[string]string{"net.ipv4.ip_forward": "1"})), "1")
		}},
		{"kernel/sysctl-ipc", "config-linux.md, Sysctl", func(c *check) {
			c.equal("value", c.sh("cat /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/queues_max", sysctl(map[string]string{"kernel.shmmni": "512", "fs.mqueue.queues_max": "100"})), "512\n100")
		}},
		{"kernel/sysctl-with-slashes", "config-linux.md, Sysctl; sysctl(8)", func(c *check) {
			c.equal("value", c.sh("cat /proc/sys/net/ipv4/conf/lo/forwarding", sysctl(map[string]string{"net/ipv4/conf/lo/forwarding": "1"})), "1")
		}},
		{"kernel/sysctl-of-the-host-is-refused", "config-linux.md, Sysctl; runc, validator", func(c *check) {
			c.refused(sysctl(map[string]string{"vm.swappiness": "60"}))
		}},
		{"kernel/sysctl-net-needs-a-namespace", "config-linux.md, Sysctl; runc, validator", func(c *check) {
			c.refused(without(specs.NetworkNamespace), sysctl(map[string]string{"net.ipv4.ip_forward": "0"}))
		}},
		{"kernel/sysctl-that-is-missing-fails", "config-linux.md, Sysctl", func(c *check) {
			c.refused(sysctl(map[string]string{"net.no.such.key": "1"}))
		}},
		{"kernel/personality", "config-linux.md, Personality; runc, personality.bats", func(c *check) {
			c.equal("personality", c.probe([]string{"personality"}, onLinux(func(l *specs.Linux) { l.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} })), "0x8")
		}},
		{"kernel/personality-linux", "config-linux.md, Personality", func(c *check) {
			c.equal("personality", c.probe([]string{"personality"}, onLinux(func(l *specs.Linux) { l.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} })), "0x0")
		}},
		{"kernel/personality-unknown", "config-linux.md, Personality", func(c *check) {
			c.refused(onLinux(func(l *specs.Linux) { l.Personality = &specs.LinuxPersonality{Domain: "NONSENSE"} }))
		}},
		{"kernel/personality-of-exec", "runc, personality.bats", func(c *check) {
			ct := c.running(onLinux(func(l *specs.Linux) { l.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }))
			c.equal("personality", ct.exec("/bin/"+probeName, "personality"), "0x8")
		}},
		{"kernel/memory-policy", "config-linux.md, Memory policy; runc, memorypolicy.bats", func(c *check) {
			out := c.probe([]string{"mempolicy"}, onLinux(func(l *specs.Linux) {
				l.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0"}
			}))
			c.equal("policy", out, "3")
		}},
		{"kernel/intel-rdt-is-not-ignored", "config-linux.md, IntelRdt", func(c *check) {
			if _, err := os.Stat("/sys/fs/resctrl/schemata"); err == nil {
				return
			}
			c.refused(onLinux(func(l *specs.Linux) { l.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"} }))
		}},
		{"kernel/net-devices", "config-linux.md, Network Devices; runc, netdev.bats", func(c *check) {
			name := "tdum" + strconv.Itoa(os.Getpid()%10000) + strconv.Itoa(len(c.dir)%10)
			if out := c.onHost("ip", "link", "add", name, "type", "veth", "peer", "name", name+"p"); out != "" {
				c.failf("%s", out)
			}
			c.cleanup(func() { c.onHost("ip", "link", "delete", name) })
			c.contains("link", c.sh("busybox ip link show inner", onLinux(func(l *specs.Linux) { l.NetDevices = map[string]specs.LinuxNetDevice{name: {Name: "inner"}} })), "inner")
		}},
		{"kernel/version-of-the-spec", "config.md, ociVersion", func(c *check) {
			c.refused(func(s *specs.Spec) { s.Version = "99.0.0" })
		}},
	}
}

// filters: seccomp.
func filters() []clause {
	profile := func(p *specs.LinuxSeccomp) edit {
		return func(s *specs.Spec) {
			s.Linux.Seccomp = p
			capabilities("CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYSLOG")(s)
		}
	}
	native := []specs.Arch{specs.ArchX86_64}
	if runtime.GOARCH == "arm64" {
		native = []specs.Arch{specs.ArchAARCH64}
	}
	call := func(action specs.LinuxSeccompAction, errno *uint, a []specs.LinuxSeccompArg, names ...string) edit {
		return profile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: native, Syscalls: []specs.LinuxSyscall{{Names: names, Action: action, ErrnoRet: errno, Args: a}}})
	}
	try := func(c *check, e edit, nr int, a ...string) string {
		return c.probe(append([]string{"call", strconv.Itoa(nr)}, a...), e)
	}
	list := []clause{
		{"seccomp/errno", "config-linux.md, Seccomp", func(c *check) {
			c.equal("the call", try(c, call(specs.ActErrno, nil, nil, "sched_get_priority_max"), unix.SYS_SCHED_GET_PRIORITY_MAX, "0"), "EPERM")
		}},
		{"seccomp/errno-ret", "config-linux.md, Seccomp (errnoRet)", func(c *check) {
			c.equal("the call", try(c, call(specs.ActErrno, ptr(uint(unix.EXDEV)), nil, "sched_get_priority_max"), unix.SYS_SCHED_GET_PRIORITY_MAX, "0"), "EXDEV")
		}},
		{"seccomp/default-errno-ret", "config-linux.md, Seccomp (defaultErrnoRet)", func(c *check) {
			e := func(s *specs.Spec) {
				call(specs.ActErrno, ptr(uint(unix.EXDEV)), nil, "sched_get_priority_max")(s)
				s.Linux.Seccomp.DefaultErrnoRet = nil
			}
			c.equal("the call", try(c, e, unix.SYS_SCHED_GET_PRIORITY_MAX, "0"), "EXDEV")
		}},
		{"seccomp/other-calls-are-allowed", "config-linux.md, Seccomp", func(c *check) {
			c.equal("getpid", try(c, call(specs.ActErrno, nil, nil, "sched_get_priority_max"), unix.SYS_GETPID), "done")
		}},
		{"seccomp/kill-process", "config-linux.md, Seccomp (SCMP_ACT_KILL_PROCESS)", func(c *check) {
			ct := c.prepare(script("/bin/"+probeName+" call "+strconv.Itoa(unix.SYS_SCHED_GET_PRIORITY_MAX)+" 0; echo $?"), call(specs.ActKillProcess, nil, nil, "sched_get_priority_max"))
			c.contains("exit code", ct.run(), "159")
		}},
		{"seccomp/kill", "config-linux.md, Seccomp (SCMP_ACT_KILL)", func(c *check) {
			ct := c.prepare(args("mkdir", "/tmp/x"), call(specs.ActKill, nil, nil, "mkdir", "mkdirat"))
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it goes on")
			}
			if _, err := os.Stat(ct.rootfs("tmp/x")); err == nil {
				c.failf("the folder was made")
			}
		}},
		{"seccomp/trap", "config-linux.md, Seccomp (SCMP_ACT_TRAP)", func(c *check) {
			ct := c.prepare(script("mkdir /tmp/x; echo $?"), call(specs.ActTrap, nil, nil, "mkdir", "mkdirat"))
			c.contains("exit code", ct.run(), "159")
		}},
		{"seccomp/log", "config-linux.md, Seccomp (SCMP_ACT_LOG)", func(c *check) {
			c.equal("getpid", try(c, call(specs.ActLog, nil, nil, "getpid"), unix.SYS_GETPID), "done")
		}},
		{"seccomp/trace-without-a-tracer", "config-linux.md, Seccomp (SCMP_ACT_TRACE)", func(c *check) {
			c.equal("the call", try(c, call(specs.ActTrace, ptr(uint(5)), nil, "sched_get_priority_max"), unix.SYS_SCHED_GET_PRIORITY_MAX, "0"), "ENOSYS")
		}},
		{"seccomp/allow-over-a-default", "config-linux.md, Seccomp (defaultAction)", func(c *check) {
			e := profile(&specs.LinuxSeccomp{DefaultAction: specs.ActLog, Architectures: native, Syscalls: []specs.LinuxSyscall{{Names: []string{"getpid", "write"}, Action: specs.ActAllow}}})
			c.equal("getpid", try(c, e, unix.SYS_GETPID), "done")
		}},
		{"seccomp/two-conditions", "config-linux.md, Seccomp (args, and)", func(c *check) {
			a := []specs.LinuxSeccompArg{{Index: 0, Value: 11, Op: specs.OpEqualTo}, {Index: 1, Value: 22, Op: specs.OpEqualTo}}
			e := call(specs.ActErrno, ptr(uint(unix.EXDEV)), a, "getpriority")
			c.equal("both", try(c, e, unix.SYS_GETPRIORITY, "11", "22"), "EXDEV")
			c.equal("one", try(c, e, unix.SYS_GETPRIORITY, "11", "23"), "EINVAL")
		}},
		{"seccomp/unknown-names-are-ignored", "runc, seccomp.bats", func(c *check) {
			c.equal("getpid", try(c, call(specs.ActErrno, nil, nil, "no_such_call_at_all", "sched_get_priority_max"), unix.SYS_GETPID), "done")
		}},
		{"seccomp/unknown-action-fails", "config-linux.md, Seccomp", func(c *check) { c.refused(call("SCMP_ACT_NONSENSE", nil, nil, "sched_get_priority_max")) }},
		{"seccomp/unknown-operator-fails", "config-linux.md, Seccomp", func(c *check) {
			c.refused(call(specs.ActErrno, nil, []specs.LinuxSeccompArg{{Index: 0, Op: "SCMP_CMP_NONSENSE"}}, "sched_get_priority_max"))
		}},
		{"seccomp/unknown-architecture-fails", "config-linux.md, Seccomp", func(c *check) {
			c.refused(profile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_NONSENSE"}, Syscalls: []specs.LinuxSyscall{{Names: []string{"sched_get_priority_max"}, Action: specs.ActErrno}}}))
		}},
		{"seccomp/flags", "config-linux.md, Seccomp (flags)", func(c *check) {
			e := func(s *specs.Spec) {
				call(specs.ActErrno, nil, nil, "sched_get_priority_max")(s)
				s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}
			}
			c.equal("the call", try(c, e, unix.SYS_SCHED_GET_PRIORITY_MAX, "0"), "EPERM")
		}},
		{"seccomp/status-tells", "config-linux.md, Seccomp", func(c *check) {
			c.equal("Seccomp", field(c.sh("cat /proc/self/status", call(specs.ActErrno, nil, nil, "sched_get_priority_max")), "Seccomp"), "2")
			c.equal("Seccomp", field(c.sh("cat /proc/self/status"), "Seccomp"), "0")
		}},
		{"seccomp/with-no-new-privileges", "config-linux.md, Seccomp", func(c *check) {
			e := call(specs.ActErrno, nil, nil, "sched_get_priority_max")
			c.equal("the call", try(c, func(s *specs.Spec) { e(s); s.Process.NoNewPrivileges = true; capabilities()(s) }, unix.SYS_SCHED_GET_PRIORITY_MAX, "0"), "EPERM")
		}},
		{"seccomp/without-capabilities", "runc, seccomp.bats", func(c *check) {
			e := call(specs.ActErrno, nil, nil, "sched_get_priority_max")
			c.equal("the call", try(c, func(s *specs.Spec) { e(s); capabilities()(s) }, unix.SYS_SCHED_GET_PRIORITY_MAX, "0"), "EPERM")
		}},
		{"seccomp/of-exec", "runc, seccomp.bats", func(c *check) {
			ct := c.running(call(specs.ActErrno, ptr(uint(unix.EXDEV)), nil, "sched_get_priority_max"))
			c.equal("the call", ct.exec("/bin/"+probeName, "call", strconv.Itoa(unix.SYS_SCHED_GET_PRIORITY_MAX)), "EXDEV")
		}},
		{"seccomp/notify", "config-linux.md, Seccomp (listenerPath); runc, seccomp-notify.bats", notify},
		{"seccomp/notify-needs-a-listener", "runc, seccomp-notify.bats", func(c *check) {
			ct := c.prepare(call(specs.ActNotify, nil, nil, "sched_get_priority_max"))
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it runs")
			}
		}},
		{"seccomp/empty-profile", "config-linux.md, Seccomp", func(c *check) {
			c.equal("getpid", try(c, profile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}), unix.SYS_GETPID), "done")
		}},
	}
	// One clause for each operator: getpriority(2) with a first argument that is no kind is EINVAL where it is let through.
	for _, op := range []struct {
		name     string
		op       specs.LinuxSeccompOperator
		value    uint64
		two      uint64
		hit, not string
	}{
		{"equal", specs.OpEqualTo, 42, 0, "42", "43"},
		{"not-equal", specs.OpNotEqual, 42, 0, "43", "42"},
		{"less-than", specs.OpLessThan, 42, 0, "41", "42"},
		{"less-or-equal", specs.OpLessEqual, 42, 0, "42", "43"},
		{"greater-than", specs.OpGreaterThan, 42, 0, "43", "42"},
		{"greater-or-equal", specs.OpGreaterEqual, 42, 0, "42", "41"},
		{"masked-equal", specs.OpMaskedEqual, 0xf0, 0x50, "0x5f", "0x65"},
	} {
		list = append(list, clause{"seccomp/operator-" + op.name, "config-linux.md, Seccomp (args.op)", func(c *check) {
			e := call(specs.ActErrno, ptr(uint(unix.EXDEV)), []specs.LinuxSeccompArg{{Index: 0, Value: op.value, ValueTwo: op.two, Op: op.op}}, "getpriority")
			c.equal("hit", try(c, e, unix.SYS_GETPRIORITY, op.hit, "0"), "EXDEV")
			c.equal("miss", try(c, e, unix.SYS_GETPRIORITY, op.not, "0"), "EINVAL")
		}})
	}
	return list
}

// notify is a listener that gets the filter's descriptor with the container's state.
func notify(c *check) {
	dir, err := os.MkdirTemp("", "tare-notify-")
	c.must(err)
	c.cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	c.must(err)
	defer l.Close()
	type arrived struct {
		fds   int
		state specs.ContainerProcessState
	}
	got := make(chan arrived, 1)
	go func() {
		defer close(got)
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		buf, oob := make([]byte, 65536), make([]byte, 1024)
		n, on, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		var a arrived
		_ = json.Unmarshal(buf[:n], &a.state)
		messages, _ := unix.ParseSocketControlMessage(oob[:on])
		for _, m := range messages {
			fds, _ := unix.ParseUnixRights(&m)
			a.fds += len(fds)
			for _, fd := range fds {
				unix.Close(fd) // without a listener the call fails with ENOSYS
			}
		}
		got <- a
	}()
	out := c.probe([]string{"call", strconv.Itoa(unix.SYS_SCHED_GET_PRIORITY_MAX), "0"}, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}, ListenerPath: socket, ListenerMetadata: "some metadata",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"sched_get_priority_max"}, Action: specs.ActNotify}},
		}
	})
	_ = l.Close()
	a, ok := <-got
	if !ok || a.fds == 0 {
		c.failf("the listener got no descriptor: %+v", a)
	}
	c.equal("metadata", a.state.Metadata, "some metadata")
	c.equal("fds", strings.Join(a.state.Fds, " "), "seccompFd")
	if a.state.Pid <= 0 || a.state.State.ID == "" {
		c.failf("%+v", a.state)
	}
	c.equal("the call", out, "ENOSYS")
}
