package supervise_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// TestRuntimes holds what the supervisor does for containers to be the same, whichever runtime runs them: our own, runc, crun.
func TestRuntimes(t *testing.T) {
	for _, name := range []string{"tare", "runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var with *runtime.Foreign
			if name != "tare" {
				path, err := exec.LookPath(name)
				if err != nil {
					t.Fatalf("%v: test/deps.sh installs it", err)
				}
				with = &runtime.Foreign{Path: path}
				if name == "crun" {
					with.Path = withoutUnified(t, path)
				}
			}
			testRuntime(t, r, with)
			if with == nil {
				return
			}
			for _, dir := range []string{"foreign", "runtimes/" + name, "running"} {
				if left, _ := os.ReadDir(filepath.Join(r.opts.ExecRoot, dir)); len(left) > 0 && left[0].Name() != "." {
					for _, f := range left {
						t.Errorf("%s is left in %s", f.Name(), dir)
					}
				}
			}
		})
	}
}

// withoutUnified is a program that runs crun where no v2 tree is mounted beside v1's: Debian's refuses to run on a hybrid machine whose v2
// tree has controllers.
func withoutUnified(t *testing.T, crun string) string {
	t.Helper()
	const unified = "/sys/fs/cgroup/unified"
	if have, _ := os.ReadFile(unified + "/cgroup.controllers"); len(strings.TrimSpace(string(have))) == 0 {
		return crun
	}
	script := "#!/bin/sh\nexec unshare -m --propagation slave sh -c 'umount " + unified + "; exec " + crun + " \"$@\"' crun \"$@\"\n"
	path := filepath.Join(t.TempDir(), "crun")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func testRuntime(t *testing.T, r *rig, with *runtime.Foreign) {
	root := filepath.Join(r.dir, "root") // runc wants another than the host's
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/", root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	inside := func(s *specs.Spec) { s.Root.Path = root }
	create := func(io runtime.Stdio, args ...string) *box {
		t.Helper()
		req := r.bundle(io, inside, args...)
		req.Runtime = with
		pid, err := r.Client.Create(r.ctx(), req)
		if err != nil {
			t.Fatalf("create: %v", err)
		}
		return &box{rig: r, Create: req, ref: runtime.Ref{Container: req.ID}, pid: pid}
	}
	remove := func(boxes ...*box) {
		t.Helper()
		for _, b := range boxes {
			if err := r.Delete(r.ctx(), b.ID); err != nil {
				t.Errorf("delete: %v", err)
			}
		}
	}

	// Output, exit codes, programs that end at once.
	b := create(stdio(), "sh", "-c", "echo out; echo err >&2; exit 7")
	if st, err := r.State(r.ctx(), b.ID); err != nil || st.Status != runtime.Created || st.Pid != b.pid {
		t.Errorf("created: %+v %v", st, err)
	}
	b.start()
	if e := b.exit(); e.Code != 7 || !strings.Contains(b.logged(), "out\n") || !strings.Contains(b.logged(), "err\n") {
		t.Errorf("%+v %q", e, b.logged())
	}
	remove(b)
	for range 3 {
		b = create(stdio(), "true").start()
		if e := b.exit(); e.Code != 0 {
			t.Errorf("true: %+v", e)
		}
		remove(b)
	}

	// Stdin.
	io := stdio()
	io.OpenStdin, io.StdinOnce = true, true
	b = create(io, "wc", "-c")
	in := b.attach("", true)
	b.start()
	fmt.Fprint(in, "hello")
	in.CloseWrite()
	if out, err := frames(in); err != nil || strings.TrimSpace(out[1]) != "5" {
		t.Errorf("stdin: %q %v", out, err)
	}
	b.exit()
	remove(b)

	// A terminal, and its size.
	b = create(runtime.Stdio{Terminal: true, OpenStdin: true, Width: 91, Height: 33, Log: runtime.Log{Driver: "none"}}, "sh", "-c", "stty size; cat")
	screen := b.attach("", true)
	b.start()
	expect(t, screen, "33 91")
	echo(t, screen, "typed")
	if err := r.Resize(r.ctx(), b.ref, 50, 20); err != nil {
		t.Error(err)
	}
	b.kill()
	remove(b)

	// Signals, execs, pausing.
	b = create(stdio(), "sh", "-c", "trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done").start()
	eventually(t, "output", func() bool { return b.logged() == "up\n" })
	s := b.exec("one", true, runtime.Stdio{OpenStdin: true}, "sh", "-c", "cat; echo $PPID >/dev/null; exit 5")
	fmt.Fprint(s, "through")
	s.CloseWrite()
	if out, err := frames(s); err != nil || out[1] != "through" {
		t.Errorf("exec: %q %v", out, err)
	}
	if e := r.wait(runtime.Ref{Container: b.ID, Exec: "one"}); e.Code != 5 {
		t.Errorf("exec: %+v", e)
	}
	s = b.exec("tty", true, runtime.Stdio{OpenStdin: true, Terminal: true, Width: 77, Height: 22}, "sh", "-c", "sleep 0.5; stty size; cat")
	expect(t, s, "22 77")
	echo(t, s, "typed")
	if err := r.Signal(r.ctx(), runtime.Ref{Container: b.ID, Exec: "tty"}, 9); err != nil {
		t.Error(err)
	}
	if e := r.wait(runtime.Ref{Container: b.ID, Exec: "tty"}); e.Code != 137 {
		t.Errorf("exec: %+v", e)
	}
	_, _, err := r.Exec(r.ctx(), runtime.Exec{Ref: runtime.Ref{Container: b.ID, Exec: "no"}, Process: specs.Process{
		Args: []string{"no-such-program"}, Cwd: "/", Env: []string{"PATH=/bin"},
	}}, nil)
	var failed *client.ExecError
	if !errors.As(err, &failed) || failed.Code != 127 {
		t.Errorf("exec of nothing: %v", err)
	}
	if err := r.Pause(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if st, err := r.State(r.ctx(), b.ID); err != nil || st.Status != runtime.Paused {
		t.Errorf("%+v %v", st, err)
	}
	if err := r.Resume(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}

	// An upgrade, a killed supervisor.
	if err := r.Upgrade(r.ctx(), r.opts.Program); err != nil {
		t.Error(err)
	}
	waiting := create(stdio(), "sh", "-c", "echo late; exit 3")
	r.killSupervisor(nil)
	waiting.start()
	if e := waiting.exit(); e.Code != 3 || waiting.logged() != "late\n" {
		t.Errorf("created before: %+v %q", e, waiting.logged())
	}
	if st, err := r.State(r.ctx(), b.ID); err != nil || st.Status != runtime.Running || st.Pid != b.pid {
		t.Errorf("%+v %v", st, err)
	}
	b.exec("after", false, runtime.Stdio{}, "sh", "-c", "exit 6")
	if e := r.wait(runtime.Ref{Container: b.ID, Exec: "after"}); e.Code != 6 {
		t.Errorf("exec: %+v", e)
	}
	if err := r.Signal(r.ctx(), b.ref, 15); err != nil {
		t.Error(err)
	}
	if e := b.exit(); e.Code != 42 {
		t.Errorf("%+v", e)
	}
	remove(b, waiting)

	// What cannot be executed leaves nothing.
	req := r.bundle(stdio(), inside, "no-such-program")
	req.Runtime = with
	_, err = r.Client.Create(r.ctx(), req)
	if err == nil {
		err = r.Client.Start(r.ctx(), req.ID)
	}
	if failed = nil; !errors.As(err, &failed) || failed.Code != 127 || failed.Program != "no-such-program" {
		t.Errorf("start of nothing: %v", err)
	}
	if err := r.Delete(r.ctx(), req.ID); err != nil {
		t.Error(err)
	}
	if all, err := r.List(r.ctx()); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// expect reads until text came.
func expect(t *testing.T, s interface{ Read([]byte) (int, error) }, text string) {
	t.Helper()
	var seen []byte
	for buf := make([]byte, 256); !strings.Contains(string(seen), text); {
		n, err := s.Read(buf)
		if err != nil {
			t.Fatalf("%q does not come: %v, only %q", text, err, seen)
		}
		seen = append(seen, buf[:n]...)
	}
}
