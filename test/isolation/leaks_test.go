package isolation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime/defaults"
)

// Ptrace from inside: the stage that waits in the container's pid namespace still is the runtime.
func TestStageCanNotBeTraced(t *testing.T) {
	l := newLab(t)
	id := l.create() // its pid 1 is the stage
	out := l.ok(l.command(nil, "exec", id, "/bin/"+attackerName, "ptrace", "1"))
	for line := range strings.Lines(out) {
		if strings.HasSuffix(strings.TrimSpace(line), " done") {
			t.Errorf("a process of the container may do that to the stage: %s", line)
		}
	}
	if !strings.Contains(out, "attach") {
		t.Errorf("no attack: %s", out)
	}
}

// Signals and ptrace from inside to the parent: no process of the host has a number in the container.
func TestParentCanNotBeReached(t *testing.T) {
	l := newLab(t)
	witness := exec.Command("sleep", "1000")
	l.must(witness.Start())
	defer func() { _ = witness.Process.Kill(); _ = witness.Wait() }()
	out := l.ok(l.run(attacker("signals", strconv.Itoa(witness.Process.Pid), strconv.Itoa(os.Getpid()), "-1"), strong))
	if strings.Contains(out, "done") && !strings.Contains(out, "-1 ") || !strings.Contains(out, "parent 0") {
		t.Errorf("%s", out)
	}
	if err := witness.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the host's process was killed: %v", err)
	}
	// A container without a pid namespace of its own, as a user: it sees the host's processes, and may touch none.
	r := l.run(attacker("ptrace", strconv.Itoa(witness.Process.Pid)), func(s *specs.Spec) {
		s.Linux.Namespaces = s.Linux.Namespaces[1:]
		s.Process.User = specs.User{UID: 12345, GID: 12345}
	})
	for line := range strings.Lines(l.ok(r)) {
		if strings.HasSuffix(strings.TrimSpace(line), " done") {
			t.Errorf("a user of a container may do that to a process of the host: %s", line)
		}
	}
}

// Userns id escapes: root of mapped ids has no more than those ids.
func TestMappedRootHasNoOtherIds(t *testing.T) {
	l := newLab(t)
	host := filepath.Join(l.dir, "host")
	l.must(os.Mkdir(host, 0o755))
	l.must(os.WriteFile(filepath.Join(host, "secret"), []byte("secret"), 0o600))
	l.must(os.Chown(l.root("tmp"), 100000, 100000))
	l.must(os.Mkdir(l.root("host"), 0o755))
	r := l.run(attacker("ids"), strong, bind(host, "/host"), func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	})
	out := l.ok(r)
	if n := strings.Count(out, "\n") + 1; n != 11 {
		t.Fatalf("%d attacks: %s", n, out)
	}
	for line := range strings.Lines(out) {
		if strings.HasSuffix(strings.TrimSpace(line), " done") {
			t.Errorf("a mapped root may do that: %s", line)
		}
	}
	var st unix.Stat_t
	l.must(unix.Stat(l.root("tmp/own"), &st))
	if st.Uid != 100000 || st.Gid != 100000 {
		t.Errorf("its file belongs to %d:%d", st.Uid, st.Gid)
	}
}

// Seccomp is in force for every way into the kernel that an x86-64 machine has.
func TestSeccompHoldsForEveryCallingConvention(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("x32 and i386 are calling conventions of amd64")
	}
	l := newLab(t)
	programs := map[string][]byte{
		"native": program64("/tmp/made", byNative), "x32": program64("/tmp/made", byX32), "int80": program64("/tmp/made", byInt80), "i386": program32("/tmp/made"),
	}
	for name, b := range programs {
		l.must(os.WriteFile(l.root("bin/"+name), b, 0o755))
	}
	deny := func(archs ...specs.Arch) edit {
		return func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: archs, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno},
			}}
		}
	}
	made := func() bool {
		_, err := os.Stat(l.root("tmp/made"))
		_ = os.Remove(l.root("tmp/made"))
		return err == nil
	}
	// The programs work: without a filter the native and the i386 one make the folder (x32 is off in most kernels).
	for _, name := range []string{"native", "int80", "i386"} {
		r := l.run(args("/bin/" + name))
		if !made() {
			t.Logf("%s makes no folder without a filter either: %d %s", name, r.code, r.err)
			if name == "native" {
				t.Error("the attack is broken")
			}
		}
	}
	for what, archs := range map[string][]specs.Arch{
		"all three": {specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, "x86-64 only": {specs.ArchX86_64}, "none named": nil,
	} {
		for name := range programs {
			r := l.run(args("/bin/"+name), deny(archs...))
			if made() || r.code == 0 {
				t.Errorf("architectures %s: %s gets past the filter (exit code %d)", what, name, r.code)
			}
		}
	}
}

// The default profile holds, for i386 and x32 too: no new user namespace, no keyring, no mount.
func TestDefaultSeccompProfile(t *testing.T) {
	l := newLab(t)
	filter, err := defaults.Seccomp([]string{"CAP_CHOWN", "CAP_SYS_CHROOT"})
	l.must(err)
	profile := func(s *specs.Spec) { s.Linux.Seccomp = filter }
	for name, call := range map[string][]string{
		"unshare(NEWUSER)": {strconv.Itoa(unix.SYS_UNSHARE), "0x10000000"},
		"clone(NEWUSER)":   {strconv.Itoa(unix.SYS_CLONE), "0x10000011"},
		"keyctl":           {strconv.Itoa(unix.SYS_KEYCTL), "0", "0"},
		"add_key":          {strconv.Itoa(unix.SYS_ADD_KEY)},
		"bpf":              {strconv.Itoa(unix.SYS_BPF), "0"},
		"mount":            {strconv.Itoa(unix.SYS_MOUNT)},
		"open_by_handle":   {strconv.Itoa(unix.SYS_OPEN_BY_HANDLE_AT)},
		"kexec_load":       {strconv.Itoa(unix.SYS_KEXEC_LOAD)},
		"userfaultfd":      {strconv.Itoa(unix.SYS_USERFAULTFD)},
		"pivot_root":       {strconv.Itoa(unix.SYS_PIVOT_ROOT)},
		"io_uring_setup":   {strconv.Itoa(unix.SYS_IO_URING_SETUP), "1", "0"},
	} {
		out := l.ok(l.run(attacker(append([]string{"call"}, call...)...), profile))
		if out != "EPERM" && out != "ENOSYS" {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// Setgid and ambient leaks: groups, inheritable and ambient capabilities, securebits of the caller end at the container.
func TestCallersRightsDoNotGetIn(t *testing.T) {
	l := newLab(t)
	rich := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: 0, Gid: 0, Groups: []uint32{0, 4, 27, 999}},
			AmbientCaps: []uintptr{unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN},
		}
	}
	poor := func(status, what string) {
		t.Helper()
		for name, want := range map[string]string{
			"Groups": "", "Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001",
			"CapInh": strings.Repeat("0", 16), "CapPrm": strings.Repeat("0", 16), "CapEff": strings.Repeat("0", 16), "CapAmb": strings.Repeat("0", 16),
		} {
			if got := field(status, name); got != want {
				t.Errorf("%s: %s is %q, want %q", what, name, got, want)
			}
		}
	}
	user := func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1001} }
	poor(l.ok(l.runCalled(rich, args("cat", "/proc/self/status"), user)), "init")
	id := l.start(args("sleep", "1000"), user)
	poor(l.ok(l.command(rich, "exec", id, "cat", "/proc/self/status")), "exec")
	// A root without capabilities stays without them: ambient ones would be there after the exec.
	none := func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{} }
	status := l.ok(l.runCalled(rich, args("cat", "/proc/self/status"), none))
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if got := field(status, set); got != strings.Repeat("0", 16) {
			t.Errorf("root without capabilities: %s is %s", set, got)
		}
	}
	if got := field(status, "Groups"); got != "" {
		t.Errorf("root has the caller's groups %s", got)
	}
	// A set-user-id program of the image gives a user nothing under no_new_privs.
	l.must(os.Chmod(l.root("bin/busybox"), 0o4755|os.ModeSetuid))
	status = l.ok(l.run(args("cat", "/proc/self/status"), user, func(s *specs.Spec) { s.Process.NoNewPrivileges = true }))
	if got := field(status, "Uid"); got != "1000 1000 1000 1000" {
		t.Errorf("a set-user-id program under no_new_privs runs as %s", got)
	}
}

// Signals that the caller ignores or blocks are neither in the container.
func TestSignalMasksDoNotGetIn(t *testing.T) {
	l := newLab(t)
	deaf := func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"env", "--ignore-signal=HUP", "--ignore-signal=INT", "--ignore-signal=PIPE", "--block-signal=USR1", "--block-signal=TERM"}, cmd.Args...)
		path, err := exec.LookPath("env")
		l.must(err)
		cmd.Path = path
	}
	check := func(what, status string) {
		t.Helper()
		for _, f := range []string{"SigBlk", "SigIgn", "SigCgt"} {
			if got := field(status, f); got != strings.Repeat("0", 16) {
				t.Errorf("%s: %s is %s", what, f, got)
			}
		}
	}
	check("init", l.ok(l.runCalled(deaf, args("cat", "/proc/self/status"))))
	id := l.start(args("sleep", "1000"))
	check("exec", l.ok(l.command(deaf, "exec", id, "cat", "/proc/self/status")))
	out := l.ok(l.command(deaf, "exec", id, "cat", "/proc/1/status"))
	check("the init of another", out)
}

// The caller's environment stays outside.
func TestCallersEnvironmentDoesNotGetIn(t *testing.T) {
	l := newLab(t)
	with := func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "SECRET=1", "LD_PRELOAD=/x", "NOTIFY_SOCKET=/x", "_LIBCONTAINER_INITPIPE=3", "GODEBUG=x=1")
	}
	for _, out := range []string{
		l.ok(l.runCalled(with, args("cat", "/proc/self/environ"))),
		l.ok(l.command(with, "exec", l.start(args("sleep", "1000")), "cat", "/proc/self/environ")),
	} {
		for _, w := range []string{"SECRET", "LD_PRELOAD", "NOTIFY", "LIBCONTAINER", "GODEBUG"} {
			if strings.Contains(out, w) {
				t.Errorf("%s got in: %q", w, out)
			}
		}
	}
}

// Huge environments: up to what the kernel takes, and a plain error beyond it.
func TestHugeEnvironment(t *testing.T) {
	l := newLab(t)
	const longest = 128<<10 - 1 // MAX_ARG_STRLEN with its zero byte
	env := func(n, size int) edit {
		return func(s *specs.Spec) {
			for i := range n {
				name := fmt.Sprintf("V%02d=", i)
				s.Process.Env = append(s.Process.Env, name+strings.Repeat("x", size-len(name)))
			}
		}
	}
	// Its stack limit, a quarter of which arguments may fill, is 8 MiB.
	out := l.ok(l.run(attacker("environment"), env(14, longest)))
	var total, max int
	fmt.Sscan(out, &total, &max)
	if total < 14*longest || max != longest {
		t.Errorf("%s", out)
	}
	id := l.start(args("sleep", "1000"), env(14, longest))
	fmt.Sscan(l.ok(l.command(nil, "exec", id, "/bin/"+attackerName, "environment")), &total, &max)
	if total < 14*longest {
		t.Errorf("exec has %d bytes", total)
	}
	for what, e := range map[string]edit{"one too long": env(1, longest+1), "too many": env(40, longest)} {
		r := l.run(args("true"), e)
		if r.code == 0 || !strings.Contains(r.err, "argument list too long") {
			t.Errorf("%s: exit code %d: %.200s", what, r.code, r.err)
		}
	}
}

// 4,000 mounts in one container.
func TestFourThousandMounts(t *testing.T) {
	l := newLab(t)
	source := filepath.Join(l.dir, "source")
	l.must(os.Mkdir(source, 0o755))
	r := l.run(args("sh", "-c", "wc -l < /proc/self/mountinfo"), func(s *specs.Spec) {
		for i := range 4000 {
			bind(source, fmt.Sprintf("/mnt/%d", i))(s)
		}
	})
	if n, _ := strconv.Atoi(l.ok(r)); n < 4000 {
		t.Errorf("%d mounts", n)
	}
	if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), l.dir) {
		t.Error("some are on the host")
	}
}
