package launch

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/defaults"
	"tare/internal/runtime/plan"
)

func TestMain(m *testing.M) {
	StageMain()
	code := m.Run()
	if layerDir != "" {
		os.RemoveAll(layerDir)
	}
	os.Exit(code)
}

// rig is one container of a test.
type rig struct {
	t      testing.TB
	spec   *specs.Spec
	root   *runtime.Overlay
	group  *cgroup.Group
	init   *Process
	output bytes.Buffer
}

// newRig prepares a container with busybox in an overlay of its own.
func newRig(t testing.TB, args ...string) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, spec: defaults.Spec(), root: &runtime.Overlay{Lower: []string{layer(t)}, Upper: dir + "/upper", Work: dir + "/work"}}
	for _, d := range []string{r.root.Upper, r.root.Work} {
		must(t, os.Mkdir(d, 0o755))
	}
	r.spec.Process.Args = args
	r.spec.Hostname = "box"
	var err error
	r.spec.Linux.Seccomp, err = defaults.Seccomp(defaults.Capabilities())
	must(t, err)
	id := make([]byte, 6)
	rand.Read(id)
	r.spec.Linux.CgroupsPath = "/tare-test-" + hex.EncodeToString(id) + "/c"
	return r
}

var layerDir string

// layer is a root file system with busybox, made once.
func layer(t testing.TB) string {
	t.Helper()
	if layerDir != "" {
		return layerDir
	}
	dir, err := os.MkdirTemp("", "tare-layer-")
	must(t, err)
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "home/u"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("these tests need busybox-static: test/deps.sh installs it")
	}
	b, err := os.ReadFile(box)
	must(t, err)
	must(t, os.WriteFile(dir+"/bin/busybox", b, 0o755))
	for _, n := range []string{"sh", "cat", "ls", "id", "true", "false", "echo", "sleep", "mount", "hostname", "touch", "env", "pwd", "stat", "grep", "mkdir", "ulimit", "tty", "stty", "readlink", "umask", "wc", "test", "dd", "mknod", "ps", "sort", "tr", "head", "ip", "cut", "sed", "od"} {
		must(t, os.Symlink("busybox", dir+"/bin/"+n))
	}
	must(t, os.WriteFile(dir+"/etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(dir+"/etc/notexec", []byte("hi"), 0o644))
	layerDir = dir
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) host() plan.Host {
	h, err := Host()
	must(r.t, err)
	return h
}

// create brings the container to "created"; its output goes to a pipe that is returned.
func (r *rig) create() (*os.File, error) {
	t := r.t
	p, err := plan.CompileWith(r.spec, r.root, r.host(), plan.Options{Runtime: true})
	if err != nil {
		return nil, err
	}
	r.group, err = cgroup.Open(r.spec.Linux.CgroupsPath)
	must(t, err)
	must(t, r.group.Create(r.spec.Linux.Resources))
	t.Cleanup(func() {
		if err := r.group.Remove(); err != nil {
			t.Error(err)
		}
		parent, _ := cgroup.Open(filepath.Dir(r.spec.Linux.CgroupsPath))
		_ = parent.Remove()
	})
	out, in, err := os.Pipe()
	must(t, err)
	stdio := Stdio{Out: in, Err: in}
	if r.spec.Process.Terminal {
		stdio = Stdio{Console: true}
	}
	r.init, err = New(p, 0, stdio)
	in.Close()
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		unix.PidfdSendSignal(r.init.PidFD, unix.SIGKILL, nil, 0)
		unix.Wait4(r.init.Pid, nil, 0, nil)
		r.init.Close()
		out.Close()
	})
	m, err := r.init.Next()
	must(t, err)
	if m.Err != nil {
		return nil, m.Err
	}
	if !m.Created {
		t.Fatalf("first message %+v", m)
	}
	if m.Master != nil {
		out = m.Master
	}
	return out, nil
}

// run runs the container to its end.
func (r *rig) run() (string, int, error) {
	r.t.Helper()
	out, err := r.create()
	if err != nil {
		return "", -1, err
	}
	must(r.t, r.init.Go())
	return finish(r.t, r.init, out)
}

func finish(t testing.TB, p *Process, out *os.File) (string, int, error) {
	t.Helper()
	m, err := p.Next()
	must(t, err)
	b, err := io.ReadAll(out)
	if err != nil && !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	_, err = unix.Wait4(p.Pid, &ws, 0, nil)
	must(t, err)
	code := ws.ExitStatus()
	if ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	if m.Err != nil {
		return string(b), code, m.Err
	}
	return string(b), code, nil
}
