package oci

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/launch"
)

// This test binary is tare-run as well.
func TestMain(m *testing.M) {
	launch.StageMain()
	if os.Getenv("TARE_RUN") != "" {
		os.Exit(Main(os.Args, "test"))
	}
	// Orphans of `create` become children of the test, which reaps them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// rig is a bundle, a state folder and an id.
type rig struct {
	t      *testing.T
	root   string
	bundle string
	id     string
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRig(t *testing.T, args ...string) *rig {
	t.Helper()
	b := make([]byte, 6)
	rand.Read(b)
	r := &rig{t: t, root: t.TempDir(), bundle: t.TempDir(), id: "oci-test-" + hex.EncodeToString(b)}
	bin := r.bundle + "/rootfs/bin"
	must(t, os.MkdirAll(bin, 0o755))
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("these tests need busybox-static: test/deps.sh installs it")
	}
	text, err := os.ReadFile(box)
	must(t, err)
	must(t, os.WriteFile(bin+"/busybox", text, 0o755))
	for _, n := range []string{"sh", "sleep", "cat", "echo", "id", "tty", "true", "pwd", "env", "trap", "mknod", "sed", "ls"} {
		must(t, os.Symlink("busybox", bin+"/"+n))
	}
	r.ok("spec", "-b", r.bundle)
	r.edit(func(s *specs.Spec) { s.Process.Args, s.Process.Terminal = args, false })
	t.Cleanup(func() {
		r.run("delete", "--force", r.id)
		if g, err := cgroup.Open("/" + r.id); err == nil {
			if pids, err := g.Pids(); err == nil {
				t.Errorf("the cgroup is left, with %v", pids)
			}
		}
		if entries, _ := os.ReadDir(r.root); len(entries) != 0 {
			t.Errorf("state is left: %v", entries)
		}
	})
	return r
}

func (r *rig) edit(change func(s *specs.Spec)) {
	r.t.Helper()
	b, err := os.ReadFile(r.bundle + "/config.json")
	must(r.t, err)
	s := new(specs.Spec)
	must(r.t, json.Unmarshal(b, s))
	change(s)
	b, err = json.Marshal(s)
	must(r.t, err)
	must(r.t, os.WriteFile(r.bundle+"/config.json", b, 0o644))
}

func (r *rig) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", r.root, "--log", r.bundle + "/log", "--log-format", "json"}, args...)...)
	cmd.Env = append(os.Environ(), "TARE_RUN=1")
	return cmd
}

// run returns stdout and stderr together, and the exit code. Output goes to a
// file, for containers that stay behind would keep a pipe open.
func (r *rig) run(args ...string) (string, int) {
	r.t.Helper()
	out, err := os.CreateTemp(r.bundle, "out")
	must(r.t, err)
	defer out.Close()
	cmd := r.command(args...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	must(r.t, err)
	return string(b), cmd.ProcessState.ExitCode()
}

func (r *rig) ok(args ...string) string {
	r.t.Helper()
	out, code := r.run(args...)
	if code != 0 {
		r.t.Fatalf("%v: exit %d: %s", args, code, out)
	}
	return out
}

func (r *rig) fails(want string, args ...string) int {
	r.t.Helper()
	out, code := r.run(args...)
	if code == 0 || !strings.Contains(out, want) {
		r.t.Errorf("%v: exit %d: %s; want %q", args, code, out, want)
	}
	return code
}

func (r *rig) state() record {
	r.t.Helper()
	var s record
	must(r.t, json.Unmarshal([]byte(r.ok("state", r.id)), &s))
	return s
}

func (r *rig) status(want specs.ContainerState) {
	r.t.Helper()
	if got := r.state().Status; got != want {
		r.t.Errorf("status is %s, want %s", got, want)
	}
}

func reap(pid int) int {
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func TestLife(t *testing.T) {
	r := newRig(t, "sleep", "1000")
	r.edit(func(s *specs.Spec) { s.Annotations = map[string]string{"a": "b"} })
	pidFile := r.bundle + "/pid"
	r.ok("create", "--bundle", r.bundle, "--pid-file", pidFile, r.id)
	s := r.state()
	if s.Status != specs.StateCreated || s.Bundle != r.bundle || s.Annotations["a"] != "b" || s.Version != specs.Version {
		t.Errorf("%+v", s)
	}
	if b, _ := os.ReadFile(pidFile); string(b) != strconv.Itoa(s.Pid) {
		t.Errorf("pid file has %s, pid is %d", b, s.Pid)
	}
	r.fails("already exists", "create", "-b", r.bundle, r.id)
	r.ok("start", r.id)
	r.status(specs.StateRunning)
	r.fails("already running", "start", r.id)
	r.fails("is not stopped", "delete", r.id)
	if out := r.ok("list", "-q"); out != r.id+"\n" {
		t.Error(out)
	}
	if out := r.ok("list"); !strings.Contains(out, r.id) || !strings.Contains(out, "running") {
		t.Error(out)
	}
	if out := r.ok("exec", "-e", "X=y", "--cwd", "/bin", "-u", "7:8", r.id, "sh", "-c", "id -u; id -g; pwd; echo $X"); out != "7\n8\n/bin\ny\n" {
		t.Error(out)
	}
	if _, code := r.run("exec", r.id, "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exec's exit code is %d", code)
	}
	if code := r.fails("executable file not found in $PATH", "exec", r.id, "nosuch"); code != 255 {
		t.Errorf("exit %d", code)
	}
	if code := r.fails("permission denied", "exec", r.id, "/bin"); code != 255 {
		t.Errorf("exit %d", code)
	}
	process := r.bundle + "/process.json"
	must(t, os.WriteFile(process, []byte(`{"args":["echo","from a file"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}`), 0o644))
	if out := r.ok("exec", "-p", process, r.id); out != "from a file\n" {
		t.Error(out)
	}
	if out := r.ok("ps", "--format", "json", r.id); !strings.Contains(out, strconv.Itoa(s.Pid)) {
		t.Error(out)
	}
	if out := r.ok("ps", r.id); !strings.Contains(out, "sleep 1000") {
		t.Error(out)
	}
	r.ok("update", "--pids-limit", "33", "--memory", "67108864", r.id)
	g, err := cgroup.Open("/" + r.id)
	must(t, err)
	if st, err := g.Stats(); err != nil || st.PidsLimit != 33 || st.MemoryLimit != 64<<20 {
		t.Errorf("%+v, %v", st, err)
	}
	r.ok("pause", r.id)
	r.status("paused")
	r.fails("paused", "exec", r.id, "true")
	r.fails("not running", "pause", r.id)
	r.ok("resume", r.id)
	r.fails("not paused", "resume", r.id)
	r.ok("kill", r.id, "KILL")
	if code := reap(s.Pid); code != 137 {
		t.Errorf("init's exit code is %d", code)
	}
	r.status(specs.StateStopped)
	r.fails("not running", "kill", r.id)
	r.fails("stopped", "exec", r.id, "true")
	r.fails("stopped", "start", r.id)
	r.ok("delete", r.id)
	r.fails("does not exist", "state", r.id)
	r.fails("does not exist", "delete", r.id)
	r.ok("delete", "-f", r.id)
}

func TestDeleteForce(t *testing.T) {
	r := newRig(t, "sleep", "1000")
	r.ok("run", "-d", "-b", r.bundle, r.id)
	pid := r.state().Pid
	done := make(chan int)
	go func() { done <- reap(pid) }()
	r.ok("delete", "--force", r.id)
	if code := <-done; code != 137 {
		t.Errorf("init's exit code is %d", code)
	}
}

// One that was created and never started can be deleted.
func TestDeleteCreated(t *testing.T) {
	r := newRig(t, "true")
	r.ok("create", "-b", r.bundle, r.id)
	pid := r.state().Pid
	go reap(pid)
	r.ok("delete", r.id)
}

func TestRun(t *testing.T) {
	r := newRig(t, "sh", "-c", "echo out; echo err >&2; exit 42")
	out, code := r.run("run", "--bundle", r.bundle, r.id)
	if out != "out\nerr\n" || code != 42 {
		t.Errorf("exit %d: %s", code, out)
	}
	r.fails("does not exist", "state", r.id)
}

// Signals to `run` go to the container's init.
func TestRunForwardsSignals(t *testing.T) {
	r := newRig(t, "sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while true; do sleep 0.01; done")
	cmd := r.command("run", "-b", r.bundle, r.id)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	buf := make([]byte, 64)
	n, err := out.Read(buf)
	must(t, err)
	if string(buf[:n]) != "ready\n" {
		t.Fatalf("%q", buf[:n])
	}
	must(t, cmd.Process.Signal(unix.SIGTERM))
	rest, err := io.ReadAll(out)
	must(t, err)
	cmd.Wait()
	if string(rest) != "got it\n" || cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("exit %d: %q", cmd.ProcessState.ExitCode(), rest)
	}
}

// Errors reach the log in the form that engines parse, and what was made is undone.
func TestErrors(t *testing.T) {
	r := newRig(t, "nosuch")
	if code := r.fails(`exec: "nosuch": executable file not found in $PATH`, "run", "-b", r.bundle, r.id); code != 1 {
		t.Errorf("exit %d", code)
	}
	b, err := os.ReadFile(r.bundle + "/log")
	must(t, err)
	var entry struct{ Level, Msg, Time string }
	must(t, json.Unmarshal(b, &entry))
	if entry.Level != "error" || !strings.Contains(entry.Msg, "executable file not found") {
		t.Errorf("%+v", entry)
	}
	if _, err := time.Parse(time.RFC3339, entry.Time); err != nil {
		t.Error(err)
	}
	// With create and start apart, create tells it: engines take it for the answer to their own start.
	r.fails(`exec: "nosuch": executable file not found in $PATH`, "create", "-b", r.bundle, r.id)
	r.fails("does not exist", "state", r.id)
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"/etc"} })
	must(t, os.Mkdir(r.bundle+"/rootfs/etc", 0o755))
	r.fails(`exec: "/etc": permission denied`, "create", "-b", r.bundle, r.id)
	// A file that only its owner may execute.
	must(t, os.WriteFile(r.bundle+"/rootfs/bin/private", []byte("#!/bin/sh\n"), 0o700))
	r.edit(func(s *specs.Spec) { s.Process.Args, s.Process.User.UID = []string{"private"}, 7 })
	r.fails(`exec: "private": permission denied`, "create", "-b", r.bundle, r.id)
	r.edit(func(s *specs.Spec) { s.Process.User.UID, s.Version = 0, "2.0.0" })
	r.fails("ociVersion 2.0.0 is not supported", "create", "-b", r.bundle, r.id)
	r.edit(func(s *specs.Spec) { s.Version = specs.Version })

	r.edit(func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "missing", Options: []string{"bind"}})
	})
	r.fails("bind source path does not exist: "+r.bundle+"/missing", "create", "-b", r.bundle, r.id)
	r.fails("not found", "create", "-b", r.root, r.id)
	r.fails("invalid container ID", "state", "../x")
	r.fails("invalid container ID", "create", "-b", r.bundle, "..")
	r.fails("unknown signal", "kill", r.id, "FOO")
	r.fails("unknown command", "nosuch")
	r.fails("invalid log-format", "--log-format", "xml", "list")
	r.edit(func(s *specs.Spec) { s.Linux.CgroupsPath = "/x" })
	r.fails("expected cgroupsPath to be of format", "--systemd-cgroup", "create", "-b", r.bundle, r.id)
	r.fails("wrong number of arguments", "start")
	must(t, os.WriteFile(r.bundle+"/config.json", []byte("{"), 0o644))
	r.fails("is not a container's spec", "run", "-b", r.bundle, r.id)
}

// With --console-socket the terminal's master is sent there.
func TestConsoleSocket(t *testing.T) {
	r := newRig(t, "sh", "-c", "tty; read line; echo got $line")
	r.edit(func(s *specs.Spec) { s.Process.Terminal = true })
	r.fails("console socket", "create", "-b", r.bundle, r.id)
	sock := r.root + "/../console.sock"
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(l)
	must(t, unix.Bind(l, &unix.SockaddrUnix{Name: sock}))
	must(t, unix.Listen(l, 1))
	r.ok("create", "-b", r.bundle, "--console-socket", sock, r.id)
	conn, _, err := unix.Accept(l)
	must(t, err)
	defer unix.Close(conn)
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(conn, make([]byte, 64), oob, unix.MSG_CMSG_CLOEXEC)
	must(t, err)
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	must(t, err)
	fds, err := unix.ParseUnixRights(&msgs[0])
	must(t, err)
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	pid := r.state().Pid
	r.ok("start", r.id)
	_, err = master.WriteString("hello\n")
	must(t, err)
	var out bytes.Buffer
	io.Copy(&out, master)
	if got := out.String(); !strings.Contains(got, "/dev/pts/0\r\n") || !strings.Contains(got, "got hello\r\n") {
		t.Errorf("%q", got)
	}
	reap(pid)
	r.ok("delete", r.id)
}

func TestPreservedDescriptors(t *testing.T) {
	r := newRig(t, "sh", "-c", "cat <&3; echo $LISTEN_FDS $LISTEN_PID; cat <&4")
	var files []*os.File
	for _, text := range []string{"one\n", "two\n"} {
		name := filepath.Join(t.TempDir(), "f")
		must(t, os.WriteFile(name, []byte(text), 0o644))
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		files = append(files, f)
	}
	cmd := r.command("run", "--preserve-fds", "1", "-b", r.bundle, r.id)
	cmd.ExtraFiles = files
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "one\n1 1\ntwo\n" {
		t.Errorf("%v: %q", err, out)
	}
	r.fails("is not open", "run", "--preserve-fds", "7", "-b", r.bundle, r.id)
}

// Without a pid namespace of its own, the container's processes go with delete.
func TestHostPids(t *testing.T) {
	r := newRig(t, "sh", "-c", "sleep 1000 & sleep 1000")
	r.edit(func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	})
	r.ok("run", "-d", "-b", r.bundle, r.id)
	pid := r.state().Pid
	var pids []int
	for len(pids) < 2 { // until the shell has forked
		must(t, json.Unmarshal([]byte(r.ok("ps", "--format", "json", r.id)), &pids))
	}
	r.ok("kill", r.id, "9")
	reap(pid)
	// The orphan became the test's child.
	go reap(pids[slices.IndexFunc(pids, func(p int) bool { return p != pid })])
	r.ok("delete", r.id)
}

func TestFeatures(t *testing.T) {
	r := newRig(t, "true")
	var f struct {
		OCIVersionMax string
		MountOptions  []string
		Linux         struct {
			Namespaces []string
			Seccomp    struct{ Archs []string }
		}
	}
	must(t, json.Unmarshal([]byte(r.ok("features")), &f))
	if f.OCIVersionMax != specs.Version || !slices.Contains(f.MountOptions, "rro") || !slices.Contains(f.Linux.Namespaces, "cgroup") || !slices.Contains(f.Linux.Seccomp.Archs, "SCMP_ARCH_X32") {
		t.Errorf("%+v", f)
	}
	if out := r.ok("plan", r.bundle); !strings.HasPrefix(out, "executed by the interpreter\n") || !strings.Contains(out, "pivot into the root") || !strings.Contains(out, "# linux.maskedPaths") {
		t.Error(out)
	}
	if out := r.ok("--executor", "stage", "plan", r.bundle); !strings.HasPrefix(out, "executed by the stage, because of: it was told to\n") {
		t.Error(out)
	}
	r.ok("plan", r.bundle) // and not for long
	if out := r.ok("--version"); !strings.Contains(out, "tare-run version test") {
		t.Error(out)
	}
	r.fails("exists", "spec", "-b", r.bundle)
}

// A bundle as `runc spec` writes it (1.1): its field order, its tabs, ambient capabilities, no umask.
func TestSpecOfRunc(t *testing.T) {
	r := newRig(t)
	b, err := os.ReadFile("testdata/runc-spec.json")
	must(t, err)
	must(t, os.WriteFile(r.bundle+"/config.json", b, 0o644))
	r.edit(func(s *specs.Spec) {
		s.Process.Terminal = false
		s.Process.Args = []string{"sh", "-c", "cat /proc/self/status /proc/sys/kernel/hostname; cat /proc/self/mountinfo; true > /x; exit 3"}
	})
	out, code := r.run("run", "-b", r.bundle, r.id)
	if code != 3 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"CapBnd:\t0000000020000420", "NoNewPrivs:\t1", "Seccomp:\t0", "\nrunc\n", " /dev/mqueue ", "Read-only file system"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

// Without --no-new-keyring a container has a session keyring of its own.
func TestKeyring(t *testing.T) {
	r := newRig(t, "cat", "/proc/keys")
	r.edit(func(s *specs.Spec) { s.Linux.MaskedPaths = nil })
	if out := r.ok("run", "-b", r.bundle, r.id); strings.Count(out, "keyring") == 0 || strings.Contains(out, "tare-test-key") {
		t.Errorf("/proc/keys: %s", out)
	}
	joined := make(chan string)
	go func() { // the goroutine's thread, which keeps the keyring, ends with it
		goruntime.LockOSThread()
		if _, err := unix.KeyctlJoinSessionKeyring("tare-test-key"); err != nil {
			joined <- err.Error()
			return
		}
		out, _ := r.run("run", "--no-new-keyring", "-b", r.bundle, r.id)
		joined <- out
	}()
	if out := <-joined; !strings.Contains(out, "tare-test-key") {
		t.Errorf("/proc/keys without a new keyring: %s", out)
	}
}
