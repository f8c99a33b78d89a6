package engine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tare/internal/test/harness"
)

// TestRuntimes runs the same life of a container with our own runtime, runc and crun: what people do with containers, and what they may
// lose, does not depend on it.
func TestRuntimes(t *testing.T) {
	path := func(name string) string {
		p, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%v: test/deps.sh installs it", err)
		}
		return p
	}
	// Debian's crun refuses hybrid machines whose v2 tree has controllers.
	crun := filepath.Join(t.TempDir(), "crun")
	script := "#!/bin/sh\nexec unshare -m --propagation slave sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec " + path("crun") + " \"$@\"' crun \"$@\"\n"
	if err := os.WriteFile(crun, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	e := harness.Start(t, "--add-runtime", "runc="+path("runc"), "--add-runtime", "crun="+crun)
	image := e.Tools()
	expect(t, e, 0, "crun", "info", "-f", "{{json .Runtimes}}")
	for _, name := range []string{"tare", "runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			run := func(code int, words string, args ...string) {
				t.Helper()
				expect(t, e, code, words, append([]string{"run", "--runtime", name}, args...)...)
			}
			run(7, "out\n", "--rm", image, "sh", "-c", "echo out; exit 7")
			run(0, "uid=12", "--rm", "-u", "12", image, "id")
			run(0, "inside\n", "--rm", "--hostname", "inside", image, "cat", "/proc/sys/kernel/hostname")
			run(0, "", "--rm", "-v", "vol-"+name+":/data", image, "write", "/data/x", "kept")
			run(0, "kept", "--rm", "-v", "vol-"+name+":/data:ro", image, "cat", "/data/x")
			run(127, `exec: "nosuch": executable file not found in $PATH`, "--rm", image, "nosuch")
			if r := e.Try(strings.NewReader("typed\n"), "run", "--rm", "-i", "--runtime", name, image, "cat"); r.Stdout != "typed\n" {
				t.Errorf("stdin: %+v", r)
			}

			run(0, "", "-d", "--name", "box", "--restart", "on-failure:1", "-m", "64m", "-p", "127.0.0.1::80", image, "trap")
			expect(t, e, 0, name, "inspect", "-f", "{{.HostConfig.Runtime}}", "box")
			e.Until("output", func() bool { return e.Docker("logs", "box") == "ready" })
			expect(t, e, 0, "5\n", "exec", "box", "sh", "-c", "echo 5")
			expect(t, e, 3, "/etc\n", "exec", "-e", "A=b", "-w", "/etc", "box", "sh", "-c", "pwd; exit 3")
			expect(t, e, 0, "A=b\n", "exec", "-e", "A=b", "box", "env")
			expect(t, e, 127, "executable file not found", "exec", "box", "nosuch")
			expect(t, e, 0, "64MiB", "stats", "--no-stream", "box")
			expect(t, e, 0, "trap", "top", "box")
			expect(t, e, 0, "", "update", "-m", "96m", "--memory-swap", "96m", "box")
			expect(t, e, 0, "96MiB", "stats", "--no-stream", "box")
			expect(t, e, 0, "", "pause", "box")
			expect(t, e, 0, "paused", "inspect", "-f", "{{.State.Status}}", "box")
			expect(t, e, 0, "", "unpause", "box")
			expect(t, e, 0, "", "cp", "/etc/hostname", "box:/copied")
			expect(t, e, 0, "A /copied", "diff", "box")

			// Supervisor and engine are killed, one after the other and together.
			pid := e.Docker("inspect", "-f", "{{.State.Pid}}", "box")
			same := func() {
				t.Helper()
				expect(t, e, 0, "running "+pid, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "box")
				expect(t, e, 0, "6\n", "exec", "box", "sh", "-c", "echo 6")
			}
			syscall.Kill(e.Host.SupervisorPid(), syscall.SIGKILL)
			e.Until("an answer", func() bool { return e.Try(nil, "exec", "box", "true").Code == 0 })
			same()
			e.Kill()
			e.Launch()
			same()
			syscall.Kill(e.Host.SupervisorPid(), syscall.SIGKILL)
			e.Kill()
			e.Launch()
			same()

			// Its restart policy, and its end.
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			syscall.Kill(n, syscall.SIGTERM)
			e.Until("the restart", func() bool {
				return e.Docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "box") == "running 1" && e.Docker("logs", "box") == "ready\ngot terminated\nready"
			})
			expect(t, e, 0, "", "stop", "-t", "10", "box")
			expect(t, e, 0, "exited 7", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box")
			expect(t, e, 0, "", "start", "box")
			expect(t, e, 0, "", "rm", "-f", "box")
			expect(t, e, 0, "", "volume", "rm", "vol-"+name)
		})
	}
}
