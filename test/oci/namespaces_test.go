package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// kinds are the namespace types and their names below /proc/PID/ns.
var kinds = []struct {
	kind specs.LinuxNamespaceType
	file string
}{
	{specs.PIDNamespace, "pid"}, {specs.MountNamespace, "mnt"}, {specs.IPCNamespace, "ipc"}, {specs.UTSNamespace, "uts"},
	{specs.NetworkNamespace, "net"}, {specs.CgroupNamespace, "cgroup"}, {specs.TimeNamespace, "time"}, {specs.UserNamespace, "user"},
}

func namespaceOf(c *check, pid int, file string) string {
	s, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/" + file)
	c.must(err)
	return s
}

// holder is a process with namespaces of its own, to be joined.
func holder(c *check, flags ...string) int {
	cmd := exec.Command("unshare", append(flags, "sh", "-c", "echo ready; exec sleep 1000")...)
	out, err := cmd.StdoutPipe()
	c.must(err)
	c.must(cmd.Start())
	pid := cmd.Process.Pid
	c.cleanup(func() {
		// With --fork the child is another process; its end ends unshare.
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
		for _, w := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(w); err == nil {
				_ = unix.Kill(n, unix.SIGKILL)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	buf := make([]byte, 6)
	if _, err := out.Read(buf); err != nil {
		c.failf("unshare: %v", err)
	}
	return pid
}

func mapped(s *specs.Spec) {
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
}

// mappedBundle is a bundle whose root belongs to the container's root.
func (c *check) mappedBundle(edits ...edit) *container {
	ct := c.prepare(append([]edit{mapped}, edits...)...)
	c.must(filepath.WalkDir(ct.rootfs(""), func(path string, _ os.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(path, ct.rootfs("bin/")) { // the programs are shared
			return err
		}
		return os.Lchown(path, 100000, 200000)
	}))
	return ct
}

// namespaces: each kind made, shared and joined.
func namespaces() []clause {
	var list []clause
	for _, k := range kinds {
		if k.kind == specs.UserNamespace {
			continue
		}
		list = append(list, clause{"namespaces/new-" + string(k.kind), "config-linux.md, Namespaces (no path)", func(c *check) {
			ct := c.running(without(k.kind), onLinux(func(l *specs.Linux) { l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: k.kind}) }))
			if got := namespaceOf(c, ct.state().Pid, k.file); got == namespaceOf(c, os.Getpid(), k.file) {
				c.failf("it has the host's %s", got)
			}
		}})
		if k.kind == specs.MountNamespace {
			continue
		}
		list = append(list, clause{"namespaces/shared-" + string(k.kind), "config-linux.md, Namespaces (left out)", func(c *check) {
			ct := c.running(without(k.kind), func(s *specs.Spec) {
				if k.kind == specs.UTSNamespace {
					s.Hostname = ""
				}
			})
			c.equal("namespace", namespaceOf(c, ct.state().Pid, k.file), namespaceOf(c, os.Getpid(), k.file))
		}})
	}
	for kind, flags := range map[specs.LinuxNamespaceType][]string{
		specs.IPCNamespace: {"--ipc"}, specs.UTSNamespace: {"--uts"}, specs.NetworkNamespace: {"--net"}, specs.CgroupNamespace: {"--cgroup"}, specs.PIDNamespace: {"--pid", "--fork", "--mount-proc"},
	} {
		file := ""
		for _, k := range kinds {
			if k.kind == kind {
				file = k.file
			}
		}
		list = append(list, clause{"namespaces/joined-" + string(kind), "config-linux.md, Namespaces (path)", func(c *check) {
			other := holder(c, flags...)
			path := "/proc/" + strconv.Itoa(other) + "/ns/" + file
			if kind == specs.PIDNamespace {
				path += "_for_children"
			}
			ct := c.running(joining(kind, path), func(s *specs.Spec) {
				if kind == specs.UTSNamespace {
					s.Hostname = ""
				}
			})
			want, err := os.Readlink(path)
			c.must(err)
			c.equal("namespace", namespaceOf(c, ct.state().Pid, file), want)
		}})
		list = append(list, clause{"namespaces/wrong-path-" + string(kind), "config-linux.md, Namespaces (path of another type)", func(c *check) {
			wrong := "/proc/self/ns/ipc"
			if kind == specs.IPCNamespace {
				wrong = "/proc/self/ns/uts"
			}
			ct := c.prepare(joining(kind, wrong), func(s *specs.Spec) { s.Hostname = "" })
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it runs")
			}
		}})
	}
	return append(list,
		clause{"namespaces/missing-path", "config-linux.md, Namespaces (path)", func(c *check) {
			c.refused(joining(specs.NetworkNamespace, "/no/such/namespace"))
		}},
		clause{"namespaces/unknown-type", "config-linux.md, Namespaces (type)", func(c *check) {
			c.refused(onLinux(func(l *specs.Linux) { l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: "nonsense"}) }))
		}},
		clause{"namespaces/twice", "config-linux.md, Namespaces (duplicates)", func(c *check) {
			c.refused(onLinux(func(l *specs.Linux) {
				l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.IPCNamespace})
			}))
		}},
		clause{"namespaces/pid-1", "config-linux.md, Namespaces", func(c *check) { c.equal("pid", c.sh("echo $$"), "1") }},
		clause{"namespaces/exec-joins-all", "runc, exec.bats", func(c *check) {
			ct := c.running(onLinux(func(l *specs.Linux) {
				l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
			}))
			pid := ct.state().Pid
			for _, k := range kinds {
				if k.kind == specs.UserNamespace || k.kind == specs.TimeNamespace {
					continue
				}
				c.equal(k.file, ct.exec("readlink", "/proc/self/ns/"+k.file), namespaceOf(c, pid, k.file))
			}
		}},
		clause{"namespaces/cgroup-shows-its-own-root", "config-linux.md, Namespaces", func(c *check) {
			out := c.sh("cat /proc/self/cgroup", onLinux(func(l *specs.Linux) {
				l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
			}))
			for line := range strings.Lines(out) {
				if strings.Contains(line, ":memory:") || strings.Contains(line, "0::") && unifiedCgroup() {
					c.equal("path", strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]), "/")
				}
			}
		}},
		clause{"namespaces/loopback-is-up", "runc, run.bats", func(c *check) {
			c.contains("lo", c.sh("busybox ip addr show lo"), "127.0.0.1/8")
		}},
		clause{"namespaces/time-offsets", "config-linux.md, Offset for Time Namespace; runc, timens.bats", func(c *check) {
			out := c.probe([]string{"clock"}, onLinux(func(l *specs.Linux) {
				l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
				l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1_000_000}}
			}))
			n, err := strconv.Atoi(out)
			c.must(err)
			if n < 1_000_000 {
				c.failf("%d seconds since boot", n)
			}
		}},
		clause{"namespaces/time-offsets-need-a-time-namespace", "runc, timens.bats", func(c *check) {
			c.refused(onLinux(func(l *specs.Linux) { l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} }))
		}},
		clause{"namespaces/hostname-needs-a-uts-namespace", "config.md, hostname; runc, hostname.bats", func(c *check) {
			c.refused(without(specs.UTSNamespace))
		}},
	)
}

// userNamespaces: id mappings.
func userNamespaces() []clause {
	return []clause{
		{"userns/mappings", "config-linux.md, User namespace mappings", func(c *check) {
			ct := c.mappedBundle(script("cat /proc/self/uid_map /proc/self/gid_map"))
			c.equal("maps", strings.Join(strings.Fields(ct.run()), " "), "0 100000 65536 0 200000 65536")
		}},
		{"userns/two-mappings", "config-linux.md, User namespace mappings", func(c *check) {
			ct := c.mappedBundle(script("cat /proc/self/uid_map"), onLinux(func(l *specs.Linux) {
				l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 10}, {ContainerID: 10, HostID: 300000, Size: 10}}
			}))
			c.equal("map", strings.Join(strings.Fields(ct.run()), " "), "0 100000 10 10 300000 10")
		}},
		{"userns/root-inside-is-nobody-outside", "config-linux.md, User namespace mappings; runc, userns.bats", func(c *check) {
			ct := c.mappedBundle(script("id -u; touch /tmp/made"))
			c.equal("id inside", ct.run(), "0")
			var st unix.Stat_t
			c.must(unix.Stat(ct.rootfs("tmp/made"), &st))
			if st.Uid != 100000 || st.Gid != 200000 {
				c.failf("owner %d:%d", st.Uid, st.Gid)
			}
		}},
		{"userns/user-inside", "config-linux.md, User namespace mappings", func(c *check) {
			ct := c.mappedBundle(args("sleep", "1000"), onProcess(func(p *specs.Process) { p.User = specs.User{UID: 1000, GID: 1000} }))
			if r := ct.tryRun("-d"); r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("uid outside", strings.Fields(field(read(c, "/proc/"+strconv.Itoa(ct.state().Pid)+"/status"), "Uid"))[0], "101000")
		}},
		{"userns/mounts", "runc, userns.bats", func(c *check) {
			ct := c.mappedBundle(script("cat /proc/self/mountinfo; stat -c %u:%g /dev/shm"))
			out := ct.run()
			for _, p := range []string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"} {
				mountLine(c, out, p)
			}
			c.contains("owner of shm", out, "0:0")
		}},
		{"userns/devices", "runc, userns.bats", func(c *check) {
			ct := c.mappedBundle(script("echo x > /dev/null && head -c 2 /dev/zero | busybox wc -c"))
			c.equal("devices", ct.run(), "2")
		}},
		{"userns/exec", "runc, userns.bats", func(c *check) {
			ct := c.mappedBundle(args("sleep", "1000"))
			if r := ct.tryRun("-d"); r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("id and namespace", ct.exec("sh", "-c", "id -u; readlink /proc/self/ns/user"), "0\n"+namespaceOf(c, ct.state().Pid, "user"))
		}},
		{"userns/mappings-without-a-namespace-fail", "config-linux.md, User namespace mappings", func(c *check) {
			c.refused(mapped, without(specs.UserNamespace))
		}},
		{"userns/namespace-without-mappings-fails", "runc, userns.bats", func(c *check) {
			c.refused(onLinux(func(l *specs.Linux) {
				l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			}))
		}},
		{"userns/hostname-and-sysctl", "runc, userns.bats", func(c *check) {
			ct := c.mappedBundle(script("hostname; cat /proc/sys/net/ipv4/ip_forward"), onLinux(func(l *specs.Linux) { l.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"} }))
			c.equal("output", ct.run(), "clause\n1")
		}},
		{"userns/masked-paths", "runc, userns.bats", func(c *check) {
			ct := c.mappedBundle(script("cat /proc/kallsyms | head -n 1"), onLinux(func(l *specs.Linux) {
				l.MaskedPaths, l.ReadonlyPaths = []string{"/proc/kallsyms", "/proc/acpi"}, []string{"/proc/sys"}
			}))
			c.equal("output", ct.run(), "")
		}},
		{"userns/joined-by-path", "runc, userns.bats", func(c *check) {
			first := c.mappedBundle(args("sleep", "1000"))
			if r := first.tryRun("-d"); r.code != 0 {
				c.failf("%s", r.all())
			}
			ns := "/proc/" + strconv.Itoa(first.state().Pid) + "/ns/"
			ct := c.mappedBundle(script("readlink /proc/self/ns/user"), func(s *specs.Spec) {
				joining(specs.UserNamespace, ns+"user")(s)
				s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
			})
			c.equal("namespace", ct.run(), namespaceOf(c, first.state().Pid, "user"))
		}},
		{"userns/terminal", "runc, userns.bats", func(c *check) {
			ct := c.mappedBundle(script("stat -c %u $(tty); echo end; sleep 1000"), onProcess(func(p *specs.Process) { p.Terminal = true }))
			out := c.terminal(func(socket string) { c.ok("create", "--bundle", ct.bundle, "--console-socket", socket, ct.id) }, func() { ct.start() }, "end")
			c.contains("owner", out, "0\r\n")
		}},
	}
}
