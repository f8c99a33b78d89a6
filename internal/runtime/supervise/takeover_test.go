package supervise_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime"
)

// supervisorPid is the supervisor's process.
func (r *rig) supervisorPid() int {
	r.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(r.proc(""), "/proc/"), "/"))
	if err != nil {
		r.t.Fatal(err)
	}
	return pid
}

// killSupervisor ends it with SIGKILL and connects to a successor, after between.
func (r *rig) killSupervisor(between func()) {
	r.t.Helper()
	pid := r.supervisorPid()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	<-r.Done()
	if between != nil {
		between()
	}
	r.connect()
	if now := r.supervisorPid(); now == pid {
		r.t.Fatalf("the supervisor is still %d", now)
	}
}

// counting prints numbers up to n, a line each, as fast as it can or with pauses, and exits with code.
func counting(n, code int, pause string) []string {
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); %s done; exit %d", n, pause, code)
	return []string{"sh", "-c", script}
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// collect reads a multiplexed stream to its end.
func collect(s *net.UnixConn) func() ([3]string, error) {
	var out [3]string
	var err error
	var done sync.WaitGroup
	done.Go(func() { out, err = frames(s) })
	return func() ([3]string, error) { done.Wait(); return out, err }
}

func (b *box) exec(id string, attach bool, io runtime.Stdio, args ...string) *net.UnixConn {
	b.t.Helper()
	ref := runtime.Ref{Container: b.ID, Exec: id}
	var want *runtime.Attach
	if attach {
		want = &runtime.Attach{Ref: ref, Stdin: io.OpenStdin, Stdout: true, Stderr: true}
	}
	pid, s, err := b.Client.Exec(b.ctx(), runtime.Exec{Ref: ref, Stdio: io, Process: specs.Process{
		Args: args, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin"},
	}}, want)
	if err != nil {
		b.t.Fatal(err)
	}
	b.execPid = pid
	if s != nil {
		b.t.Cleanup(func() { s.Close() })
		_ = s.SetDeadline(time.Now().Add(120 * time.Second))
	}
	return s
}

// echo sends lines to a terminal's or pipe's cat and waits for each to come back.
func echo(t *testing.T, s *net.UnixConn, word string) {
	t.Helper()
	if _, err := io.WriteString(s, word+"\n"); err != nil {
		t.Fatalf("%s: %v", word, err)
	}
	var seen []byte
	for buf := make([]byte, 256); !strings.Contains(string(seen), word); {
		n, err := s.Read(buf)
		if err != nil {
			t.Fatalf("%s does not come back: %v, only %q", word, err, seen)
		}
		seen = append(seen, buf[:n]...)
	}
}

// TestUpgradeUnderLoad has the supervisor execute itself again and again under containers that write as fast as they can,
// terminals, execs with streams in both directions, a client that does not read, one that waits, and a container that is only created.
// No byte is lost or doubled, and nobody sees a connection end.
func TestUpgradeUnderLoad(t *testing.T) {
	r := newRig(t)
	const lines, rounds = 60000, 8
	loud := r.create(runtime.Stdio{Log: runtime.Log{Driver: "json-file", MaxSize: 200 << 10, MaxFiles: 100}}, counting(lines, 5, "")...)
	read := collect(loud.attach("", false))
	loud.start()
	flood := r.create(runtime.Stdio{Log: runtime.Log{Driver: "none"}}, "sh", "-c", "head -c 3000000 /dev/zero; sleep 600")
	slow := flood.attach("", false)
	flood.start()
	tty := r.create(runtime.Stdio{Terminal: true, OpenStdin: true, Width: 80, Height: 24, Log: runtime.Log{Driver: "none"}}, "cat").start()
	screen := tty.attach("", true)
	once := r.create(runtime.Stdio{OpenStdin: true, StdinOnce: true, Log: runtime.Log{Driver: "json-file"}}, "wc", "-c").start()
	feed := once.attach("", true)
	bystander := r.create(stdio(), "sleep", "600").start()
	stream := bystander.exec("cat", true, runtime.Stdio{OpenStdin: true}, "cat")
	silent := bystander.exec("sleep", true, runtime.Stdio{}, "sh", "-c", "echo begun; sleep 1; exit 9")
	waiting := r.create(stdio(), "sh", "-c", "echo late; exit 3")

	pid, before := r.supervisorPid(), r.descriptors()
	var fed int
	for i := range rounds {
		if err := r.Upgrade(r.ctx(), r.opts.Program); err != nil {
			t.Fatalf("upgrade %d: %v", i, err)
		}
		echo(t, screen, fmt.Sprint("screen", i))
		echo(t, stream, fmt.Sprint("stream", i))
		n, err := feed.Write(make([]byte, 100000))
		if fed += n; err != nil {
			t.Fatal(err)
		}
		if st, err := r.State(r.ctx(), bystander.ID); err != nil || st.Pid != bystander.pid || st.Status != runtime.Running {
			t.Fatalf("state: %+v, %v", st, err)
		}
	}
	if now := r.supervisorPid(); now != pid {
		t.Errorf("the supervisor was %d and is %d", pid, now)
	}
	eventually(t, "no descriptor is left behind", func() bool { return r.descriptors() <= before })
	waiting.start()
	if e := waiting.exit(); e.Code != 3 || waiting.logged() != "late\n" {
		t.Errorf("the created one: %+v, %q", e, waiting.logged())
	}
	if e := loud.exit(); e.Code != 5 {
		t.Errorf("the loud one: %+v", e)
	}
	want := numbers(lines)
	if got := loud.logged(); got != want {
		t.Errorf("its log has %d bytes, %d were written; %s", len(got), len(want), firstDifference(got, want))
	}
	if out, err := read(); err != nil || out[1] != want {
		t.Errorf("its client read %d bytes, %d were written, %v", len(out[1]), len(want), err)
	}
	if err := feed.CloseWrite(); err != nil {
		t.Error(err)
	}
	if e := once.exit(); e.Code != 0 || strings.TrimSpace(once.logged()) != fmt.Sprint(fed) {
		t.Errorf("wc: %+v, %q, %d were fed", e, once.logged(), fed)
	}
	if e := r.wait(runtime.Ref{Container: bystander.ID, Exec: "sleep"}); e.Code != 9 {
		t.Errorf("the exec: %+v", e)
	}
	if out, err := frames(silent); err != nil || out[1] != "begun\n" {
		t.Errorf("the exec's stream: %q %v", out, err)
	}
	if err := stream.CloseWrite(); err != nil {
		t.Error(err)
	}
	if e := r.wait(runtime.Ref{Container: bystander.ID, Exec: "cat"}); e.Code != 0 {
		t.Errorf("cat: %+v", e)
	}
	got := make(chan int)
	go func() {
		n := 0
		for buf := bufio.NewReader(slow); n < 3000000; {
			var h [8]byte
			if _, err := io.ReadFull(buf, h[:]); err != nil {
				break
			}
			size := int(h[4])<<24 | int(h[5])<<16 | int(h[6])<<8 | int(h[7])
			if _, err := io.CopyN(io.Discard, buf, int64(size)); err != nil {
				break
			}
			n += size
		}
		got <- n
	}()
	if n := <-got; n != 3000000 {
		t.Errorf("the client that was behind got %d bytes", n)
	}
}

func firstDifference(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("at %d %q for %q", i, a[i:min(i+40, len(a))], b[i:min(i+40, len(b))])
		}
	}
	return "one is the beginning of the other"
}

// TestUpgradeIsRefused: what cannot be executed does not end the supervisor.
func TestUpgradeIsRefused(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sh", "-c", "sleep 0.3; echo on; exit 2").start()
	text := r.dir + "/text"
	if err := os.WriteFile(text, []byte("\x7fELF no"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"/nonexistent", "relative", text} {
		if err := r.Upgrade(r.ctx(), program); err == nil {
			t.Errorf("upgraded to %s", program)
		}
	}
	if e := b.exit(); e.Code != 2 || b.logged() != "on\n" {
		t.Errorf("%+v %q", e, b.logged())
	}
	if _, err := r.Client.Create(r.ctx(), b.bundle(stdio(), nil, "true")); err != nil {
		t.Errorf("it does nothing any more: %v", err)
	}
}

// TestOlderSupervisorIsUpgraded: an engine whose program is another build has the supervisor execute that; so does the command.
func TestOlderSupervisorIsUpgraded(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sleep", "600").start()
	old := r.opts.Program
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	newer := r.dir + "/newer"
	if err := os.WriteFile(newer, data, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := func() string { s, _ := os.Readlink(r.proc("exe")); return s }
	r.Close()
	r.opts.Program = newer
	r.connect()
	if exe() != newer {
		t.Errorf("it executes %s", exe())
	}
	if out, err := exec.Command(old, "supervise", "--exec-root", r.opts.ExecRoot, "--upgrade").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if exe() != old {
		t.Errorf("it executes %s", exe())
	}
	if st, err := r.State(r.ctx(), b.ID); err != nil || st.Pid != b.pid {
		t.Errorf("%+v %v", st, err)
	}
	r.opts.Program = old
}

// TestKilledSupervisor kills it under containers with pipes and terminals, execs and attached clients, twice. They go on, their output goes
// on, the engine's streams go on, and how they end is known.
func TestKilledSupervisor(t *testing.T) {
	r := newRig(t)
	ticking := r.create(runtime.Stdio{Log: runtime.Log{Driver: "json-file"}}, counting(400, 7, "sleep 0.005;")...)
	read := collect(ticking.attach("", false))
	ticking.start()
	tty := r.create(runtime.Stdio{Terminal: true, OpenStdin: true, Log: runtime.Log{Driver: "none"}}, "cat").start()
	screen := tty.attach("", true)
	echo(t, screen, "before")
	once := r.create(runtime.Stdio{OpenStdin: true, StdinOnce: true, Log: runtime.Log{Driver: "json-file"}}, "wc", "-c").start()
	feed := once.attach("", true)
	bystander := r.create(stdio(), "sleep", "600").start()
	stream := bystander.exec("cat", true, runtime.Stdio{OpenStdin: true}, "cat")
	echo(t, stream, "before")
	bystander.exec("brief", false, runtime.Stdio{}, "sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done")
	brief := bystander.execPid
	waiting := r.create(stdio(), "sh", "-c", "echo late; exit 3")
	ending := r.create(stdio(), "sh", "-c", "trap 'echo gone; exit 11' TERM; echo soon; while :; do sleep 0.01; done").start()
	eventually(t, "output", func() bool { return ending.logged() == "soon\n" })
	paused := r.create(stdio(), "sh", "-c", "sleep 0.2; exit 12").start()
	if err := r.Pause(r.ctx(), paused.ID); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		r.killSupervisor(func() {
			if i == 0 {
				unix.Kill(brief, unix.SIGTERM)
				unix.Kill(ending.pid, unix.SIGTERM)
				eventually(t, "they end meanwhile", func() bool { return !alive(ending.pid) && !alive(brief) })
			}
		})
		echo(t, screen, fmt.Sprint("screen", i))
		echo(t, stream, fmt.Sprint("stream", i))
		if _, err := feed.Write(make([]byte, 5000)); err != nil {
			t.Error(err)
		}
		for _, b := range []*box{tty, once, bystander} {
			if st, err := r.State(r.ctx(), b.ID); err != nil || st.Pid != b.pid || st.Status != runtime.Running || st.StartedAt.IsZero() {
				t.Errorf("%+v %v", st, err)
			}
		}
		if st, err := r.State(r.ctx(), waiting.ID); err != nil || st.Status != runtime.Created {
			t.Errorf("the created one: %+v %v", st, err)
		}
		if st, err := r.State(r.ctx(), paused.ID); err != nil || st.Status != runtime.Paused {
			t.Errorf("the paused one: %+v %v", st, err)
		}
		if i == 0 {
			if e := ending.exit(); e.Code != 11 || ending.logged() != "soon\ngone\n" {
				t.Errorf("the one that ended meanwhile: %+v %q", e, ending.logged())
			}
			if e := r.wait(runtime.Ref{Container: bystander.ID, Exec: "brief"}); e.Code != 4 {
				t.Errorf("the exec that ended meanwhile: %+v", e)
			}
			if err := r.Delete(r.ctx(), ending.ID); err != nil {
				t.Error(err)
			}
		}
	}
	waiting.start()
	if e := waiting.exit(); e.Code != 3 || waiting.logged() != "late\n" {
		t.Errorf("the created one: %+v %q", e, waiting.logged())
	}
	if err := r.Resume(r.ctx(), paused.ID); err != nil {
		t.Error(err)
	}
	if e := paused.exit(); e.Code != 12 {
		t.Errorf("the paused one: %+v", e)
	}
	if err := feed.CloseWrite(); err != nil {
		t.Error(err)
	}
	if e := once.exit(); e.Code != 0 || strings.TrimSpace(once.logged()) != "10000" {
		t.Errorf("wc: %+v %q", e, once.logged())
	}
	if err := stream.CloseWrite(); err != nil {
		t.Error(err)
	}
	if e := r.wait(runtime.Ref{Container: bystander.ID, Exec: "cat"}); e.Code != 0 {
		t.Errorf("cat: %+v", e)
	}
	if e := ticking.exit(); e.Code != 7 {
		t.Errorf("the ticking one: %+v", e)
	}
	// What the killed one had read and not written yet is lost: a line each time, at most.
	checkGaps(t, "log", ticking.logged(), 400, 2)
	if out, err := read(); err != nil {
		t.Error(err)
	} else {
		checkGaps(t, "client", out[1], 400, 2)
	}
	if e := tty.kill(); e.Code != 137 {
		t.Errorf("tty: %+v", e)
	}
}

// checkGaps holds that text is the numbers up to n in order, without at most gaps of them.
func checkGaps(t *testing.T, what, text string, n, gaps int) {
	t.Helper()
	last, missing := -1, 0
	for line := range strings.Lines(text) {
		i, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || i <= last {
			t.Errorf("%s: %q after %d", what, line, last)
			return
		}
		missing += i - last - 1
		last = i
	}
	if missing += n - 1 - last; missing > gaps {
		t.Errorf("%s: %d lines are missing", what, missing)
	}
}

// TestKilledTogether: an engine that was killed with its supervisor holds nothing. The next supervisor finds the pipes in the
// containers, which waited for a reader and did not break.
func TestKilledTogether(t *testing.T) {
	r := newRig(t)
	const lines = 40000 // far more than a pipe holds
	flood := strings.Join(counting(lines, 7, "")[2:], "")
	loud := r.create(stdio(), "sh", "-c", "trap go=1 USR1; echo up; while [ -z \"$go\" ]; do sleep 0.01; done; "+flood).start()
	quiet := r.create(stdio(), "sh", "-c", "echo one; read x < /dev/null; sleep 600 & wait").start()
	eventually(t, "output", func() bool { return quiet.logged() == "one\n" && loud.logged() == "up\n" })
	ended := r.create(stdio(), "sh", "-c", "trap 'exit 1' TERM; while :; do sleep 0.01; done").start()
	for i := range 2 {
		r.killSupervisor(func() {
			r.opts.Kept.Close()
			if i == 0 { // with nobody to read
				unix.Kill(loud.pid, unix.SIGUSR1)
				eventually(t, "it has filled its pipe", func() bool { return waitsForPipe(loud.pid) })
			}
			unix.Kill(ended.pid, unix.SIGKILL)
			eventually(t, "it ends meanwhile", func() bool { return !alive(ended.pid) })
		})
		for _, b := range []*box{quiet, loud}[:2-i] {
			if st, err := r.State(r.ctx(), b.ID); err != nil || st.Pid != b.pid {
				t.Errorf("%+v %v", st, err)
			}
		}
		if _, err := r.State(r.ctx(), ended.ID); err == nil {
			t.Error("one that ended while nobody was there is known")
		}
		if i == 0 {
			if e := loud.exit(); e.Code != 7 || loud.logged() != "up\n"+numbers(lines) {
				t.Errorf("the loud one: %+v, %d bytes of log", e, len(loud.logged()))
			}
			if err := r.Delete(r.ctx(), loud.ID); err != nil {
				t.Error(err)
			}
		}
		quiet.exec("x", false, runtime.Stdio{}, "true")
		if e := r.wait(runtime.Ref{Container: quiet.ID, Exec: "x"}); e.Code != 0 {
			t.Errorf("exec: %+v", e)
		}
		r.Collect(r.ctx(), runtime.Ref{Container: quiet.ID, Exec: "x"})
	}
	if e := quiet.kill(); e.Code != 137 {
		t.Errorf("the quiet one: %+v", e)
	}
}

// waitsForPipe tells whether a process waits for room in a pipe.
func waitsForPipe(pid int) bool {
	at, _ := os.ReadFile(fmt.Sprint("/proc/", pid, "/wchan"))
	return strings.Contains(string(at), "pipe")
}
