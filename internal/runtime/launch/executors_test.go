package launch

import (
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// look prints what a container can see of itself. Pids, times and sizes in use are left out.
const look = `
for f in status limits cgroup mountinfo oom_score_adj; do echo "== $f"; cat /proc/self/$f; done
echo "== ids"; id; echo $$; cut -d' ' -f5-8 /proc/$$/stat; umask; pwd; hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward
echo "== fds"; ls -l /proc/self/fd 2>/dev/null | sed 's/.* \([0-9]* -> \)/\1/'
echo "== env"; env | sort
echo "== namespaces"; for n in mnt pid net uts ipc cgroup user time; do test "$(readlink /proc/self/ns/$n)" = "$(readlink /proc/1/ns/$n)" && echo "$n of pid 1"; done
echo "== dev"; ls -l /dev /dev/pts | sed 's/[A-Z][a-z][a-z] .[0-9] .....//'; tty; stat -c '%u %a %F' /proc/self/fd/0 /proc/self/fd/1
echo "== net"; cat /sys/class/net/lo/operstate
echo "== root"; stat -c '%n %a %u %F' / /* /tmp/* 2>/dev/null; ls -la /mnt 2>/dev/null | wc -l
echo "== writable"; touch /w 2>&1; (: >/proc/sys/kernel/domainname) 2>&1; wc -c </proc/interrupts
`

// mutable is what differs between any two containers.
var mutable = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?m)^(Pid|PPid|Tgid|Ngid|NStgid|NSpid|NSpgid|NSsid|VmPeak|VmSize|VmRSS|VmHWM|VmData|VmStk|VmExe|VmLib|VmPTE|VmSwap|RssAnon|RssFile|RssShmem|HugetlbPages|SigQ|Threads|voluntary_ctxt_switches|nonvoluntary_ctxt_switches|Cpus_allowed.*|Mems_allowed.*):.*\n`), ""},
	{regexp.MustCompile(`(?m)^\d+ \d+ \d+:\d+ (/\S* /\S*)`), "ID $1"}, // mountinfo: ids and device
	{regexp.MustCompile(`(shared|master|propagate_from):\d+`), "$1:N"},
	{regexp.MustCompile(`(pipe|socket|anon_inode):\[\d+\]`), "$1:[N]"},
	{regexp.MustCompile(`/proc/\d+/fd`), "/proc/N/fd"},
	{regexp.MustCompile(`/tmp/Test[^,: ]*`), "TMP"},
	{regexp.MustCompile(`[A-Z][a-z]{2} [ \d]\d \d\d:\d\d`), "WHEN"},
	{regexp.MustCompile(`tare-test-[0-9a-f]+`), "GROUP"},
}

func steady(out string) string {
	for _, m := range mutable {
		out = m.pattern.ReplaceAllString(out, m.with)
	}
	return out
}

// features are what a spec may ask for, as far as both executors can do it.
func features(t *testing.T) map[string]func(s *specs.Spec) {
	ptr := func(n uint32) *uint32 { return &n }
	score := 500
	host := t.TempDir()
	must(t, os.MkdirAll(host+"/dir/sub", 0o755))
	must(t, os.WriteFile(host+"/dir/file", []byte("x"), 0o644))
	mount := func(typ, dest string, options ...string) func(s *specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: typ, Source: typ, Options: options})
		}
	}
	binds := func(source, dest string, options ...string) func(s *specs.Spec) {
		return func(s *specs.Spec) { bind(s, host+source, dest, options...) }
	}
	caps := func(bounding, effective, inheritable, ambient []string) func(s *specs.Spec) {
		return func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: bounding, Effective: effective, Permitted: effective, Inheritable: inheritable, Ambient: ambient}
		}
	}
	both := func(fs ...func(s *specs.Spec)) func(s *specs.Spec) {
		return func(s *specs.Spec) {
			for _, f := range fs {
				f(s)
			}
		}
	}
	user := func(uid, gid uint32, more ...uint32) func(s *specs.Spec) {
		return func(s *specs.Spec) { s.Process.User = specs.User{UID: uid, GID: gid, AdditionalGids: more} }
	}
	without := func(kind specs.LinuxNamespaceType) func(s *specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
			if s.Hostname = "box"; kind == specs.UTSNamespace {
				s.Hostname = ""
			}
		}
	}
	two := []string{"CAP_NET_RAW", "CAP_CHOWN"}
	return map[string]func(s *specs.Spec){
		"nothing special":  func(s *specs.Spec) {},
		"user":             user(1000, 1001),
		"groups":           user(1000, 1001, 5, 7, 70000),
		"root with groups": user(0, 0, 3, 4),
		"unnamed user":     user(4242, 0),
		"capabilities":     caps(two, two[:1], nil, nil),
		"ambient":          both(user(1000, 1000), caps(two, two, two, two[:1])),
		"inheritable":      caps(two, two, two[1:], nil),
		"no capabilities":  func(s *specs.Spec) { s.Process.Capabilities = nil },
		"no new privs":     both(user(1000, 1000), func(s *specs.Spec) { s.Process.NoNewPrivileges = true }),
		"no seccomp":       func(s *specs.Spec) { s.Linux.Seccomp = nil },
		"rlimits": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 99}, {Type: "RLIMIT_CORE"}, {Type: "RLIMIT_STACK", Soft: 1 << 20, Hard: 1 << 22}}
		},
		"rlimits too high": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 29, Hard: 1 << 29}}
		},
		"umask":             func(s *specs.Spec) { s.Process.User.Umask = ptr(0o027) },
		"cwd":               func(s *specs.Spec) { s.Process.Cwd = "/home/u" },
		"cwd made":          func(s *specs.Spec) { s.Process.Cwd = "/a/b/c" },
		"env":               func(s *specs.Spec) { s.Process.Env = []string{"PATH=/nowhere:/bin", "A=b c", "E=", "HOME=/h"} },
		"oom score":         func(s *specs.Spec) { s.Process.OOMScoreAdj = &score },
		"oom score too low": func(s *specs.Spec) { n := -900; s.Process.OOMScoreAdj = &n },
		"personality":       func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} },
		"domain name":       func(s *specs.Spec) { s.Domainname = "there" },
		"sysctl":            func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"} },
		"read-only root":    func(s *specs.Spec) { s.Root.Readonly = true },
		"masked": func(s *specs.Spec) {
			s.Linux.MaskedPaths = []string{"/proc/interrupts", "/sys/firmware", "/no/such", "/etc"}
		},
		"read-only paths":   func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/etc", "/etc/passwd", "/no/such"} },
		"tmpfs":             mount("tmpfs", "/t/made", "size=1m", "mode=700", "noexec", "nosuid"),
		"bind":              binds("/dir", "/mnt/made", "rbind"),
		"bind of a file":    binds("/dir/file", "/made/file", "bind", "ro"),
		"bind options":      binds("/dir", "/mnt", "bind", "ro", "nosuid", "nodev", "noexec", "noatime"),
		"bind recursive":    binds("", "/mnt", "rbind", "rro", "rnosuid"),
		"bind propagation":  binds("/dir", "/mnt", "rbind", "rslave"),
		"bind subpath":      binds("", "/mnt", "bind", "subpath=dir/sub"),
		"bind on a link":    binds("/dir/file", "/etc/loose", "bind"),
		"mount propagation": mount("tmpfs", "/t", "rshared"),
		"root propagation":  func(s *specs.Spec) { s.Linux.RootfsPropagation = "private" },
		"devices": func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/a/b", Type: "b", Major: 7, Minor: 9, UID: ptr(3)}, {Path: "/dev/p", Type: "p"}}
		},
		"terminal": func(s *specs.Spec) {
			s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Width: 91, Height: 17}
		},
		"terminal of a user": both(user(1000, 1000), func(s *specs.Spec) { s.Process.Terminal = true }),
		"host's network":     without(specs.NetworkNamespace),
		"host's ipc":         without(specs.IPCNamespace),
		"host's cgroups":     without(specs.CgroupNamespace),
		"host's names":       without(specs.UTSNamespace),
		"io priority":        func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE} },
		"privileged": func(s *specs.Spec) {
			all := plan.Capabilities()
			caps(all, all, nil, nil)(s)
			s.Linux.Seccomp, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
		},
	}
}

// Both executors make the same container of a plan.
func TestExecutors(t *testing.T) {
	// The child must not inherit that.
	signal.Ignore(syscall.SIGUSR1)
	t.Cleanup(func() { signal.Reset(syscall.SIGUSR1) })
	t.Cleanup(func() { Force("") })
	for name, change := range features(t) {
		t.Run(name, func(t *testing.T) {
			seen := map[plan.Executor]string{}
			for _, e := range []plan.Executor{plan.Stage, plan.Interpreter} {
				r := newRig(t, "sh", "-c", look)
				must(t, os.Symlink("nowhere", r.root.Upper+"/loose"))
				must(t, os.MkdirAll(r.root.Upper+"/etc", 0o755))
				must(t, os.Rename(r.root.Upper+"/loose", r.root.Upper+"/etc/loose"))
				change(r.spec)
				Force(e)
				out, code, err := r.run()
				must(t, err)
				if code != 0 || len(out) < 2000 {
					t.Fatalf("%s: exit %d: %s", e, code, out)
				}
				seen[e] = steady(out)
			}
			differ(t, seen[plan.Stage], seen[plan.Interpreter])
		})
	}
}

// The same for a further process in a running container.
func TestExecutorsOfExec(t *testing.T) {
	signal.Ignore(syscall.SIGUSR1)
	t.Cleanup(func() { signal.Reset(syscall.SIGUSR1) })
	t.Cleanup(func() { Force("") })
	for name, change := range features(t) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "sleep", "1000")
			change(r.spec)
			terminal := r.spec.Process.Terminal
			r.spec.Process.Terminal = false
			_, err := r.create()
			must(t, err)
			must(t, r.init.Go())
			if m, err := r.init.Next(); err != nil || !m.Started {
				t.Fatalf("%+v, %v", m, err)
			}
			seen := map[plan.Executor]string{}
			for _, e := range []plan.Executor{plan.Stage, plan.Interpreter} {
				Force(e)
				proc := *r.spec.Process
				proc.Args, proc.Terminal = []string{"sh", "-c", look + "rm -f /w"}, terminal
				out, code, err := r.execProcess(&proc)
				must(t, err)
				if code != 0 || len(out) < 2000 {
					t.Fatalf("%s: exit %d: %s", e, code, out)
				}
				out = regexp.MustCompile(`(?m)^\d+\r?\n\d+ \d+ `).ReplaceAllString(out, "PID PGID SID ")
				out = regexp.MustCompile(`(?m)^(PID.* \d+) \d+(\r?)$`).ReplaceAllString(out, "$1 TPGID$2") // of each exec its own
				seen[e] = steady(out)
			}
			differ(t, seen[plan.Stage], seen[plan.Interpreter])
		})
	}
}

func differ(t *testing.T, stage, interpreter string) {
	t.Helper()
	if stage == interpreter {
		return
	}
	a, b := strings.Split(stage, "\n"), strings.Split(interpreter, "\n")
	for _, l := range a {
		if !slices.Contains(b, l) {
			t.Errorf("by the stage only: %s", l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			t.Errorf("by the interpreter only: %s", l)
		}
	}
	if !t.Failed() {
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("line %d by the stage: %q, by the interpreter: %q", i, a[i], b[i])
			}
		}
		t.Errorf("%d lines by the stage, %d by the interpreter", len(a), len(b))
	}
}

// Failures read the same, whoever meets them.
func TestExecutorsFail(t *testing.T) {
	t.Cleanup(func() { Force("") })
	host := t.TempDir()
	must(t, os.WriteFile(host+"/file", nil, 0o644))
	for name, change := range map[string]func(r *rig){
		"source":      func(r *rig) { bind(r.spec, host+"/none", "/x", "bind") },
		"kind":        func(r *rig) { bind(r.spec, host, "/etc/passwd", "bind") },
		"file system": func(r *rig) { r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs"}) },
		"data": func(r *rig) {
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"size=no"}})
		},
		"cwd":         func(r *rig) { r.spec.Process.Cwd = "/etc/passwd" },
		"cwd outside": func(r *rig) { r.spec.Process.Cwd = "/proc/self/fd/4" },
		"device": func(r *rig) {
			r.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/bin/sh", Type: "c", Major: 1, Minor: 3}}
		},
		"sysctl":       func(r *rig) { r.spec.Linux.Sysctl = map[string]string{"net.nosuch": "1"} },
		"lower":        func(r *rig) { r.root.Lower = append([]string{"/no/such/layer"}, r.root.Lower...) },
		"namespace":    func(r *rig) { r.spec.Linux.Namespaces[2].Path = host + "/file" },
		"program":      func(r *rig) { r.spec.Process.Args = []string{"nosuch"} },
		"program path": func(r *rig) { r.spec.Process.Args = []string{"/etc/passwd/x"} },
		"not runnable": func(r *rig) { r.spec.Process.Args = []string{"/etc/notexec"} },
		"a directory":  func(r *rig) { r.spec.Process.Args = []string{"/etc"} },
		"no format":    func(r *rig) { r.spec.Process.Args = []string{"/etc/empty"} },
		"denied":       func(r *rig) { r.spec.Process.Args, r.spec.Process.User.UID = []string{"/etc/private"}, 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[plan.Executor]string{}
			for _, e := range []plan.Executor{plan.Stage, plan.Interpreter} {
				r := newRig(t, "true")
				must(t, os.MkdirAll(r.root.Upper+"/etc", 0o755))
				must(t, os.WriteFile(r.root.Upper+"/etc/empty", nil, 0o755))
				must(t, os.WriteFile(r.root.Upper+"/etc/private", []byte("#!/bin/sh\n"), 0o700))
				change(r)
				Force(e)
				out, code, err := r.run()
				if err == nil {
					t.Fatalf("%s: exit %d, %s", e, code, out)
				}
				seen[e] = steady(err.Error())
			}
			if seen[plan.Stage] != seen[plan.Interpreter] {
				t.Errorf("the stage says\n%s\nthe interpreter\n%s", seen[plan.Stage], seen[plan.Interpreter])
			}
		})
	}
}

// An exec is born into the container's pid namespace when all that it once could do is gone, so that a process of the
// container that may trace every other gets nothing that it did not have (see docs/adr/0010): it never sees one
// with the host's capabilities, memory or files.
func TestExecIsBornHarmless(t *testing.T) {
	all := []string{"CAP_SYS_PTRACE", "CAP_KILL", "CAP_DAC_OVERRIDE"}
	r := newRig(t, "sh", "-c", `while :; do for p in /proc/[0-9]*; do
		case $p in /proc/1|/proc/$$) continue;; esac
		cat $p/status 2>/dev/null | grep -E 'CapPrm|CapBnd'; readlink $p/exe | grep -vE '^/bin/busybox$'; ls -l $p/fd 2>/dev/null | grep -E 'supervis|overlay|memfd:plan'; done; done`)
	r.spec.Linux.Seccomp = nil
	r.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	out, err := r.create()
	must(t, err)
	must(t, r.init.Go())
	m, err := r.init.Next()
	must(t, err)
	if !m.Started {
		t.Fatalf("%+v", m)
	}
	Force(plan.Interpreter)
	t.Cleanup(func() { Force("") })
	for range 60 {
		if _, _, err := r.exec("true"); err != nil {
			t.Fatal(err)
		}
	}
	must(t, unix.PidfdSendSignal(r.init.PidFD, unix.SIGKILL, nil, 0))
	b := make([]byte, 1<<20)
	n, _ := out.Read(b)
	for line := range strings.Lines(string(b[:n])) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Cap") && !strings.HasSuffix(line, "0000000000080022") || strings.Contains(line, " -> ") {
			t.Errorf("a process in the container has %s", line)
		}
		if strings.HasPrefix(line, "/") && filepath.Base(line) != "busybox" && !strings.Contains(line, "memfd:tare-run-setup") {
			t.Errorf("a process in the container executes %s", line)
		}
	}
}
