package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"tare/internal/test/harness"
)

// terminal is a docker command line on a pty.
type terminal struct {
	t    *testing.T
	pty  *os.File
	cmd  *exec.Cmd
	seen strings.Builder
	more chan string
}

func startTerminal(e *harness.Engine, t *testing.T, args ...string) *terminal {
	t.Helper()
	cmd := exec.Command("docker", args...)
	cmd.Env = append(e.Env(), "TERM=xterm")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, pty: f, cmd: cmd, more: make(chan string)}
	t.Cleanup(func() {
		cmd.Process.Kill()
		f.Close()
	})
	go func() {
		defer close(x.more)
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			if n > 0 {
				x.more <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return x
}

// expect waits until the terminal shows text after what was expected before.
func (x *terminal) expect(text string) { x.t.Helper(); x.upTo(text) }

// upTo does the same and returns what was shown before the text.
func (x *terminal) upTo(text string) string {
	x.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if before, rest, ok := strings.Cut(x.seen.String(), text); ok {
			x.seen.Reset()
			x.seen.WriteString(rest)
			return before
		}
		select {
		case s, ok := <-x.more:
			if !ok {
				x.t.Fatalf("the terminal closed before %q: %q", text, x.seen.String())
			}
			x.seen.WriteString(s)
		case <-deadline:
			x.t.Fatalf("%q does not show in the terminal: %q", text, x.seen.String())
		}
	}
}

func (x *terminal) send(s string) { io.WriteString(x.pty, s) }

// code waits for the command's end.
func (x *terminal) code() int {
	go func() {
		for range x.more {
		}
	}()
	x.cmd.Wait()
	return x.cmd.ProcessState.ExitCode()
}

func TestInteractive(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	x := startTerminal(e, t, "run", "--rm", "-it", "--name", "term", image, "sh")
	x.expect("$ ")
	x.send("size\n")
	x.expect("size 33 77")
	pty.Setsize(x.pty, &pty.Winsize{Rows: 20, Cols: 50})
	e.Until("the new size", func() bool {
		x.send("size\n")
		x.expect("size ")
		return strings.HasPrefix(x.upTo("$ "), "20 50")
	})
	x.send("exit 5\n")
	if c := x.code(); c != 5 {
		t.Errorf("exit code %d, want 5", c)
	}

	// exec -it has a terminal of its own.
	e.Docker("run", "-d", "--name", "bg", image, "sleep", "1000")
	x = startTerminal(e, t, "exec", "-it", "bg", "sh")
	x.expect("$ ")
	x.send("size; exit 4\n")
	x.expect("size 33 77")
	if c := x.code(); c != 4 {
		t.Errorf("exec's exit code %d, want 4", c)
	}

	// ctrl-p ctrl-q detaches; the container goes on and can be attached again.
	x = startTerminal(e, t, "run", "-it", "--name", "det", image, "sh")
	x.expect("$ ")
	x.send("\x10\x11")
	x.code()
	if s := e.Docker("inspect", "-f", "{{.State.Status}}", "det"); s != "running" {
		t.Errorf("after detaching: %s", s)
	}
	x = startTerminal(e, t, "attach", "det")
	x.send("echo again\n")
	x.expect("again\r\nagain\r\n")
	x.send("exit 6\n")
	if c := x.code(); c != 6 {
		t.Errorf("attach's exit code %d, want 6", c)
	}
}

func TestExec(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "-d", "--name", "bg", image, "sleep", "1000")
	if out := e.Docker("exec", "-e", "X=y", "-w", "/tmp", "-u", "1000:1000", "bg", "sh", "-c", "pwd; id; echo $X"); out != "/tmp\nuid=1000 gid=1000\ny" {
		t.Errorf("exec: %q", out)
	}
	if r := e.Try(strings.NewReader("data"), "exec", "-i", "bg", "cat"); r.Stdout != "data" || r.Code != 0 {
		t.Errorf("exec -i: %+v", r)
	}
	for _, tt := range []struct {
		args string
		code int
	}{{"exec bg exit 9", 9}, {"exec bg nosuch", 127}, {"exec bg /etc/notexec", 126}, {"exec nosuch true", 1}} {
		if r := e.Try(nil, strings.Fields(tt.args)...); r.Code != tt.code {
			t.Errorf("docker %s: code %d, want %d: %s%s", tt.args, r.Code, tt.code, r.Stdout, r.Stderr)
		}
	}
	e.Docker("exec", "-d", "bg", "write", "/tmp/f", "written")
	e.Until("the detached exec", func() bool { return e.Try(nil, "exec", "bg", "cat", "/tmp/f").Stdout == "written\n" })
	if top := e.Docker("top", "bg"); !strings.Contains(top, "sleep 1000") {
		t.Errorf("top: %s", top)
	}
}

func TestLogs(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "--name", "log1", image, "sh", "-c", "echo one; err two; echo three")
	if r := e.Try(nil, "logs", "log1"); r.Stdout != "one\nthree\n" || r.Stderr != "two\n" {
		t.Errorf("logs: %+v", r)
	}
	// Between two streams there is no order that anybody could know.
	e.Docker("run", "--name", "out", image, "sh", "-c", "echo one; echo two; echo three")
	if out := e.Docker("logs", "-n", "1", "out"); out != "three" {
		t.Errorf("logs -n 1: %q", out)
	}
	if out := e.Docker("logs", "-t", "-n", "1", "out"); len(out) != len("2026-01-02T03:04:05.123456789Z three") {
		t.Errorf("logs -t: %q", out)
	}
	if out := e.Docker("logs", "--since", "1h", "--until", "1s", "log1"); strings.Contains(out, "x") {
		t.Errorf("logs --since --until: %q", out)
	}
	e.Docker("run", "-d", "--name", "follow", image, "tick", "20", "20ms")
	var want strings.Builder
	for i := range 20 {
		fmt.Fprintf(&want, "tick %d\n", i+1)
	}
	if r := e.Try(nil, "logs", "-f", "follow"); r.Stdout != want.String() {
		t.Errorf("logs -f: %q", r.Stdout)
	}
	if out := e.Docker("attach", "--no-stdin", e.Docker("run", "-d", image, "tick", "5", "100ms")); !strings.HasSuffix(out, "tick 5") {
		t.Errorf("attach: %q", out)
	}
}

func TestLifecycle(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	events := startEvents(t, e)
	e.Docker("create", "--name", "c1", "--label", "k=v", "-p", "127.0.0.1::80", image, "trap")
	e.Docker("start", "c1")
	e.Until("the trap", func() bool { return e.Docker("logs", "c1") == "ready" })
	if out := e.Docker("ps", "--filter", "label=k=v", "--filter", "status=running", "--format", "{{.Names}} {{.Image}} {{.State}}"); out != "c1 tools running" {
		t.Errorf("ps: %q", out)
	}
	if out := e.Docker("port", "c1", "80"); !strings.HasPrefix(out, "127.0.0.1:") {
		t.Errorf("port: %q", out)
	}
	e.Docker("kill", "-s", "USR1", "c1")
	e.Until("the signal", func() bool { return strings.Contains(e.Docker("logs", "c1"), "got user defined signal 1") })
	e.Docker("pause", "c1")
	if s := e.Docker("inspect", "-f", "{{.State.Status}}", "c1"); s != "paused" {
		t.Errorf("paused: %s", s)
	}
	if r := e.Try(nil, "exec", "c1", "true"); r.Code == 0 {
		t.Error("exec in a paused container succeeded")
	}
	e.Docker("unpause", "c1")
	e.Docker("rename", "c1", "d1")
	e.Docker("update", "--memory", "64m", "--memory-swap", "64m", "d1")
	if m := e.Docker("inspect", "-f", "{{.HostConfig.Memory}}", "d1"); m != "67108864" {
		t.Errorf("memory: %s", m)
	}
	if out := e.Docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "d1"); !strings.HasPrefix(out, "d1 ") || !strings.Contains(out, "64MiB") {
		t.Errorf("stats: %q", out)
	}
	e.Docker("restart", "d1")
	e.Until("the trap again", func() bool { return strings.Count(e.Docker("logs", "d1"), "ready") == 2 })
	e.Docker("stop", "d1")
	if out := e.Docker("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "d1"); out != "7 exited" {
		t.Errorf("stopped: %s", out)
	}
	if out := e.Docker("wait", "d1"); out != "7" {
		t.Errorf("wait: %s", out)
	}
	e.Docker("rm", "d1")
	want := []string{"create", "start", "kill", "pause", "unpause", "rename", "update", "die", "stop", "start", "restart", "die", "stop", "destroy"}
	for _, w := range want {
		events.expect(t, "container", w)
	}
}

// eventReader reads docker events.
type eventReader struct{ c chan map[string]any }

func startEvents(t *testing.T, e *harness.Engine) *eventReader {
	cmd := exec.Command("docker", "events", "--format", "json")
	cmd.Env = e.Env()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &eventReader{c: make(chan map[string]any, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			var m map[string]any
			if json.Unmarshal(sc.Bytes(), &m) == nil {
				r.c <- m
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		cmd.Wait()
	})
	e.Until("the subscription", func() bool {
		e.Docker("volume", "create", "probe")
		e.Docker("volume", "rm", "probe")
		return len(r.c) > 0
	})
	return r
}

// expect skips events until the one that is wanted.
func (r *eventReader) expect(t *testing.T, kind, action string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case m := <-r.c:
			if m["Type"] == kind && m["Action"] == action {
				return
			}
		case <-deadline:
			t.Fatalf("no event %s %s", kind, action)
		}
	}
}

func TestFiles(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "-d", "--name", "c1", image, "sleep", "1000")
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "in/sub"), 0o755)
	os.WriteFile(filepath.Join(dir, "in/sub/f"), []byte("content"), 0o600)
	e.Docker("cp", filepath.Join(dir, "in"), "c1:/tmp/")
	if out := e.Docker("exec", "c1", "cat", "/tmp/in/sub/f"); out != "content" {
		t.Errorf("cp in: %q", out)
	}
	e.Docker("cp", "c1:/tmp/in", filepath.Join(dir, "out"))
	if data, err := os.ReadFile(filepath.Join(dir, "out/sub/f")); err != nil || string(data) != "content" {
		t.Errorf("cp out: %q %v", data, err)
	}
	if out := e.Docker("diff", "c1"); !strings.Contains(out, "A /tmp/in/sub/f") || !strings.Contains(out, "C /tmp") {
		t.Errorf("diff: %s", out)
	}
	if r := e.Try(nil, "cp", "c1:/nosuch", dir); r.Code == 0 || !strings.Contains(r.Stderr, "Could not find the file /nosuch in container c1") {
		t.Errorf("cp of nothing: %+v", r)
	}
	e.Docker("export", "-o", filepath.Join(dir, "root.tar"), "c1")
	if out, err := exec.Command("tar", "tf", filepath.Join(dir, "root.tar")).Output(); err != nil || !strings.Contains(string(out), "tmp/in/sub/f\n") {
		t.Errorf("export: %v", err)
	}
	e.Docker("commit", "-c", "ENV V=w", "-c", `CMD ["cat","/tmp/in/sub/f"]`, "c1", "committed:v1")
	if out := e.Docker("run", "--rm", "committed:v1"); out != "content" {
		t.Errorf("commit: %q", out)
	}
	if out := e.Docker("run", "--rm", "committed:v1", "sh", "-c", "echo $V"); out != "w" {
		t.Errorf("commit -c: %q", out)
	}
	// A volume outlives its container.
	e.Docker("run", "--rm", "-v", "vol:/data", image, "write", "/data/f", "kept")
	if out := e.Docker("run", "--rm", "-v", "vol:/data:ro", image, "cat", "/data/f"); out != "kept" {
		t.Errorf("volume: %q", out)
	}
	if out := e.Docker("volume", "ls", "-q"); out != "vol" {
		t.Errorf("volume ls: %q", out)
	}
	e.Docker("system", "df", "-v")
	e.Docker("volume", "rm", "vol")
	// A folder of the host.
	if out := e.Docker("run", "--rm", "-v", filepath.Join(dir, "in")+":/in:ro", image, "cat", "/in/sub/f"); out != "content" {
		t.Errorf("bind: %q", out)
	}
}

func TestImages(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	registry := e.Registry()
	e.Docker("tag", image, registry+"/other:v2")
	e.Docker("push", registry+"/other:v2")
	e.Docker("rmi", registry+"/other:v2")
	out := e.Docker("pull", registry+"/other:v2")
	if !strings.Contains(out, "Digest: sha256:") {
		t.Errorf("pull: %s", out)
	}
	if out := e.Docker("images", "--format", "{{.Repository}}:{{.Tag}}", registry+"/other"); out != registry+"/other:v2" {
		t.Errorf("images: %s", out)
	}
	if out := e.Docker("history", "--format", "{{.Size}}", image); out == "" {
		t.Error("history is empty")
	}
	e.Docker("image", "inspect", image)
	dir := t.TempDir()
	tar := filepath.Join(dir, "image.tar")
	id := e.Docker("inspect", "-f", "{{.Id}}", image)
	e.Docker("save", "-o", tar, image)
	e.Docker("rmi", "-f", image, registry+"/other:v2", registry+"/tools")
	if out := e.Docker("images", "-q"); out != "" {
		t.Errorf("images are left: %s", out)
	}
	if out := e.Docker("load", "-i", tar); !strings.Contains(out, "Loaded image: tools:latest") {
		t.Errorf("load: %s", out)
	}
	if again := e.Docker("inspect", "-f", "{{.Id}}", image); again != id {
		t.Errorf("the id changed: %s, was %s", again, id)
	}
	e.Docker("run", "--name", "x1", image, "write", "/f", "x")
	root := filepath.Join(dir, "root.tar")
	e.Docker("export", "-o", root, "x1")
	e.Docker("import", "-c", "ENV I=j", "-m", "by hand", root, "imported")
	if out := e.Docker("run", "--rm", "imported", "sh", "-c", "cat /f; echo $I"); out != "x\nj" {
		t.Errorf("import: %q", out)
	}
	if r := e.Try(nil, "rmi", image); r.Code == 0 || !strings.Contains(r.Stderr, "conflict") {
		t.Errorf("rmi of a used image: %+v", r)
	}
	if r := e.Try(nil, "pull", registry+"/nosuch"); r.Code != 1 {
		t.Errorf("pull of nothing: %+v", r)
	}
	e.Docker("system", "df", "-v")
}

func TestNetworks(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("network", "create", "--label", "a=b", "n1")
	e.Docker("run", "-d", "--name", "web", "--network", "n1", "-p", "127.0.0.1::8080", image, "serve", ":8080", "hello")
	e.Until("the server", func() bool { return e.Docker("logs", "web") == "listening" })
	if out := e.Docker("run", "--rm", "--network", "n1", image, "fetch", "http://web:8080/"); out != "hello" {
		t.Errorf("by name: %q", out)
	}
	port := e.Docker("port", "web", "8080")
	if out, err := exec.Command("curl", "-sf", "http://"+port).Output(); err != nil || string(out) != "hello\n" {
		t.Errorf("by port %s: %q %v", port, out, err)
	}
	e.Docker("network", "create", "n2")
	e.Docker("network", "connect", "--alias", "www", "n2", "web")
	if out := e.Docker("run", "--rm", "--network", "n2", image, "fetch", "http://www:8080/"); out != "hello" {
		t.Errorf("by alias: %q", out)
	}
	e.Docker("network", "inspect", "n1", "n2")
	if r := e.Try(nil, "network", "rm", "n1"); r.Code == 0 || !strings.Contains(r.Stderr, "has active endpoints") {
		t.Errorf("network rm in use: %+v", r)
	}
	e.Docker("network", "disconnect", "n2", "web")
	if r := e.Try(nil, "network", "create", "n1"); r.Code == 0 || !strings.Contains(r.Stderr, "already exists") {
		t.Errorf("name taken: %+v", r)
	}
	e.Docker("rm", "-f", "web")
	if out := e.Docker("network", "prune", "-f"); !strings.Contains(out, "n1") || !strings.Contains(out, "n2") {
		t.Errorf("prune: %s", out)
	}
}

func TestBuild(t *testing.T) {
	e := harness.Start(t)
	e.Tools()
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(`FROM tools AS base
ARG WHO=nobody
ENV GREETING="hello $WHO"
RUN echo "$GREETING" > /greeting
FROM base
COPY file /file
LABEL made=here
CMD ["cat", "/greeting", "/file"]
`), 0o644)
	os.WriteFile(filepath.Join(dir, "file"), []byte("from the context\n"), 0o644)
	out := e.Docker("build", "-t", "built:v1", "--build-arg", "WHO=you", dir)
	if !strings.Contains(out, "Step 1/8 : FROM tools AS base") || !strings.Contains(out, "Successfully built") || !strings.Contains(out, "Successfully tagged built:v1") {
		t.Errorf("build: %s", out)
	}
	if out := e.Docker("run", "--rm", "built:v1"); out != "hello you\nfrom the context" {
		t.Errorf("run: %q", out)
	}
	if out := e.Docker("build", "-t", "built:v2", "--build-arg", "WHO=you", dir); strings.Count(out, "Using cache") < 2 {
		t.Errorf("second build: %s", out)
	}
	if out := e.Docker("build", "-q", dir); !strings.HasPrefix(out, "sha256:") {
		t.Errorf("quiet: %q", out)
	}
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM tools\nRUN exit 3\n"), 0o644)
	if r := e.Try(nil, "build", dir); r.Code == 0 || !strings.Contains(r.Stderr, "returned a non-zero code: 3") {
		t.Errorf("failing RUN: %+v", r)
	}
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM tools\nFORM x\n"), 0o644)
	if r := e.Try(nil, "build", dir); r.Code == 0 || !strings.Contains(r.Stderr, "unknown instruction: FORM") || !strings.Contains(r.Stderr, "line 2") {
		t.Errorf("broken Dockerfile: %+v", r)
	}
	e.Docker("system", "df", "-v")
	e.Docker("builder", "prune", "-af")
}

// TestEngineIsReplaced kills the engine under 20 containers that each print numbered lines.
func TestEngineIsReplaced(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	const n = 20
	pids := map[string]string{}
	for i := range n {
		name := fmt.Sprintf("tick%d", i)
		e.Docker("run", "-d", "--name", name, image, "tick", "0", "10ms")
		pids[name] = e.Docker("inspect", "-f", "{{.State.Pid}}", name)
	}
	for _, kill := range []bool{true, false, true} {
		e.Restart(kill)
		for name, pid := range pids {
			if got := e.Docker("inspect", "-f", "{{.State.Pid}} {{.State.Status}}", name); got != pid+" running" {
				t.Errorf("%s after kill=%v: %s, want %s", name, kill, got, pid)
			}
		}
	}
	// One dies while there is no engine.
	e.Kill()
	pid, _ := strconv.Atoi(pids["tick0"])
	syscall.Kill(pid, syscall.SIGKILL)
	e.Launch()
	e.Until("the exit that nobody saw", func() bool {
		return e.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "tick0") == "exited 137"
	})
	for name := range pids {
		if name != "tick0" {
			e.Docker("kill", name)
		}
		e.Docker("wait", name)
		for i, line := range strings.Split(e.Docker("logs", name), "\n") {
			if line != fmt.Sprintf("tick %d", i+1) {
				t.Fatalf("%s: line %d is %q", name, i+1, line)
			}
		}
	}
	// A second engine is kept away.
	r := exec.Command(filepath.Join(e.Bin, "tared"), "--data-root", e.DataRoot, "--exec-root", e.ExecRoot, "--config-file", filepath.Join(e.Dir, "daemon.json"), "--host", "unix://"+e.Dir+"/second.sock", "--pidfile", e.Dir+"/second.pid")
	out, err := r.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another engine (pid") {
		t.Errorf("second engine: %v %s", err, out)
	}
}

// TestShutdown ends an engine that has to stop its containers.
func TestShutdown(t *testing.T) {
	e := harness.Start(t, "--shutdown", "--shutdown-timeout", "5")
	e.Docker("run", "-d", "--name", "trap1", e.Tools(), "trap")
	e.Until("the trap", func() bool { return e.Docker("logs", "trap1") == "ready" })
	e.Restart(false)
	if out := e.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "trap1"); out != "exited 7" {
		t.Errorf("after the engine's end: %s", out)
	}
}
