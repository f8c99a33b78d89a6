package oci

import (
	"bytes"
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
	probeName = "oci-probe"      // this test's own program, inside containers
	limit     = 10 * time.Second // for one command
)

// rig is a runtime with what its clauses share: a folder with a busybox and the probe to link into roots.
type rig struct {
	argv   []string // the runtime
	dir    string
	group  string // the parent of all cgroups, "/tare-oci-…"
	prefix string // of ids
}

func tareRun(t *testing.T) string {
	t.Helper()
	return filepath.Join(harness.Programs(t), "tare-run")
}

func newRig(t *testing.T, path string) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "tare-oci-")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{argv: command(t, path), dir: dir, prefix: fmt.Sprintf("c%08x", rand.Uint32())}
	r.group = "/tare-oci-" + r.prefix
	t.Cleanup(func() {
		r.removeGroups(r.group)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the folder of the tests can't be removed: %v", err)
		}
	})
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox is not installed (test/deps.sh)")
	}
	_ = os.Chmod(dir, 0o755) // users of the containers go through it
	self := static(t, dir)
	for name, from := range map[string]string{"busybox": busybox, probeName: self} {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// hideUnified starts a program in a mount namespace without the second cgroup hierarchy: crun refuses to run beside it.
const hideUnified = `mount --make-private /sys/fs/cgroup && umount /sys/fs/cgroup/unified && exec "$0" "$@"`

// command is how a runtime is started.
func command(t *testing.T, path string) []string {
	t.Helper()
	controllers, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers")
	if filepath.Base(path) != "crun" || err != nil || len(bytes.TrimSpace(controllers)) == 0 {
		return []string{path}
	}
	return []string{"unshare", "--mount", "--propagation", "unchanged", "sh", "-c", hideUnified, path}
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
	cmd := exec.Command("go", "test", "-c", "-o", file, "tare/test/oci")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	return file
}

// removeGroups removes cgroups that containers left, in all hierarchies.
func (r *rig) removeGroups(group string) {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
	for _, top := range append(tops, "/sys/fs/cgroup"+group) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, d := range dirs {
			_ = os.Remove(d)
		}
	}
}

// broken is what a failed clause panics with.
type broken string

// run checks a clause; what it returns says what is wrong, "" nothing.
func (r *rig) run(cl clause) (said string) {
	c := &check{rig: r}
	defer func() {
		for _, f := range slices.Backward(c.cleanups) {
			f()
		}
		if c.dir != "" {
			if err := os.RemoveAll(c.dir); err != nil && said == "" {
				said = "the runtime left something: " + err.Error()
			}
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			b, ok := p.(broken)
			if !ok {
				panic(p)
			}
			said = string(b)
		}
	}()
	c.dir, _ = os.MkdirTemp(r.dir, "c-")
	_ = os.Chmod(c.dir, 0o755)
	cl.check(c)
	return ""
}

// check is a clause at work. Its methods end the clause where something is wrong.
type check struct {
	*rig
	dir      string
	count    int
	cleanups []func()
}

func (c *check) failf(format string, args ...any) {
	panic(broken(fmt.Sprintf(format, args...)))
}

func (c *check) must(err error) {
	if err != nil {
		c.failf("%v", err)
	}
}

func (c *check) equal(what, got, want string) {
	if got != want {
		c.failf("%s: got %q, want %q", what, got, want)
	}
}

func (c *check) contains(what, text, word string) {
	if !strings.Contains(text, word) {
		c.failf("%s: %q is not in %q", what, word, text)
	}
}

func (c *check) cleanup(f func()) { c.cleanups = append(c.cleanups, f) }

// until waits for something that happens outside of this process.
func (c *check) until(what string, f func() bool) {
	for end := time.Now().Add(limit); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.failf("%s did not happen", what)
		}
	}
}

// result is what a command of the runtime did.
type result struct {
	code        int
	out, errout string
}

// all is everything it said.
func (r result) all() string { return r.out + r.errout }

// command runs the runtime. Its streams are files: what containers inherit of them must not keep this waiting.
func (c *check) command(args ...string) result { return c.commandFrom(nil, args...) }

func (c *check) commandFrom(edit func(*exec.Cmd), args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := c.runtime(ctx, args...)
	out, err := os.CreateTemp(c.dir, "out-")
	c.must(err)
	defer out.Close()
	errout, err := os.CreateTemp(c.dir, "err-")
	c.must(err)
	defer errout.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, errout, c.dir
	if edit != nil {
		edit(cmd)
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.failf("%s: %v", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		c.failf("%s does not end", strings.Join(args, " "))
	}
	o, _ := os.ReadFile(out.Name())
	e, _ := os.ReadFile(errout.Name())
	return result{cmd.ProcessState.ExitCode(), string(o), string(e)}
}

// runtime is a command line of the runtime, with a root for states of the clause's own.
func (c *check) runtime(ctx context.Context, args ...string) *exec.Cmd {
	words := append(slices.Clone(c.argv[1:]), "--root", filepath.Join(c.dir, "state"))
	return exec.CommandContext(ctx, c.argv[0], append(words, args...)...)
}

// ok runs a command that must succeed and returns what it said on stdout.
func (c *check) ok(args ...string) string {
	r := c.command(args...)
	if r.code != 0 {
		c.failf("%s: exit code %d: %s", strings.Join(args, " "), r.code, r.all())
	}
	return r.out
}

// fails runs a command that must not succeed and returns what it said.
func (c *check) fails(args ...string) string {
	r := c.command(args...)
	if r.code == 0 {
		c.failf("%s succeeds", strings.Join(args, " "))
	}
	return r.all()
}

// edit changes the spec of a bundle.
type edit func(*specs.Spec)

// container is an id with a bundle; it is forced away when the clause ends.
type container struct {
	c      *check
	id     string
	bundle string
	group  string
}

func (ct *container) rootfs(path string) string { return filepath.Join(ct.bundle, "rootfs", path) }

// prepare makes a bundle.
func (c *check) prepare(edits ...edit) *container {
	c.count++
	id := fmt.Sprintf("%s-%s-%d", c.prefix, strings.TrimPrefix(filepath.Base(c.dir), "c-"), c.count)
	ct := &container{c: c, id: id, bundle: filepath.Join(c.dir, "b"+strconv.Itoa(c.count)), group: c.group + "/" + id}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "root", "mnt"} {
		c.must(os.MkdirAll(ct.rootfs(dir), 0o755))
	}
	c.must(os.Chmod(ct.rootfs("tmp"), 0o1777))
	c.must(os.Link(filepath.Join(c.rig.dir, "busybox"), ct.rootfs("bin/busybox")))
	c.must(os.Link(filepath.Join(c.rig.dir, probeName), ct.rootfs("bin/"+probeName)))
	for _, applet := range strings.Fields("sh cat ls id stat grep touch mount sleep hostname env echo pwd readlink kill true mkdir tty stty head test cut dd mknod dirname chmod ps sort tr") {
		c.must(os.Symlink("busybox", ct.rootfs("bin/"+applet)))
	}
	c.must(os.WriteFile(ct.rootfs("etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"), 0o644))
	s := defaultSpec()
	s.Linux.CgroupsPath = ct.group
	for _, e := range edits {
		e(s)
	}
	ct.write(s)
	return ct
}

func (ct *container) write(s *specs.Spec) {
	b, err := json.MarshalIndent(s, "", "\t")
	ct.c.must(err)
	ct.writeText(string(b))
}

func (ct *container) writeText(text string) {
	ct.c.must(os.WriteFile(filepath.Join(ct.bundle, "config.json"), []byte(text), 0o644))
	c := ct.c
	c.cleanup(func() { ct.remove() })
}

// remove forces the container away, whatever became of it.
func (ct *container) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_ = ct.c.runtime(ctx, "delete", "-f", ct.id).Run()
	ct.c.removeGroups(ct.group)
}

func defaultSpec() *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"}
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"true"}, Cwd: "/",
			Env:          []string{"PATH=/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: "clause",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

// Edits that many clauses make.

func args(a ...string) edit                 { return func(s *specs.Spec) { s.Process.Args = a } }
func script(text string) edit               { return args("sh", "-c", text) }
func onProcess(f func(*specs.Process)) edit { return func(s *specs.Spec) { f(s.Process) } }
func onLinux(f func(*specs.Linux)) edit     { return func(s *specs.Spec) { f(s.Linux) } }
func mounted(m ...specs.Mount) edit {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m...) }
}

func without(kind specs.LinuxNamespaceType) edit {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	}
}

func joining(kind specs.LinuxNamespaceType, path string) edit {
	return func(s *specs.Spec) {
		without(kind)(s)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
}

func capabilities(names ...string) edit {
	return onProcess(func(p *specs.Process) {
		p.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
	})
}

// run runs it in the foreground; it must end with 0. What it wrote is returned without spaces around.
func (ct *container) run() string {
	r := ct.tryRun()
	if r.code != 0 {
		ct.c.failf("run: exit code %d: %s", r.code, r.all())
	}
	return strings.TrimSpace(r.out)
}

func (ct *container) tryRun(flags ...string) result {
	return ct.c.command(append(append([]string{"run", "--bundle", ct.bundle}, flags...), ct.id)...)
}

// sh runs a script in a container with a changed spec and returns what it wrote.
func (c *check) sh(text string, edits ...edit) string {
	return c.prepare(append([]edit{script(text)}, edits...)...).run()
}

// probe runs one of this program's own words in a container.
func (c *check) probe(words []string, edits ...edit) string {
	return c.prepare(append([]edit{args(append([]string{"/bin/" + probeName}, words...)...)}, edits...)...).run()
}

// refused makes a container that create must refuse; it returns what was said. Nothing may stay.
func (c *check) refused(edits ...edit) string {
	ct := c.prepare(edits...)
	said := c.fails("create", "--bundle", ct.bundle, ct.id)
	if r := c.command("state", ct.id); r.code == 0 {
		c.failf("a container that could not be created is there: %s", r.out)
	}
	return said
}

// create makes a container and leaves it there.
func (c *check) create(edits ...edit) *container {
	ct := c.prepare(edits...)
	c.ok("create", "--bundle", ct.bundle, ct.id)
	return ct
}

// running is one that sleeps.
func (c *check) running(edits ...edit) *container {
	ct := c.create(append([]edit{args("sleep", "1000")}, edits...)...)
	ct.start()
	return ct
}

func (ct *container) start() { ct.c.ok("start", ct.id) }

// state asks for the container's state; it must be there.
func (ct *container) state() specs.State {
	var s specs.State
	ct.c.must(json.Unmarshal([]byte(ct.c.ok("state", ct.id)), &s))
	return s
}

func (ct *container) status() string { return string(ct.state().Status) }

// stopped waits until the container's process has ended.
func (ct *container) stopped() {
	ct.c.until("the end of "+ct.id, func() bool { return ct.status() == "stopped" })
}

// exec runs a command in it and returns what it wrote.
func (ct *container) exec(command ...string) string {
	return strings.TrimSpace(ct.c.ok(append([]string{"exec", ct.id}, command...)...))
}

// inside reads a file as the container's init sees it.
func (ct *container) inside(path string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", ct.state().Pid, path))
	ct.c.must(err)
	return string(b)
}

// kill -9, wait, delete.
func (ct *container) end() {
	ct.c.ok("kill", ct.id, "KILL")
	ct.stopped()
	ct.c.ok("delete", ct.id)
}

// controller reads a file of the container's cgroup; "" where the hierarchy is not there.
func (ct *container) controller(name, file string) string {
	b, err := os.ReadFile(filepath.Join(ct.cgroup(name), file))
	ct.c.must(err)
	return strings.TrimSpace(string(b))
}

func (ct *container) cgroup(controller string) string {
	if unifiedCgroup() {
		return filepath.Join("/sys/fs/cgroup", ct.group)
	}
	return filepath.Join("/sys/fs/cgroup", controller, ct.group)
}

func unifiedCgroup() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// field is the value of a line "NAME: value" of /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	return ""
}

func ptr[T any](v T) *T { return &v }

func read(c *check, file string) string {
	b, err := os.ReadFile(file)
	c.must(err)
	return strings.TrimSpace(string(bytes.TrimSpace(b)))
}
