package supervise_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/ids"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

func TestLife(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sh", "-c", "echo out; echo err >&2; exit 7")
	st, err := r.State(r.ctx(), b.ID)
	if err != nil || st.Status != runtime.Created || st.Pid != b.pid || st.Bundle != b.Bundle || !st.StartedAt.IsZero() {
		t.Fatalf("after create: %+v, %v", st, err)
	}
	if _, err := r.Client.Create(r.ctx(), b.Create); !errdefs.IsConflict(err) {
		t.Errorf("second create: %v", err)
	}
	b.start()
	e := b.exit()
	if e.Code != 7 || e.OOMKilled || e.Seq != 1 || e.At.IsZero() {
		t.Errorf("exit: %+v", e)
	}
	if got := b.logged(); got != "out\nerr\n" && got != "err\nout\n" {
		t.Errorf("log: %q", got)
	}
	st, err = r.State(r.ctx(), b.ID)
	if err != nil || st.Status != runtime.Stopped || st.Pid != 0 || st.Exit == nil || st.Exit.Code != 7 || st.StartedAt.IsZero() {
		t.Errorf("after exit: %+v, %v", st, err)
	}
	if err := r.Start(r.ctx(), b.ID); !errdefs.IsConflict(err) {
		t.Errorf("start of a stopped one: %v", err)
	}
	if err := r.Signal(r.ctx(), b.ref, 15); !errdefs.IsConflict(err) {
		t.Errorf("signal to a stopped one: %v", err)
	}
	for range 2 {
		if err := r.Delete(r.ctx(), b.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, err := r.State(r.ctx(), b.ID); !errdefs.IsNotFound(err) {
		t.Errorf("after delete: %v", err)
	}
	if err := r.Start(r.ctx(), b.ID); !errdefs.IsNotFound(err) {
		t.Errorf("start after delete: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		cmd    string
		signal int
		want   int
	}{
		{"exit 0", 0, 0}, {"exit 255", 0, 255}, {"kill -9 $$; sleep 60", 9, 137}, {"trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done", 15, 5},
	} {
		b := r.create(stdio(), "sh", "-c", c.cmd).start()
		if c.signal == 15 {
			eventually(t, "trap set", func() bool { return b.logged() != "" })
		}
		if c.signal != 0 {
			if err := r.Signal(r.ctx(), b.ref, c.signal); err != nil {
				t.Errorf("%q: %v", c.cmd, err)
			}
		}
		if e := b.exit(); e.Code != c.want {
			t.Errorf("%q: code %d, want %d", c.cmd, e.Code, c.want)
		}
	}
}

func TestProgramThatCannotBeExecuted(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		program string
		code    int
		errno   unix.Errno
	}{
		{"/no/such/program", 127, unix.ENOENT}, {"no-such-program", 127, unix.ENOENT},
		{"/etc/passwd", 126, unix.EACCES}, {"/etc", 126, unix.EACCES},
	} {
		req := r.bundle(stdio(), nil, c.program)
		_, err := r.Client.Create(r.ctx(), req)
		var e *client.ExecError
		if !errors.As(err, &e) || e.Code != c.code || !errors.Is(err, c.errno) || e.Program != c.program || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %#v", c.program, err)
		}
		if st, err := r.State(r.ctx(), req.ID); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %+v, %v", c.program, st, err)
		}
	}
	b := r.create(stdio(), "sleep", "60").start()
	req := runtime.Exec{Ref: runtime.Ref{Container: b.ID, Exec: "x"}, Process: specs.Process{Args: []string{"no-such-program"}, Cwd: "/"}}
	_, _, err := r.Exec(r.ctx(), req, &runtime.Attach{Ref: req.Ref, Stdout: true})
	var e *client.ExecError
	if !errors.As(err, &e) || e.Code != 127 {
		t.Errorf("exec: %v", err)
	}
	if e := b.kill(); e.Code != 137 || e.Seq != 1 {
		t.Errorf("exit: %+v", e)
	}
}

func TestDeleteOfCreatedAndRunning(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sleep", "60")
	if err := r.Delete(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if alive(b.pid) {
		t.Error("its process lives on")
	}
	b = r.create(stdio(), "sleep", "60").start()
	if err := r.Delete(r.ctx(), b.ID); !errdefs.IsConflict(err) {
		t.Errorf("delete of a running one: %v", err)
	}
	if err := r.Shutdown(r.ctx()); !errdefs.IsConflict(err) {
		t.Errorf("shutdown: %v", err)
	}
	// One that is killed before start has a record all the same.
	c := r.create(stdio(), "sleep", "60")
	if e := c.kill(); e.Code != 137 {
		t.Errorf("exit: %+v", e)
	}
	if st, _ := r.State(r.ctx(), c.ID); st.Status != runtime.Stopped {
		t.Errorf("state: %+v", st)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	r := newRig(t)
	for name, spoil := range map[string]func(*runtime.Create){
		"no bundle":   func(c *runtime.Create) { c.Bundle += "/none" },
		"bad log":     func(c *runtime.Create) { c.Stdio.Log.Path = r.dir + "/none/json.log" },
		"odd driver":  func(c *runtime.Create) { c.Stdio.Log.Driver = "carrier-pigeon" },
		"no id":       func(c *runtime.Create) { c.ID = "" },
		"empty spec":  func(c *runtime.Create) { os.WriteFile(c.Bundle+"/config.json", []byte("{}"), 0o600) },
		"no spec":     func(c *runtime.Create) { os.WriteFile(c.Bundle+"/config.json", []byte("{"), 0o600) },
		"missing mnt": func(c *runtime.Create) { spoilMount(t, c) },
	} {
		req := r.bundle(stdio(), nil, "true")
		spoil(&req)
		if pid, err := r.Client.Create(r.ctx(), req); err == nil {
			t.Errorf("%s: created with pid %d", name, pid)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	if all, err := r.List(r.ctx()); err != nil || len(all) > 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
}

func spoilMount(t *testing.T, c *runtime.Create) {
	data, err := os.ReadFile(c.Bundle + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), `"type":"tmpfs","source":"tmpfs"`, `"type":"bind","source":"/no/such/source","options":["bind"]`, 1)
	text = strings.Replace(text, `"options":["bind"],"options"`, `"x"`, 1)
	if err := os.WriteFile(c.Bundle+"/config.json", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sleep", "60")
	req := runtime.Exec{
		Ref:     runtime.Ref{Container: b.ID, Exec: "one"},
		Process: specs.Process{Args: []string{"sh", "-c", "read x; echo got $x; echo bad >&2; exit 3"}, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"}},
		Stdio:   runtime.Stdio{OpenStdin: true},
	}
	want := &runtime.Attach{Ref: req.Ref, Stdin: true, Stdout: true, Stderr: true}
	if _, _, err := r.Exec(r.ctx(), req, want); !errdefs.IsConflict(err) {
		t.Errorf("exec before start: %v", err)
	}
	b.start()
	pid, s, err := r.Exec(r.ctx(), req, want)
	if err != nil || pid <= 0 {
		t.Fatalf("exec: %d %v", pid, err)
	}
	defer s.Close()
	if st, _ := r.State(r.ctx(), b.ID); len(st.Execs) != 1 || st.Execs[0] != "one" {
		t.Errorf("state: %+v", st)
	}
	if _, _, err := r.Exec(r.ctx(), req, nil); !errdefs.IsConflict(err) {
		t.Errorf("same id: %v", err)
	}
	if _, err := s.Write([]byte("this\n")); err != nil {
		t.Fatal(err)
	}
	out, err := frames(s)
	if err != nil || out[1] != "got this\n" || out[2] != "bad\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if e := r.wait(req.Ref); e.Code != 3 {
		t.Errorf("exit: %+v", e)
	}
	// The record is kept for the next engine, until Collect.
	r.Close()
	r.connect()
	if e := r.wait(req.Ref); e.Code != 3 {
		t.Errorf("exit again: %+v", e)
	}
	if err := r.Signal(r.ctx(), req.Ref, 9); !errdefs.IsConflict(err) {
		t.Errorf("signal: %v", err)
	}
	if err := r.Collect(r.ctx(), req.Ref); err != nil {
		t.Error(err)
	}
	if err := r.Signal(r.ctx(), req.Ref, 9); !errdefs.IsNotFound(err) {
		t.Errorf("signal after collect: %v", err)
	}
	if got := b.logged(); got != "" {
		t.Errorf("an exec's output is in the log: %q", got)
	}

	// Execs end with the container, and what they leave in the background delays nobody.
	req.Ref.Exec = "two"
	req.Process.Args = []string{"sh", "-c", "sleep 50 & echo up"}
	if _, s, err = r.Exec(r.ctx(), req, &runtime.Attach{Ref: req.Ref, Stdout: true}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if out, err := frames(s); err != nil || out[1] != "up\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if e := r.wait(req.Ref); e.Code != 0 {
		t.Errorf("exit: %+v", e)
	}
	three := req
	three.Ref.Exec, three.Process.Args = "three", []string{"sleep", "50"}
	if _, _, err := r.Exec(r.ctx(), three, nil); err != nil {
		t.Fatal(err)
	}
	last := b.kill()
	if e := r.wait(three.Ref); e.Code != 137 || e.Seq > last.Seq {
		t.Errorf("exec %+v, container %+v", e, last)
	}
}

func TestPause(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sh", "-c", "while :; do echo x; sleep 0.01; done").start()
	eventually(t, "output", func() bool { return len(b.logged()) > 0 })
	if err := r.Pause(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.Pause(r.ctx(), b.ID); !errdefs.IsConflict(err) {
		t.Errorf("second pause: %v", err)
	}
	if st, _ := r.State(r.ctx(), b.ID); st.Status != runtime.Paused {
		t.Errorf("state: %+v", st)
	}
	if _, _, err := r.Exec(r.ctx(), runtime.Exec{Ref: runtime.Ref{Container: b.ID, Exec: "e"}, Process: specs.Process{Args: []string{"true"}, Cwd: "/"}}, nil); !errdefs.IsConflict(err) {
		t.Errorf("exec: %v", err)
	}
	if err := r.Resume(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.Resume(r.ctx(), b.ID); !errdefs.IsConflict(err) {
		t.Errorf("second resume: %v", err)
	}
	n := len(b.logged())
	eventually(t, "output again", func() bool { return len(b.logged()) > n })
}

// TestOneSupervisor has engines that start at once and must share one.
func TestOneSupervisor(t *testing.T) {
	r := newRig(t)
	if err := r.Shutdown(r.ctx()); err != nil {
		t.Fatal(err)
	}
	<-r.Done()
	var wg sync.WaitGroup
	pids := make([]string, 8)
	for i := range pids {
		wg.Go(func() {
			c, err := client.Ensure(r.ctx(), r.opts)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, err := c.List(r.ctx()); err != nil {
				t.Error(err)
			}
			pid, _ := os.ReadFile(filepath.Join(r.opts.ExecRoot, "supervisor.pid"))
			pids[i] = string(pid)
		})
	}
	wg.Wait()
	for _, p := range pids {
		if p != pids[0] || p == "" {
			t.Fatalf("pids: %q", pids)
		}
	}
	title, err := os.ReadFile("/proc/" + strings.TrimSpace(pids[0]) + "/cmdline")
	if want := "tare-run supervise " + r.opts.Instance + "\x00"; err != nil || string(title) != want {
		t.Errorf("title %q, want %q, %v", title, want, err)
	}
	st, err := os.Stat(filepath.Join(r.opts.ExecRoot, "supervisor.sock"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", st, err)
	}
	r.connect()
}

func TestEnsureTellsWhyItFails(t *testing.T) {
	dir := t.TempDir()
	_, err := client.Ensure(t.Context(), client.Options{Program: "/bin/false", ExecRoot: dir, Instance: "x" + ids.New()[:8]})
	if !errdefs.IsUnavailable(err) || !strings.Contains(fmt.Sprint(err), "exit status 1") {
		t.Errorf("got %v", err)
	}
}
