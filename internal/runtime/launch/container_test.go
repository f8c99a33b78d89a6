package launch

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

func sh(script string) []string { return []string{"sh", "-c", script} }

// expect runs a container to its end and compares what it wrote.
func expect(t *testing.T, r *rig, want string) {
	t.Helper()
	out, code, err := r.run()
	must(t, err)
	if out != want || code != 0 {
		t.Errorf("exit %d, got\n%s\nwant\n%s", code, out, want)
	}
}

// Each case is what one field of the spec makes the container see.
func TestFields(t *testing.T) {
	ptr := func(n uint32) *uint32 { return &n }
	score := 500
	host := t.TempDir()
	must(t, os.WriteFile(host+"/file", []byte("from the host\n"), 0o644))
	for name, c := range map[string]struct {
		change func(s *specs.Spec)
		script string
		want   string
	}{
		"hostname":   {func(s *specs.Spec) { s.Hostname, s.Domainname = "here", "there" }, "hostname; cat /proc/sys/kernel/domainname", "here\nthere\n"},
		"ids":        {func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 7}} }, "id", "uid=1000(u) gid=1001 groups=5,7\n"},
		"home":       {func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000} }, "echo $HOME", "/home/u\n"},
		"home given": {func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "HOME=/x") }, "echo $HOME", "/x\n"},
		"env":        {func(s *specs.Spec) { s.Process.Env = []string{"PATH=/bin", "A=b c", "HOME=/"} }, "/bin/env | sort", "A=b c\nHOME=/\nPATH=/bin\nPWD=/\nSHLVL=1\n"},
		"cwd":        {func(s *specs.Spec) { s.Process.Cwd = "/tmp" }, "pwd", "/tmp\n"},
		"cwd made":   {func(s *specs.Spec) { s.Process.Cwd = "/a/b" }, "pwd; stat -c %a .", "/a/b\n755\n"},
		"umask":      {func(s *specs.Spec) { s.Process.User.Umask = ptr(0o027) }, "umask", "0027\n"},
		"rlimit": {func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 99}, {Type: "RLIMIT_CORE"}}
		}, "ulimit -n; ulimit -Hn; ulimit -c", "77\n99\n0\n"},
		"few files": {func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 4, Hard: 4}, {Type: "RLIMIT_NPROC", Soft: 1, Hard: 1}}
		}, "ulimit -n", "4\n"},
		"oom score":       {func(s *specs.Spec) { s.Process.OOMScoreAdj = &score }, "cat /proc/self/oom_score_adj", "500\n"},
		"read-only root":  {func(s *specs.Spec) { s.Root.Readonly = true }, "touch /x || touch /dev/shm/y && echo shm", "touch: /x: Read-only file system\nshm\n"},
		"writable root":   {nil, "touch /x && ls /x", "/x\n"},
		"own pid":         {nil, "echo $$", "1\n"},
		"loopback":        {nil, "cat /sys/class/net/lo/operstate /sys/class/net/lo/flags; ls /sys/class/net", "unknown\n0x9\nlo\n"},
		"capabilities":    {nil, "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status | tr '\\t' ' '", "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2\n"},
		"no new privs":    {func(s *specs.Spec) { s.Process.NoNewPrivileges = true }, "grep -E 'NoNew|Seccomp:' /proc/self/status | tr '\\t' ' '", "NoNewPrivs: 1\nSeccomp: 2\n"},
		"no seccomp":      {func(s *specs.Spec) { s.Linux.Seccomp = nil }, "grep Seccomp: /proc/self/status | tr '\\t' ' '", "Seccomp: 0\n"},
		"no capabilities": {func(s *specs.Spec) { s.Process.Capabilities = nil }, "grep Cap /proc/self/status | tr '\\t' ' ' | cut -d' ' -f2 | sort -u", "0000000000000000\n"},
		"devices":         {nil, "cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty; for l in fd stdin ptmx; do readlink $l; done; ls /dev | tr '\\n' ' '", "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\ncore fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		"own device": {func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/a/b", Type: "b", Major: 7, Minor: 9, UID: ptr(3)}}
		}, "stat -c '%F %t:%T %u %a' /dev/a/b", "block special file 7:9 3 666\n"},
		"masked":          {nil, "wc -c </proc/interrupts; ls /proc/acpi /sys/firmware 2>&1 | grep -v :; touch /proc/acpi/x 2>&1 || true", "0\n\ntouch: /proc/acpi/x: Read-only file system\n"},
		"read-only paths": {nil, "(echo 1 >/proc/sys/kernel/domainname) 2>&1", ""},
		"sysctl": {func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345"}
		}, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax", "1\n12345\n"},
		"bind":           {func(s *specs.Spec) { bind(s, host, "/mnt/made/here", "rbind") }, "cat /mnt/made/here/file; echo x >/mnt/made/here/new && cat /mnt/made/here/new", "from the host\nx\n"},
		"bind of a file": {func(s *specs.Spec) { bind(s, host+"/file", "/etc/new", "rbind", "ro") }, "cat /etc/new; (echo x >/etc/new) 2>&1 | sed 's/.*: //'", "from the host\nRead-only file system\n"},
		"bind noexec":    {func(s *specs.Spec) { bind(s, "/usr/bin/busybox", "/tmp/b", "bind", "noexec") }, "/tmp/b true 2>&1 | sed 's/.*: //'", "Permission denied\n"},
		"tmpfs": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "mode=700", "noexec"}})
		}, "stat -c %a /t; dd if=/dev/zero of=/t/x bs=1M count=2 2>/dev/null || stat -c %s /t/x", "700\n1048576\n"},
		"shm":              {nil, "grep ' /dev/shm ' /proc/mounts | cut -d' ' -f3-4", "tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k\n"},
		"cgroup":           {nil, "cut -d: -f3 /proc/self/cgroup | sort -u; (mkdir /sys/fs/cgroup/pids/x) 2>&1 | sed 's/.*: //'; cat /sys/fs/cgroup/pids/cgroup.procs | head -1", "/\nRead-only file system\n1\n"},
		"stdio of a user":  {func(s *specs.Spec) { s.Process.User.UID = 1000 }, "echo again >/dev/stdout", "again\n"},
		"personality":      {func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, "cat /proc/self/personality 2>/dev/null || echo 00000008", "00000008\n"},
		"path lookup":      {func(s *specs.Spec) { s.Process.Env = []string{"PATH=/nowhere:relative:/bin"} }, "echo ok", "ok\n"},
		"cgroup namespace": {nil, "readlink /proc/self/ns/cgroup | cut -d: -f1", "cgroup\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sh(c.script)...)
			if c.change != nil {
				c.change(r.spec)
			}
			if name == "read-only paths" {
				out, code, err := r.run()
				must(t, err)
				if !strings.Contains(out, "Read-only file system") || code == 0 {
					t.Errorf("exit %d: %s", code, out)
				}
				return
			}
			expect(t, r, c.want)
		})
	}
}

func bind(s *specs.Spec, source, dest string, options ...string) {
	s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: source, Options: options})
}

func TestExitCodeAndSignal(t *testing.T) {
	_, code, err := newRig(t, sh("exit 7")...).run()
	must(t, err)
	if code != 7 {
		t.Errorf("exit %d", code)
	}
	// The first process of a pid namespace is immune to its own signals; a child is not.
	_, code, err = newRig(t, sh("sh -c 'kill -9 $$'; exit $?")...).run()
	must(t, err)
	if code != 137 {
		t.Errorf("exit %d", code)
	}
}

// Nothing of the runtime stays open in the container, and no signal stays ignored or blocked.
func TestInheritsNothing(t *testing.T) {
	leak, err := unix.Open("/", unix.O_RDONLY, 0) // without close-on-exec
	must(t, err)
	defer unix.Close(leak)
	r := newRig(t, sh("ls /proc/self/fd | tr '\\n' ' '; grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2 | tr '\\n' ' '; cat /proc/self/cgroup | wc -l; ulimit -n")...)
	r.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1000, Hard: 1000}}
	out, _, err := r.run()
	must(t, err)
	// 3 is ls's own.
	if !strings.HasPrefix(out, "0 1 2 3 0000000000000000 0000000000000000 ") {
		t.Errorf("got %s", out)
	}
}

func TestKeptDescriptors(t *testing.T) {
	r := newRig(t, sh("cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '")...)
	p, err := plan.Compile(r.spec, r.root, r.host())
	must(t, err)
	var keep []*os.File
	for _, text := range []string{"three ", "four "} {
		f, err := os.CreateTemp(t.TempDir(), "")
		must(t, err)
		f.WriteString(text)
		f.Seek(0, 0)
		defer f.Close()
		keep = append(keep, f)
	}
	r.spec.Linux.CgroupsPath = ""
	p, err = plan.Compile(r.spec, r.root, r.host())
	must(t, err)
	out, in, err := os.Pipe()
	must(t, err)
	c, err := New(p, 0, Stdio{Out: in, Err: in, Keep: keep})
	in.Close()
	must(t, err)
	defer c.Close()
	must(t, c.Go())
	m, err := c.Next()
	must(t, err)
	if !m.Created {
		t.Fatalf("%+v", m)
	}
	text, code, err := finish(t, c, out)
	must(t, err)
	if text != "three four 0 1 2 3 4 5 " || code != 0 {
		t.Errorf("exit %d: %s", code, text)
	}
}

// What can't be executed is told apart by its exit code, before anybody says go.
func TestExecErrors(t *testing.T) {
	for _, c := range []struct {
		arg  string
		code int
		want string
	}{
		{"nosuch", 127, `exec: "nosuch": executable file not found in $PATH`},
		{"/nosuch", 127, `exec: "/nosuch": no such file or directory`},
		{"/etc/notexec", 126, `exec: "/etc/notexec": permission denied`},
		{"/etc", 126, `exec: "/etc": permission denied`},
		{"/etc/passwd/x", 127, `exec: "/etc/passwd/x": not a directory`},
	} {
		_, err := newRig(t, c.arg).create()
		var exec *ExecError
		if !errors.As(err, &exec) || err.Error() != c.want || exec.Code() != c.code {
			t.Errorf("%s: %v", c.arg, err)
		}
		var errno unix.Errno
		if !errors.As(err, &errno) {
			t.Errorf("%s: no errno in %v", c.arg, err)
		}
	}
}

// A failing step is told by the spec's field, with the class that it deserves.
func TestStepErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *specs.Spec)
		want   string
		class  func(error) bool
	}{
		"source":  {func(s *specs.Spec) { bind(s, "/no/such", "/x", "bind") }, "bind source path does not exist: /no/such", errdefs.IsInvalidArgument},
		"kind":    {func(s *specs.Spec) { bind(s, "/etc", "/etc/passwd", "bind") }, "one is a directory and the other is not", errdefs.IsInvalidArgument},
		"fs type": {func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs"}) }, "cannot mount nosuchfs on /x type nosuchfs (mounts[7]): no such device", errdefs.IsInvalidArgument},
		"sysctl":  {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.nosuch": "1"} }, "cannot write 1 to /proc/sys/net/nosuch (linux.sysctl net.nosuch): no such file", errdefs.IsInvalidArgument},
		"netns":   {func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/no/such" }, "enter network /no/such", errdefs.IsInvalidArgument},
	} {
		r := newRig(t, "true")
		c.change(r.spec)
		_, err := r.create()
		if err == nil || !strings.Contains(err.Error(), c.want) || !c.class(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Images can't make mounts, devices or directories land outside of the root.
func TestTargetsStayInside(t *testing.T) {
	outside := t.TempDir()
	host := t.TempDir()
	must(t, os.WriteFile(host+"/file", []byte("bound\n"), 0o644))
	r := newRig(t, sh("cat /link/file; cat /up/file; cat /abs/deep/er/file; readlink /link; ls /dev/null")...)
	for name, target := range map[string]string{
		"link": outside,                              // exists on the host, not in the root
		"up":   "../../../../../../../../" + outside, // climbs
		"abs":  outside + "/dangling",                // a directory below a dangling link
		"dev":  outside + "/dev",                     // even /dev
		"loop": "loop",
	} {
		must(t, os.RemoveAll(r.root.Upper+"/"+name))
		must(t, os.Symlink(target, r.root.Upper+"/"+name))
	}
	bind(r.spec, host, "/link", "bind")
	bind(r.spec, host, "/up", "bind")
	bind(r.spec, host, "/abs/deep/er", "bind")
	expect(t, r, "bound\nbound\nbound\n"+outside+"\n/dev/null\n")
	entries, err := os.ReadDir(outside)
	must(t, err)
	if len(entries) != 0 {
		t.Errorf("made on the host: %v", entries)
	}
	r = newRig(t, "true")
	must(t, os.Symlink("loop", r.root.Upper+"/loop"))
	bind(r.spec, host, "/loop", "bind")
	if _, err := r.create(); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a symlink to itself: %v", err)
	}
}

// A mount target on a volume that another container changes meanwhile is still resolved inside (CVE-2021-30465):
// the swap of a directory for a symlink to / finds no moment to redirect the mount.
func TestTargetSwapped(t *testing.T) {
	vol := t.TempDir()
	must(t, os.Mkdir(vol+"/a", 0o755))
	must(t, os.Symlink("/", vol+"/b"))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, vol+"/a", unix.AT_FDCWD, vol+"/b", unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	src := t.TempDir()
	for range 20 {
		r := newRig(t, sh("readlink /proc/1/root; grep -c ' / / ' /proc/self/mountinfo; exit 0")...)
		bind(r.spec, vol, "/vol", "bind")
		bind(r.spec, src, "/vol/a/x", "bind")
		out, _, err := r.run()
		if err != nil {
			continue // the swap may make it fail; it may not make it escape
		}
		if !strings.HasPrefix(out, "/\n") {
			t.Fatal(out)
		}
	}
	for _, d := range []string{"/x"} {
		if _, err := os.Lstat(d); err == nil {
			t.Errorf("%s was made on the host", d)
		}
	}
}

// The working directory can't be a link to a descriptor of the runtime (CVE-2024-21626).
func TestCwdStaysInside(t *testing.T) {
	for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/8", "/proc/1/root", "/proc/self/cwd", "/link"} {
		r := newRig(t, "pwd")
		must(t, os.Symlink("/proc/self/fd/7", r.root.Upper+"/link"))
		r.spec.Process.Cwd = cwd
		out, _, err := r.run()
		if err == nil {
			t.Errorf("%s: %s", cwd, out)
		} else if !strings.Contains(err.Error(), "chdir to cwd (\""+cwd+"\") set in config.json failed") {
			t.Errorf("%s: %v", cwd, err)
		}
	}
}

// A container that executes /proc/self/exe of the stage gets a file that can't be written.
func TestProgramIsReadOnly(t *testing.T) {
	path, _, err := stageProgram()
	must(t, err)
	if fd, err := unix.Open(path, unix.O_WRONLY, 0); err != unix.EROFS && err != unix.ETXTBSY && err != unix.EPERM {
		unix.Close(fd)
		t.Errorf("opening for writing: %v", err)
	}
	fd, err := sealedCopy("/proc/self/exe")
	must(t, err)
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("x")); err != unix.EPERM {
		t.Errorf("writing the sealed copy: %v", err)
	}
	// The program is this test; as argument 0 says nothing of a stage, it would run its tests.
	r := newRig(t, "/proc/self/exe", "-test.run=^$", "-test.v")
	_, _, err = r.run()
	must(t, err)
}

// The stage's files are closed to other processes of the container while it waits.
func TestWaitingStageIsOpaque(t *testing.T) {
	a := newRig(t, sh("sleep 100")...)
	_, err := a.create()
	must(t, err)
	must(t, a.init.Go())
	_, err = a.init.Next()
	must(t, err)
	b := newRig(t, "true")
	for i := range b.spec.Linux.Namespaces {
		if n := &b.spec.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + itoa(a.init.Pid) + "/ns/pid"
		}
	}
	_, err = b.create() // waits, in the pid namespace of a
	must(t, err)
	out, code, err := a.exec(sh("for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline) in tare-run-stage*) ls $p/root/ 2>&1; (: <$p/fd/3) 2>&1; (: <$p/exe) 2>&1;; esac; done")...)
	must(t, err)
	if strings.Count(out, "Permission denied") != 3 {
		t.Errorf("exit %d: %s", code, out)
	}
}

// exec runs one more process in the container to its end.
func (r *rig) exec(args ...string) (string, int, error) {
	r.t.Helper()
	proc := *r.spec.Process
	proc.Args = args
	return r.execProcess(&proc)
}

func (r *rig) execProcess(proc *specs.Process) (string, int, error) {
	t := r.t
	t.Helper()
	p, err := plan.CompileExec(r.spec, proc, r.host())
	must(t, err)
	out, in, err := os.Pipe()
	must(t, err)
	defer out.Close()
	stdio := Stdio{Out: in, Err: in}
	if proc.Terminal {
		stdio = Stdio{Console: true}
	}
	c, err := New(p, r.init.Pid, stdio)
	in.Close()
	if err != nil {
		return "", -1, err
	}
	defer c.Close()
	m, err := c.Next()
	must(t, err)
	if m.Err != nil {
		unix.Wait4(c.Pid, nil, 0, nil)
		return "", -1, m.Err
	}
	if m.Master != nil {
		defer m.Master.Close()
		out = m.Master
	}
	must(t, c.Go())
	return finish(t, c, out)
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// running is a container whose init sleeps.
func running(t testing.TB) *rig {
	t.Helper()
	r := newRig(t, "sleep", "1000")
	_, err := r.create()
	must(t, err)
	must(t, r.init.Go())
	m, err := r.init.Next()
	must(t, err)
	if !m.Started {
		t.Fatalf("%+v", m)
	}
	return r
}

func TestExec(t *testing.T) {
	r := running(t)
	out, code, err := r.exec(sh("hostname; cat /proc/1/cmdline | tr '\\0' ' '; cut -d: -f3 /proc/self/cgroup | sort -u; grep -E 'CapEff|Seccomp:' /proc/self/status | cut -f2; ls /proc/self/fd | tr '\\n' ' '; cat /etc/passwd | wc -l; ls / | wc -l; exit 5")...)
	must(t, err)
	if want := "box\nsleep 1000 /\n00000000a80425fb\n2\n0 1 2 3 2\n"; !strings.HasPrefix(out, want) || code != 5 {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, ns := range []string{"mnt", "pid", "net", "uts", "ipc", "cgroup"} {
		in, _, err := r.exec("readlink", "/proc/self/ns/"+ns)
		must(t, err)
		host, _ := os.Readlink("/proc/" + itoa(r.init.Pid) + "/ns/" + ns)
		if strings.TrimSpace(in) != host {
			t.Errorf("%s namespace %s, the container's is %s", ns, in, host)
		}
	}
	pids, err := r.group.Pids()
	must(t, err)
	if !slices.Equal(pids, []int{r.init.Pid}) {
		t.Errorf("in the cgroup: %v", pids)
	}
	// This thread makes children in its own pid namespace again.
	b, err := exec.Command("readlink", "/proc/self/ns/pid").Output()
	must(t, err)
	own, _ := os.Readlink("/proc/self/ns/pid")
	if strings.TrimSpace(string(b)) != own {
		t.Error("a child of this process is in the container's pid namespace")
	}
	for _, c := range []struct {
		args []string
		code int
	}{{[]string{"nosuch"}, 127}, {[]string{"/etc/notexec"}, 126}} {
		_, _, err := r.exec(c.args...)
		var exec *ExecError
		if !errors.As(err, &exec) || exec.Code() != c.code {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	proc := *r.spec.Process
	proc.Args, proc.Cwd = []string{"pwd"}, "/proc/self/fd/5"
	if _, _, err := r.execProcess(&proc); err == nil {
		t.Error("an exec's working directory is a descriptor of the runtime")
	}
	proc.Cwd, proc.User = "/tmp", specs.User{UID: 1000, GID: 1000}
	proc.Args = sh("id -u; pwd; echo $HOME; grep CapEff /proc/self/status | cut -f2")
	out, _, err = r.execProcess(&proc)
	must(t, err)
	if out != "1000\n/tmp\n/home/u\n0000000000000000\n" {
		t.Error(out)
	}
}

// When init ends, its pid namespace does, and every exec with it.
func TestExecEndsWithInit(t *testing.T) {
	r := running(t)
	proc := *r.spec.Process
	proc.Args = []string{"sleep", "1000"}
	p, err := plan.CompileExec(r.spec, &proc, r.host())
	must(t, err)
	c, err := New(p, r.init.Pid, Stdio{})
	must(t, err)
	defer c.Close()
	must(t, c.Go())
	for m := (Message{}); !m.Started; {
		m, err = c.Next()
		must(t, err)
		must(t, m.Err)
	}
	must(t, unix.PidfdSendSignal(r.init.PidFD, unix.SIGKILL, nil, 0))
	var ws unix.WaitStatus
	_, err = unix.Wait4(c.Pid, &ws, 0, nil)
	must(t, err)
	if ws.Signal() != unix.SIGKILL {
		t.Errorf("ended with %v", ws)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t, sh("tty; stty size; ls -l /dev/console | cut -c1; test -t 0 && test -t 1 && test -t 2 && echo all; echo x >/dev/console; stat -c %u /dev/pts/0")...)
	r.spec.Process.Terminal = true
	r.spec.Process.ConsoleSize = &specs.Box{Width: 91, Height: 17}
	out, code, err := r.run()
	must(t, err)
	if want := "/dev/pts/0\r\n17 91\r\nc\r\nall\r\nx\r\n0\r\n"; out != want || code != 0 {
		t.Errorf("exit %d: %q", code, out)
	}
}

func TestExecTerminal(t *testing.T) {
	r := running(t)
	proc := *r.spec.Process
	proc.Args, proc.Terminal, proc.User = sh("tty; stat -c %u $(tty); kill -INT $$"), true, specs.User{UID: 1000}
	p, err := plan.CompileExec(r.spec, &proc, r.host())
	must(t, err)
	c, err := New(p, r.init.Pid, Stdio{Console: true})
	must(t, err)
	defer c.Close()
	m, err := c.Next()
	must(t, err)
	if m.Err != nil || m.Master == nil {
		t.Fatalf("%+v", m)
	}
	defer m.Master.Close()
	must(t, c.Go())
	out, code, err := finish(t, c, m.Master)
	must(t, err)
	if out != "/dev/pts/0\r\n1000\r\n" || code != 128+int(unix.SIGINT) {
		t.Errorf("exit %d: %q", code, out)
	}
}

// A child that is not told to go ends with its parent's end of the socket, and leaves no mount behind.
func TestAbandoned(t *testing.T) {
	before := countMounts(t)
	r := newRig(t, "true")
	_, err := r.create()
	must(t, err)
	unix.Close(r.init.Sync)
	r.init.Sync = -1
	var ws unix.WaitStatus
	if _, err := unix.Wait4(r.init.Pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 1 {
		t.Errorf("%v, %v", ws, err)
	}
	if after := countMounts(t); after != before {
		t.Errorf("%d mounts, were %d", after, before)
	}
}

func countMounts(t *testing.T) int {
	f, err := os.Open("/proc/self/mountinfo")
	must(t, err)
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
	}
	return n
}

// The child may be killed at any moment: the parent hears of it.
func TestKilledWhileWaiting(t *testing.T) {
	r := newRig(t, "true")
	_, err := r.create()
	must(t, err)
	must(t, unix.PidfdSendSignal(r.init.PidFD, unix.SIGKILL, nil, 0))
	m, err := r.init.Next()
	must(t, err)
	if m.Err == nil {
		t.Errorf("%+v", m)
	}
}

func TestDetached(t *testing.T) {
	r := newRig(t, sh("exit 3")...)
	r.spec.Linux.CgroupsPath = ""
	p, err := plan.Compile(r.spec, r.root, r.host())
	must(t, err)
	sock := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	l := os.NewFile(uintptr(fd), "listener")
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: sock}))
	must(t, unix.Listen(fd, 1))
	c, err := Detach(p, Stdio{}, l)
	must(t, err)
	l.Close()
	m, err := c.Next()
	must(t, err)
	if !m.Created {
		t.Fatalf("%+v", m)
	}
	c.Close()
	for range 2 { // one that connects and says nothing, one that says go
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Connect(fd, &unix.SockaddrUnix{Name: sock}))
		if c != nil {
			unix.Close(fd)
			pid := c.Pid
			c = nil
			defer func() {
				var ws unix.WaitStatus
				if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 3 {
					t.Errorf("%v, %v", ws, err)
				}
			}()
			continue
		}
		again := Resume(p, fd)
		must(t, again.Go())
		m, err := again.Next()
		must(t, err)
		if !m.Started {
			t.Fatalf("%+v", m)
		}
		again.Close()
	}
}

// Propagation: what is mounted on the host under a slave bind shows up inside, and under a private one it does not.
func TestPropagation(t *testing.T) {
	base := t.TempDir()
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(base, unix.MNT_DETACH) })
	must(t, unix.Mount("", base, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(base+"/sub", 0o755))
	r := newRig(t, sh("cat; cat /slave/sub/x /private/sub/x 2>&1")...)
	bind(r.spec, base, "/slave", "rbind", "rslave")
	bind(r.spec, base, "/private", "rbind", "rprivate")
	r.spec.Process.Args = sh("while ! test -e /slave/sub/x && ! test -e /slave/stop; do sleep 0.01; done; cat /slave/sub/x /private/sub/x 2>&1")
	out, err := r.create()
	must(t, err)
	must(t, r.init.Go())
	must(t, unix.Mount("tmpfs", base+"/sub", "tmpfs", 0, ""))
	must(t, os.WriteFile(base+"/sub/x", []byte("seen\n"), 0o644))
	stop := time.AfterFunc(5*time.Second, func() { os.WriteFile(base+"/stop", nil, 0o644) })
	defer stop.Stop()
	text, _, err := finish(t, r.init, out)
	must(t, err)
	if text != "seen\ncat: can't open '/private/sub/x': No such file or directory\n" {
		t.Error(text)
	}
}

// A shared bind in a shared root lets the container mount on the host.
func TestSharedPropagation(t *testing.T) {
	base := t.TempDir()
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(base+"/sub", unix.MNT_DETACH); unix.Unmount(base, unix.MNT_DETACH) })
	must(t, unix.Mount("", base, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(base+"/sub", 0o755))
	before := countMounts(t)
	r := newRig(t, sh("mount -t tmpfs tmpfs /v/sub && echo yes >/v/sub/x")...)
	bind(r.spec, base, "/v", "rbind", "rshared")
	r.spec.Linux.RootfsPropagation = "shared"
	r.spec.Linux.Seccomp = nil
	c := r.spec.Process.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*set = append(*set, "CAP_SYS_ADMIN")
	}
	expect(t, r, "")
	if b, _ := os.ReadFile(base + "/sub/x"); string(b) != "yes\n" {
		t.Errorf("the host sees %q", b)
	}
	if after := countMounts(t); after != before+1 {
		t.Errorf("%d mounts, were %d: more than the one reached the host", after, before)
	}
}

func TestRecursiveReadOnly(t *testing.T) {
	base := t.TempDir()
	must(t, os.Mkdir(base+"/sub", 0o755))
	must(t, unix.Mount("tmpfs", base+"/sub", "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(base+"/sub", unix.MNT_DETACH) })
	r := newRig(t, sh("touch /ro/x; touch /ro/sub/x; touch /rro/sub/x; true")...)
	bind(r.spec, base, "/ro", "rbind", "ro")
	bind(r.spec, base, "/rro", "rbind", "ro", "rro")
	expect(t, r, "touch: /ro/x: Read-only file system\ntouch: /rro/sub/x: Read-only file system\n")
}

func TestRootWithoutOverlay(t *testing.T) {
	r := newRig(t, sh("ls /bin/sh; touch /made")...)
	r.root, r.spec.Root.Path = nil, t.TempDir()
	out, err := exec.Command("cp", "-a", layer(t)+"/.", r.spec.Root.Path).CombinedOutput()
	if err != nil {
		t.Fatal(string(out))
	}
	expect(t, r, "/bin/sh\n")
	if _, err := os.Stat(r.spec.Root.Path + "/made"); err != nil {
		t.Error(err)
	}
}

func TestOverlays(t *testing.T) {
	second := t.TempDir()
	must(t, os.WriteFile(second+"/only", []byte("second\n"), 0o644))
	r := newRig(t, sh("cat /only; touch /x 2>&1; true")...)
	r.root.Lower = append([]string{second}, r.root.Lower...)
	r.root.Volatile = true
	expect(t, r, "second\n")
	if _, err := os.Stat(r.root.Upper + "/x"); err != nil {
		t.Error(err)
	}
	r = newRig(t, sh("cat /only; touch /x 2>&1; true")...)
	r.root.Lower = append([]string{second}, r.root.Lower...)
	r.root.Upper, r.root.Work = "", ""
	expect(t, r, "second\ntouch: /x: Read-only file system\n")
}

// Joined namespaces by path: network, ipc and uts of another container.
func TestJoinNamespaces(t *testing.T) {
	a := running(t)
	b := newRig(t, sh("hostname; readlink /proc/self/ns/net")...)
	b.spec.Hostname = ""
	for i := range b.spec.Linux.Namespaces {
		n := &b.spec.Linux.Namespaces[i]
		file := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.UTSNamespace: "uts", specs.IPCNamespace: "ipc"}[n.Type]
		if file != "" {
			n.Path = "/proc/" + itoa(a.init.Pid) + "/ns/" + file
		}
	}
	net, _ := os.Readlink("/proc/" + itoa(a.init.Pid) + "/ns/net")
	expect(t, b, "box\n"+net+"\n")
}

func TestHostNamespaces(t *testing.T) {
	r := newRig(t, sh("for n in pid net uts; do readlink /proc/self/ns/$n; done")...)
	r.spec.Hostname = ""
	r.spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.IPCNamespace}}
	want := ""
	for _, ns := range []string{"pid", "net", "uts"} {
		l, _ := os.Readlink("/proc/self/ns/" + ns)
		want += l + "\n"
	}
	expect(t, r, want)
}

func TestPrivileged(t *testing.T) {
	r := newRig(t, sh("mount -t tmpfs x /tmp && echo mounted; grep CapEff /proc/self/status | cut -f2; (: </dev/mem) 2>&1; mkdir /sys/fs/cgroup/pids/x && ls -d /sys/fs/cgroup/pids/x")...)
	all := plan.Capabilities()
	r.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	r.spec.Linux.Seccomp, r.spec.Linux.MaskedPaths, r.spec.Linux.ReadonlyPaths = nil, nil, nil
	r.spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	for i := range r.spec.Mounts {
		m := &r.spec.Mounts[i]
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
	}
	host, _ := os.ReadFile("/proc/self/status")
	bound := ""
	for l := range strings.Lines(string(host)) {
		if v, ok := strings.CutPrefix(l, "CapPrm:"); ok {
			bound = strings.TrimSpace(v)
		}
	}
	out, _, err := r.run()
	must(t, err)
	if !strings.HasPrefix(out, "mounted\n"+bound+"\n") || !strings.HasSuffix(out, "/sys/fs/cgroup/pids/x\n") {
		t.Error(out)
	}
}

// Memory and pids limits hold, and the kill is counted.
func TestLimits(t *testing.T) {
	limit, pids := int64(16<<20), int64(10)
	r := newRig(t, sh("dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?; i=0; while [ $i -lt 20 ]; do sleep 0.3 & i=$((i+1)); done 2>&1 | grep -c fork")...)
	r.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	r.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	out, _, err := r.run()
	must(t, err)
	if !strings.HasPrefix(out, "137\n") || r.group.OOMKills() != 1 {
		t.Errorf("%s, %d kills", out, r.group.OOMKills())
	}
}
