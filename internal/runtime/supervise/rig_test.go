package supervise_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/ids"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/supervise"
)

// TestMain makes the test binary the supervisor and the stage as well.
func TestMain(m *testing.M) {
	launch.StageMain()
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		os.Exit(supervise.Main(os.Args[2:]))
	}
	if len(os.Args) == 2 && os.Args[1] == "victim" {
		os.Exit(victimMain())
	}
	os.Exit(m.Run())
}

// rig is a supervisor and an engine's connection to it.
type rig struct {
	t    testing.TB
	dir  string
	opts client.Options
	*client.Client

	mu    sync.Mutex
	cond  *sync.Cond
	exits map[runtime.Ref][]runtime.Exit
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tare-supervise-")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, opts: client.Options{
		Program:  "/proc/self/exe",
		ExecRoot: filepath.Join(dir, "exec"),
		Instance: "test-" + ids.New()[:12],
		LogFile:  filepath.Join(dir, "supervisor.log"),
		Kept:     new(client.Kept),
	}}
	r.opts.Program, err = os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.tearDown)
	r.connect()
	return r
}

// connect connects anew, as an engine does that was killed and started again.
func (r *rig) connect() {
	r.t.Helper()
	c, err := client.Ensure(r.ctx(), r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.Client, r.exits = c, map[runtime.Ref][]runtime.Exit{}
	r.cond = sync.NewCond(&r.mu)
	r.mu.Unlock()
	go func() {
		for e := range c.Exits() {
			r.mu.Lock()
			if c == r.Client {
				r.exits[e.Ref] = append(r.exits[e.Ref], e)
				r.cond.Broadcast()
			}
			r.mu.Unlock()
		}
	}()
}

// ctx ends before the test's patience does.
func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) tearDown() {
	if r.Client == nil {
		return
	}
	select {
	case <-r.Done():
		if r.t.Failed() {
			break
		}
		r.connect()
	default:
	}
	all, _ := r.List(r.ctx())
	for _, st := range all {
		if st.Status == runtime.Paused {
			_ = r.Resume(r.ctx(), st.ID)
		}
		if st.Status == runtime.Running || st.Status == runtime.Paused {
			_ = r.Signal(r.ctx(), runtime.Ref{Container: st.ID}, 9)
			r.wait(runtime.Ref{Container: st.ID})
		}
		if err := r.Delete(r.ctx(), st.ID); err != nil {
			r.t.Errorf("delete: %v", err)
		}
	}
	if err := r.Shutdown(r.ctx()); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
	if log, _ := os.ReadFile(r.opts.LogFile); r.t.Failed() && len(log) > 0 {
		r.t.Logf("supervisor's log:\n%s", log)
	}
	r.Close()
	os.RemoveAll(r.dir)
}

// wait returns the exit record of a process.
func (r *rig) wait(ref runtime.Ref) runtime.Exit {
	r.t.Helper()
	stop := time.AfterFunc(60*time.Second, func() { r.mu.Lock(); r.cond.Broadcast(); r.mu.Unlock() })
	defer stop.Stop()
	deadline := time.Now().Add(60 * time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.exits[ref]) == 0 {
		if time.Now().After(deadline) {
			r.t.Fatalf("no exit record of %v", ref)
		}
		r.cond.Wait()
	}
	return r.exits[ref][0]
}

// box is one container of the rig.
type box struct {
	*rig
	runtime.Create
	ref     runtime.Ref
	pid     int
	execPid int // of the last exec
}

// stdio is output to a log and nothing else.
func stdio() runtime.Stdio { return runtime.Stdio{Log: runtime.Log{Driver: "json-file"}} }

// bundle writes a spec that shows the host's root, read-only.
func (r *rig) bundle(io runtime.Stdio, change func(*specs.Spec), args ...string) runtime.Create {
	r.t.Helper()
	id := ids.New()
	dir := filepath.Join(r.dir, id[:12])
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	if io.Log.Driver == "json-file" && io.Log.Path == "" {
		io.Log.Path = filepath.Join(dir, "json.log")
	}
	spec := testSpec(r.opts.Instance, id, args)
	if change != nil {
		change(spec)
	}
	data, err := json.Marshal(spec)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return runtime.Create{ID: id, Bundle: dir, Stdio: io}
}

func testSpec(instance, id string, args []string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT"}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/", Readonly: true},
		Process: &specs.Process{
			Args: args, Cwd: "/",
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/tare/" + instance + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace}, {Type: specs.IPCNamespace},
			},
		},
	}
}

func (r *rig) create(io runtime.Stdio, args ...string) *box {
	r.t.Helper()
	return r.createWith(io, nil, args...)
}

func (r *rig) createWith(io runtime.Stdio, change func(*specs.Spec), args ...string) *box {
	r.t.Helper()
	req := r.bundle(io, change, args...)
	pid, err := r.Client.Create(r.ctx(), req)
	if err != nil {
		r.t.Fatalf("create: %v", err)
	}
	return &box{rig: r, Create: req, ref: runtime.Ref{Container: req.ID}, pid: pid}
}

func (b *box) start() *box {
	b.t.Helper()
	if err := b.Client.Start(b.ctx(), b.ID); err != nil {
		b.t.Fatalf("start: %v", err)
	}
	return b
}

func (b *box) exit() runtime.Exit { b.t.Helper(); return b.rig.wait(b.ref) }

func (b *box) attach(exec string, in bool) *net.UnixConn {
	b.t.Helper()
	s, err := b.Client.Attach(b.ctx(), runtime.Attach{Ref: runtime.Ref{Container: b.ID, Exec: exec}, Stdin: in, Stdout: true, Stderr: true})
	if err != nil {
		b.t.Fatalf("attach: %v", err)
	}
	b.t.Cleanup(func() { s.Close() })
	_ = s.SetDeadline(time.Now().Add(60 * time.Second))
	return s
}

func (b *box) kill() runtime.Exit {
	b.t.Helper()
	if err := b.Client.Signal(b.ctx(), b.ref, 9); err != nil {
		b.t.Fatal(err)
	}
	return b.exit()
}

// logged returns the text of the container's log.
func (b *box) logged() string {
	b.t.Helper()
	var out strings.Builder
	for i := b.Stdio.Log.MaxFiles; i >= 0; i-- {
		name := b.Stdio.Log.Path
		if i > 0 {
			name += fmt.Sprint(".", i)
		}
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			b.t.Fatal(err)
		}
		if len(data) == 0 {
			continue
		}
		for _, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
			var e struct{ Log, Stream, Time string }
			if err := json.Unmarshal(line, &e); err != nil {
				b.t.Fatalf("log line %q: %v", line, err)
			}
			out.WriteString(e.Log)
		}
	}
	return out.String()
}

// frames undoes the multiplexing of a stream until its end.
func frames(r io.Reader) (out [3]string, err error) {
	var bufs [3]bytes.Buffer
	for {
		var h [8]byte
		if _, err = io.ReadFull(r, h[:]); err != nil {
			break
		}
		if h[0] > 2 || h[1]|h[2]|h[3] != 0 {
			return out, fmt.Errorf("header % x", h)
		}
		if _, err = io.CopyN(&bufs[h[0]], r, int64(binary.BigEndian.Uint32(h[4:]))); err != nil {
			break
		}
	}
	for i := range out {
		out[i] = bufs[i].String()
	}
	if err == io.EOF {
		err = nil
	}
	return out, err
}

// eventually polls a condition that has no event.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }
