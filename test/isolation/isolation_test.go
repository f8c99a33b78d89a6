// Package isolation holds attacks on the runtime, one test each, named after what it prevents: known breakouts of container
// runtimes by their numbers, races against a root that is being changed, and what must not get in from the caller.
//
// An attack is mounted as its author would: by what the image holds, by a process in the container with more rights than a default
// container has, or by a neighbour that writes to a shared folder. Races are bounded by a count of starts, and each test shows that its
// attack took place.
package isolation

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/test/harness"
)

const (
	attackerName = "attacker"       // this test's own program, inside containers
	limit        = 20 * time.Second // for one command
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == attackerName {
		os.Exit(attack(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// lab is a bundle with a runtime of its own: a copy that an attack may damage.
type lab struct {
	t       *testing.T
	dir     string
	runtime string
	group   string
	ids     int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	dir, err := os.MkdirTemp("", "tare-iso-")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir, runtime: filepath.Join(dir, "tare-run"), group: fmt.Sprintf("/tare-iso-%08x", rand.Uint32())}
	t.Cleanup(func() {
		l.removeGroups()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left: %v", err)
		}
	})
	_ = os.Chmod(dir, 0o755)
	copyFile(t, filepath.Join(harness.Programs(t), "tare-run"), l.runtime)
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "mnt"} {
		l.must(os.MkdirAll(l.root(d), 0o755))
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox is not installed (test/deps.sh)")
	}
	copyFile(t, busybox, l.root("bin/busybox"))
	copyFile(t, static(t, dir), l.root("bin/"+attackerName))
	for _, applet := range strings.Fields("sh cat ls sleep true id mkdir mount umount readlink wc touch stat grep kill") {
		l.must(os.Symlink("busybox", l.root("bin/"+applet)))
	}
	return l
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// static is this test's own program in a form that runs in an empty root: itself, if it was built without cgo.
func static(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, _ := f.ImportedLibraries(); len(libs) == 0 {
		return self
	}
	file := filepath.Join(dir, "static")
	cmd := exec.Command("go", "test", "-c", "-o", file, "tare/test/isolation")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	return file
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// root is a path in the container's root.
func (l *lab) root(path string) string { return filepath.Join(l.dir, "bundle/rootfs", path) }

func (l *lab) removeGroups() {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*" + l.group)
	for _, top := range append(tops, "/sys/fs/cgroup"+l.group) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			// What a broken runtime left is killed by the cgroup.
			b, _ := os.ReadFile(filepath.Join(d, "cgroup.procs"))
			for _, w := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(w); err == nil && pid > 1 {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			for end := time.Now().Add(2 * time.Second); errors.Is(os.Remove(d), unix.EBUSY) && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
}

// everyCapability is what --privileged gives: the strongest attacker that still is a container.
var everyCapability = func() []string {
	names := strings.Fields("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW " +
		"IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP")
	for i := range names {
		names[i] = "CAP_" + names[i]
	}
	return names
}()

type edit func(*specs.Spec)

func args(a ...string) edit { return func(s *specs.Spec) { s.Process.Args = a } }

func attacker(words ...string) edit {
	return args(append([]string{"/bin/" + attackerName}, words...)...)
}

func strong(s *specs.Spec) {
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: everyCapability, Effective: everyCapability, Permitted: everyCapability}
}

func bind(source, destination string) edit {
	return func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: destination, Type: "bind", Source: source, Options: []string{"rbind"}})
	}
}

// withoutDev leaves /dev to the image.
func withoutDev(s *specs.Spec) {
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
}

// write makes the bundle's config.json.
func (l *lab) write(id string, edits ...edit) {
	l.t.Helper()
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"}
	s := &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root: &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: l.group + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
	for _, e := range edits {
		e(s)
	}
	b, err := json.Marshal(s)
	l.must(err)
	l.must(os.WriteFile(filepath.Join(l.dir, "bundle/config.json"), b, 0o644))
}

// result is what a command said and how it ended.
type result struct {
	code     int
	out, err string
}

// command runs the runtime; change may alter how it is called.
func (l *lab) command(change func(*exec.Cmd), words ...string) result {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.runtime, append([]string{"--root", filepath.Join(l.dir, "state")}, words...)...)
	out, err := os.CreateTemp(l.dir, "out-")
	l.must(err)
	defer os.Remove(out.Name())
	defer out.Close()
	errout, err := os.CreateTemp(l.dir, "err-")
	l.must(err)
	defer os.Remove(errout.Name())
	defer errout.Close()
	cmd.Stdout, cmd.Stderr = out, errout
	if change != nil {
		change(cmd)
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	if ctx.Err() != nil {
		l.t.Errorf("%s does not end", strings.Join(words, " "))
	}
	o, _ := os.ReadFile(out.Name())
	e, _ := os.ReadFile(errout.Name())
	return result{cmd.ProcessState.ExitCode(), strings.TrimSpace(string(o)), strings.TrimSpace(string(e))}
}

// run is a container in the foreground.
func (l *lab) run(edits ...edit) result {
	l.t.Helper()
	return l.runCalled(nil, edits...)
}

func (l *lab) runCalled(change func(*exec.Cmd), edits ...edit) result {
	l.t.Helper()
	id := l.id()
	l.write(id, edits...)
	return l.command(change, "run", "--bundle", filepath.Join(l.dir, "bundle"), id)
}

func (l *lab) id() string {
	l.ids++
	return fmt.Sprintf("iso%s-%d", strings.TrimPrefix(l.group, "/tare-iso-"), l.ids)
}

// create makes a container that is removed with the test.
func (l *lab) create(edits ...edit) string {
	l.t.Helper()
	id := l.id()
	l.write(id, edits...)
	l.t.Cleanup(func() { l.command(nil, "delete", "--force", id) })
	l.ok(l.command(nil, "create", "--bundle", filepath.Join(l.dir, "bundle"), id))
	return id
}

// start is create and start.
func (l *lab) start(edits ...edit) string {
	l.t.Helper()
	id := l.create(edits...)
	l.ok(l.command(nil, "start", id))
	return id
}

// ok is what a command said that must succeed.
func (l *lab) ok(r result) string {
	l.t.Helper()
	if r.code != 0 {
		l.t.Fatalf("exit code %d: %s %s", r.code, r.out, r.err)
	}
	return r.out
}

func (l *lab) pid(id string) int {
	l.t.Helper()
	var s specs.State
	l.must(json.Unmarshal([]byte(l.ok(l.command(nil, "state", id))), &s))
	return s.Pid
}

// until waits for something that happens in another process.
func (l *lab) until(what string, f func() bool) {
	l.t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("%s did not happen", what)
		}
	}
}

// exchange swaps two names over and over until the test ends: the neighbour that races. Swaps counts how often.
func (l *lab) exchange(a, b string) (swaps func() int, stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	n := 0
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
			}
			if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
				n++
			}
			if n%64 == 0 {
				time.Sleep(time.Microsecond) // two cores are shared with the runtime
			}
		}
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			close(done)
			<-ended
		}
	}
	l.t.Cleanup(stop)
	return func() int { stop(); return n }, stop
}

// field is the value of a line of /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	return ""
}

func digest(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
