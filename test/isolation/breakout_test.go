package isolation

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CVE-2019-5736: a privileged process in the container opens the runtime through /proc/PID/exe while it execs, and writes to it.
func TestProcSelfExeCanNotBeOverwritten(t *testing.T) {
	l := newLab(t)
	before := digest(t, l.runtime)
	l.must(os.Symlink("/proc/self/exe", l.root("bin/again")))
	l.must(os.WriteFile(l.root("bin/script"), []byte("#!/proc/self/exe\n"), 0o755))
	id := l.create(attacker("steal-exe"), strong)
	out, err := os.Create(filepath.Join(l.dir, "attacker"))
	l.must(err)
	defer out.Close()
	l.ok(l.command(nil, "start", id))
	l.until("the attacker's start", func() bool { _, err := os.Stat(l.root("ready")); return err == nil })
	for range 8 {
		for _, program := range []string{"/bin/again", "/bin/script", "/proc/self/exe", "true"} {
			l.command(nil, "exec", id, program)
		}
	}
	// The stage of a second container in the same pid namespace waits in front of the attacker.
	waiting := l.create(func(s *specs.Spec) {
		s.Linux.Namespaces[0].Path = fmt.Sprintf("/proc/%d/ns/pid", l.pid(id))
	})
	for range 5 {
		l.command(nil, "exec", id, "true")
	}
	l.command(nil, "delete", "--force", waiting)
	if !bytes.Equal(before, digest(t, l.runtime)) {
		t.Error("the runtime was overwritten")
	}
	l.must(os.WriteFile(l.root("stop"), nil, 0o644))
	l.until("the attacker's end", func() bool { return strings.Contains(l.command(nil, "state", id).out, `"stopped"`) })
	if r := l.run(); r.code != 0 {
		t.Errorf("the runtime is damaged: %s", r.err)
	}
}

// CVE-2019-5736, the other way: an image whose program is the runtime itself.
func TestProgramThatIsTheRuntimeItself(t *testing.T) {
	l := newLab(t)
	before := digest(t, l.runtime)
	for _, program := range []string{"/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe"} {
		l.run(args(program, "--version"), strong)
	}
	if !bytes.Equal(before, digest(t, l.runtime)) {
		t.Error("the runtime was overwritten")
	}
}

// CVE-2024-21626: descriptors of the host in the container, of init, of exec, and of the stage that waits.
func TestHostDescriptorsDoNotLeak(t *testing.T) {
	l := newLab(t)
	leaky := func(cmd *exec.Cmd) {
		dir, err := os.Open("/")
		l.must(err)
		t.Cleanup(func() { dir.Close() })
		cmd.ExtraFiles = []*os.File{dir, dir, dir, dir, dir, dir} // 3 to 8
	}
	check := func(what, out string) {
		t.Helper()
		for line := range strings.Lines(out) {
			fd, target, _ := strings.Cut(strings.TrimSpace(line), " ")
			if fd > "2" || len(fd) > 1 {
				t.Errorf("%s has descriptor %s, %s", what, fd, target)
			}
		}
		if !strings.Contains(out, "0 ") {
			t.Errorf("%s did not look: %q", what, out)
		}
	}
	check("init", l.ok(l.runCalled(leaky, attacker("descriptors"))))
	id := l.start(args("sleep", "1000"))
	check("exec", l.ok(l.command(leaky, "exec", id, "/bin/"+attackerName, "descriptors")))
}

// CVE-2024-21626: a working directory that is a descriptor of the runtime, by name and by a link in the image, for init and exec.
func TestWorkingDirectoryIsNoDescriptorOfTheHost(t *testing.T) {
	l := newLab(t)
	secret := filepath.Join(l.dir, "secret")
	l.must(os.WriteFile(secret, []byte("secret"), 0o644))
	paths := []string{"/proc/self/cwd", "/proc/self/root/../..", "/proc/1/cwd", "/proc/self/fd", "/link", "/../../.."}
	l.must(os.Symlink("/proc/self/fd/7", l.root("link")))
	for fd := range 24 {
		paths = append(paths, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	dir, err := os.Open("/")
	l.must(err)
	defer dir.Close()
	leaky := func(cmd *exec.Cmd) {
		cmd.Dir = l.dir
		cmd.ExtraFiles = []*os.File{dir, dir, dir}
	}
	look := func(what string, r result) {
		t.Helper()
		if strings.Contains(r.out, "FOUND") {
			t.Errorf("%s shows the host's files: %s", what, r.out)
		}
	}
	id := l.start(args("sleep", "1000"))
	for _, p := range paths {
		look("init in "+p, l.runCalled(leaky, attacker("outside", secret), strong, func(s *specs.Spec) { s.Process.Cwd = p }))
		look("exec in "+p, l.command(leaky, "exec", "--cwd", p, id, "/bin/"+attackerName, "outside", secret))
	}
	if r := l.command(nil, "exec", "--cwd", "/proc/self/fd/0", id, "true"); r.code == 0 {
		t.Error("a descriptor is a working directory")
	}
}

// CVE-2021-30465: the target of a mount lies in a volume, where a neighbour exchanges a folder with a link to the host.
func TestMountTargetThatIsExchangedStaysInside(t *testing.T) {
	l := newLab(t)
	volume, host := filepath.Join(l.dir, "volume"), filepath.Join(l.dir, "host")
	for _, d := range []string{volume + "/target/m", host + "/m"} {
		l.must(os.MkdirAll(d, 0o755))
	}
	l.must(os.Symlink(host, volume+"/link"))
	swaps, _ := l.exchange(volume+"/target", volume+"/link")
	started := 0
	for range 40 {
		r := l.run(args("cat", "/proc/self/mountinfo"), bind(volume, "/volume"), func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/volume/target/m", Type: "tmpfs", Source: "raced", Options: []string{"size=12k"}})
		})
		if r.code != 0 {
			continue
		}
		started++
		// A mount that landed on the host's folder is gone with the old root: the container would not see it.
		if n := strings.Count(r.out, " raced "); n != 1 {
			t.Fatalf("%d of the raced mounts are inside: %s", n, r.out)
		}
	}
	if swaps() < 100 || started == 0 {
		t.Errorf("no race: %d exchanges, %d starts", swaps(), started)
	}
	if entries, _ := os.ReadDir(host + "/m"); len(entries) != 0 {
		t.Error("the host's folder was written to")
	}
}

// CVE-2025-31133: /dev/null of the image is a link; what is masked would become what it points to.
func TestMaskedPathsThroughALinkAtDevNull(t *testing.T) {
	l := newLab(t)
	l.must(os.WriteFile(l.root("masked"), []byte("secret"), 0o644))
	for _, target := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/etc/victim", "../proc/sys/kernel/core_pattern"} {
		l.must(os.WriteFile(l.root("etc/victim"), []byte("victim"), 0o666))
		_ = os.Remove(l.root("dev/null"))
		l.must(os.Symlink(target, l.root("dev/null")))
		r := l.run(args("sh", "-c", "cat /masked; cat /proc/self/mountinfo"), withoutDev, strong, func(s *specs.Spec) {
			s.Linux.MaskedPaths = []string{"/masked", "/proc/kcore", "/proc/timer_list"}
			s.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/sysrq-trigger"}
		})
		if r.code == 0 && (strings.Contains(r.out, "victim") || strings.Contains(r.out, "core_pattern") || strings.Contains(r.out, "secret")) {
			t.Errorf("/dev/null to %s: %s", target, r.out)
		}
	}
}

// CVE-2025-31133 and masked-path races: /dev/null is exchanged with a link while the container starts.
func TestMaskedPathsWhileDevNullIsExchanged(t *testing.T) {
	l := newLab(t)
	l.must(os.WriteFile(l.root("masked"), []byte("secret"), 0o644))
	l.must(os.WriteFile(l.root("etc/victim"), []byte("victim"), 0o644))
	l.must(unix.Mknod(l.root("dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	l.must(os.Symlink("/etc/victim", l.root("dev/link")))
	swaps, _ := l.exchange(l.root("dev/null"), l.root("dev/link"))
	started := 0
	for range 40 {
		r := l.run(args("cat", "/masked"), withoutDev, func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/masked"} })
		if r.code == 0 {
			started++
		}
		if strings.Contains(r.out, "secret") || strings.Contains(r.out, "victim") {
			t.Fatalf("the masked file is %q", r.out)
		}
	}
	if swaps() < 100 {
		t.Errorf("no race: %d exchanges", swaps())
	}
	t.Logf("%d of 40 started", started)
}

// Masked-path races: the folder that /proc is mounted on is exchanged with a link.
func TestMaskedPathsWhileProcIsExchanged(t *testing.T) {
	l := newLab(t)
	l.must(os.MkdirAll(l.root("fake/sys/kernel"), 0o755))
	l.must(os.Symlink("/fake", l.root("plink")))
	started, raced := 0, 0
	for range 40 {
		id := l.id()
		l.write(id, strong, func(s *specs.Spec) {
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/proc/kallsyms", "/proc/timer_list"}, []string{"/proc/sys"}
		})
		swaps, _ := l.exchange(l.root("proc"), l.root("plink"))
		r := l.command(nil, "create", "--bundle", filepath.Join(l.dir, "bundle"), id)
		raced += swaps()
		if r.code != 0 {
			continue
		}
		started++
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", l.pid(id)))
		l.must(err)
		l.command(nil, "delete", "--force", id)
		// Where the proc is by now, there must be its masks.
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 5 || !strings.Contains(line, " - proc ") || f[3] != "/" {
				continue
			}
			for _, want := range []string{f[4] + "/kallsyms ", f[4] + "/timer_list ", f[4] + "/sys ro"} {
				if strings.Contains(want, "timer_list") && !exists("/proc/timer_list") {
					continue
				}
				if !strings.Contains(string(b), " "+want) {
					t.Fatalf("a proc without %q: %s", want, b)
				}
			}
		}
	}
	if raced < 100 || started == 0 {
		t.Errorf("no race: %d exchanges, %d of 40 started", raced, started)
	}
}

func exists(file string) bool { _, err := os.Lstat(file); return err == nil }

// CVE-2025-52565: /dev/console of the image is a link; the terminal would be mounted on what it points to.
func TestConsoleThroughALink(t *testing.T) {
	l := newLab(t)
	for _, kind := range []string{"proc", "host", "dangling", "fifo", "directory"} {
		_ = os.RemoveAll(l.root("dev"))
		l.must(os.MkdirAll(l.root("dev/pts"), 0o755))
		switch kind {
		case "proc":
			l.must(os.Symlink("/proc/sys/kernel/core_pattern", l.root("dev/console")))
		case "host":
			l.must(os.Symlink(strings.Repeat("../", 30)+filepath.Join(l.dir, "made-on-host"), l.root("dev/console")))
		case "dangling":
			l.must(os.Symlink("/proc/self/fd/6", l.root("dev/console")))
		case "fifo":
			l.must(unix.Mkfifo(l.root("dev/console"), 0o600))
		case "directory":
			l.must(os.Mkdir(l.root("dev/console"), 0o755))
		}
		r := l.run(args("sh", "-c", "cat /proc/self/mountinfo"), strong, func(s *specs.Spec) {
			withoutDev(s)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}})
			s.Process.Terminal = true
		})
		for line := range strings.Lines(r.out) {
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], "/proc/") {
				t.Errorf("%s: the terminal is mounted on %s", kind, f[4])
			}
		}
		if _, err := os.Lstat(filepath.Join(l.dir, "made-on-host")); err == nil {
			t.Errorf("%s: a file was made on the host", kind)
		}
	}
}

// CVE-2025-52565: the races, of /dev/console and of /dev/pts/ptmx.
func TestConsoleWhileItIsExchanged(t *testing.T) {
	l := newLab(t)
	l.must(os.MkdirAll(l.root("dev/pts"), 0o755))
	l.must(os.WriteFile(l.root("dev/console"), nil, 0o600))
	l.must(os.Symlink("/proc/sys/kernel/core_pattern", l.root("dev/link")))
	swaps, _ := l.exchange(l.root("dev/console"), l.root("dev/link"))
	for range 40 {
		r := l.run(args("cat", "/proc/self/mountinfo"), strong, func(s *specs.Spec) {
			withoutDev(s)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}})
			s.Process.Terminal = true
		})
		for line := range strings.Lines(r.out) {
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], "/proc/") {
				t.Fatalf("the terminal is mounted on %s", f[4])
			}
		}
	}
	if swaps() < 100 {
		t.Errorf("no race: %d exchanges", swaps())
	}
}

// CVE-2025-52881: what the runtime writes to /proc must not land in a file that the image, or a volume, put there.
func TestProcWritesAreNotRedirected(t *testing.T) {
	l := newLab(t)
	volume := filepath.Join(l.dir, "volume")
	victim := filepath.Join(volume, "victim")
	for _, d := range []string{"net/ipv4", "kernel", "self/attr", "thread-self/attr"} {
		l.must(os.MkdirAll(filepath.Join(volume, d), 0o755))
	}
	for _, f := range []string{"net/ipv4/ip_forward", "kernel/shmmni", "self/oom_score_adj", "self/attr/exec", "thread-self/attr/exec", "self/uid_map"} {
		l.must(os.Symlink(victim, filepath.Join(volume, f)))
	}
	untouched := func(what string) {
		t.Helper()
		b, err := os.ReadFile(victim)
		if err == nil && string(b) != "victim" {
			t.Errorf("%s: the victim is %q", what, b)
		}
		l.must(os.WriteFile(victim, []byte("victim"), 0o666))
	}
	untouched("before")
	values := func(s *specs.Spec) {
		strong(s)
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmni": "600"}
		s.Process.OOMScoreAdj = new(int)
		*s.Process.OOMScoreAdj = 321
	}
	for _, at := range []string{"/proc/sys", "/proc", "/proc/self", "/proc/sys/net"} {
		l.run(args("true"), values, bind(volume, at))
		untouched("a volume at " + at)
	}
	// A /proc that is a link, in the image.
	l.must(os.Rename(l.root("proc"), l.root("real-proc")))
	l.must(os.Symlink("/volume", l.root("proc")))
	l.run(args("true"), values, bind(volume, "/volume"))
	untouched("a link at /proc")
	l.must(os.Remove(l.root("proc")))
	l.must(os.Rename(l.root("real-proc"), l.root("proc")))
	// The container itself covers its /proc, and somebody execs.
	id := l.start(args("sh", "-c", "mount -o bind /volume /proc && touch /covered; sleep 1000"), values, bind(volume, "/volume"))
	l.until("the cover", func() bool { _, err := os.Stat(l.root("covered")); return err == nil })
	l.command(nil, "exec", id, "true")
	l.command(nil, "exec", "--user", "1000", "--cwd", "/tmp", "--cap", "CAP_KILL", id, "true")
	untouched("exec under a covered /proc")
}

// Bind over /proc: a volume there would feed every program in the container, and what the runtime reads after.
func TestMountsOverProcAreRefused(t *testing.T) {
	l := newLab(t)
	volume := filepath.Join(l.dir, "volume")
	l.must(os.MkdirAll(volume+"/sys", 0o755))
	l.must(os.WriteFile(volume+"/file", []byte("lies"), 0o644))
	l.must(os.Symlink("/proc", l.root("link")))
	l.must(os.Symlink("/proc/sys", l.root("deep")))
	for _, at := range []string{"/proc", "/proc/sys", "/proc/self", "/proc/1", "/link", "/link/sys", "/deep", "/proc/../proc/sys", "/proc/acpi/../sys"} {
		if r := l.run(args("true"), bind(volume, at)); r.code == 0 {
			t.Errorf("a volume on %s is allowed", at)
		}
		if r := l.run(args("true"), func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs"})
		}); r.code == 0 {
			t.Errorf("a tmpfs on %s is allowed", at)
		}
	}
	// What lxcfs and its like put there is not more than a number.
	for _, at := range []string{"/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/uptime", "/proc/loadavg"} {
		if out := l.ok(l.run(args("cat", at), bind(volume+"/file", at))); out != "lies" {
			t.Errorf("%s: %q", at, out)
		}
	}
	// The host's own /proc is one.
	l.ok(l.run(args("true"), func(s *specs.Spec) { s.Mounts = s.Mounts[1:] }, bind("/proc", "/proc"), func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }))
}

// Exec into a container whose root was swapped by its own init: what exec finds is the attacker's, and must neither hang it nor lead out.
func TestExecIntoASwappedRoot(t *testing.T) {
	l := newLab(t)
	secret := filepath.Join(l.dir, "secret")
	l.must(os.WriteFile(secret, []byte("secret"), 0o644))
	id := l.start(attacker("leave-root"), strong)
	l.until("the swap", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/swapped", l.pid(id)))
		return err == nil
	})
	r := l.command(nil, "exec", id, "/bin/"+attackerName, "outside", secret)
	if strings.Contains(r.out, "FOUND") {
		t.Errorf("the host's file is there: %s", r.out)
	}
	if r.code != 0 {
		t.Logf("exec: %s", r.err)
	}
	// Its passwd is a FIFO that nobody writes to: looking up a home there must not wait.
	l.command(nil, "exec", "--user", "1000", id, "/bin/busybox", "true")
	l.command(nil, "exec", "--cwd", "/proc/self/fd/0", id, "/bin/busybox", "true")
	l.ok(l.command(nil, "delete", "--force", id))
}
