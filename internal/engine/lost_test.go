package engine_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tare/internal/test/harness"
)

// killSupervisor ends the engine's supervisor as nothing should.
func killSupervisor(t *testing.T, e *harness.Engine) {
	t.Helper()
	pid := e.Host.SupervisorPid()
	if pid == 0 {
		t.Fatal("the engine has no supervisor")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.Until("the supervisor's end", func() bool {
		exe, err := os.Readlink(filepath.Join("/proc", itoa(pid), "exe"))
		return err != nil || exe == ""
	})
}

// TestKilledSupervisor: its containers go on, whatever they share with the host, with streams, logs and addresses, and how
// they end is known. The engine hands what it kept to a new one; if it was killed too, the new one finds what it needs.
func TestKilledSupervisor(t *testing.T) {
	for _, with := range []string{"engine running", "engine killed too"} {
		t.Run(with, func(t *testing.T) {
			t.Parallel()
			e := harness.Start(t)
			image := e.Tools()
			e.Docker("run", "-d", "--name", "plain", "-p", "127.0.0.1::80", image, "trap")
			e.Docker("run", "-d", "--name", "host", "--pid", "host", image, "trap")
			e.Docker("run", "-d", "--name", "frozen", image, "sleep", "1000")
			e.Docker("run", "-d", "--name", "again", "--restart", "always", image, "trap")
			e.Docker("run", "-d", "--rm", "--name", "goes", image, "trap")
			e.Docker("pause", "frozen")
			names := []string{"plain", "host", "frozen", "again", "goes"}
			state := func(name string) string {
				return strings.TrimSpace(e.Try(nil, "inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}} {{json .NetworkSettings}}", name).Stdout)
			}
			for _, name := range []string{"plain", "host", "again", "goes"} {
				e.Until("output of "+name, func() bool { return e.Docker("logs", name) == "ready" })
			}
			before := map[string]string{}
			for _, name := range names {
				before[name] = state(name)
			}
			if with == "engine killed too" {
				e.Kill()
				killSupervisor(t, e)
				e.Launch()
			} else {
				killSupervisor(t, e)
				e.Until("the successor", func() bool { return e.Try(nil, "exec", "plain", "true").Code == 0 })
			}
			for _, name := range names {
				if now := state(name); now != before[name] {
					t.Errorf("%s was\n%s\nand is\n%s", name, before[name], now)
				}
			}
			expect(t, e, 0, "uid=0", "exec", "plain", "id")
			e.Docker("unpause", "frozen")
			for _, name := range []string{"plain", "host"} {
				e.Docker("stop", name)
				expect(t, e, 0, "exited 7", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name)
			}
			for _, name := range []string{"again", "goes"} {
				n, err := strconv.Atoi(e.Docker("inspect", "-f", "{{.State.Pid}}", name))
				if err != nil {
					t.Fatal(err)
				}
				syscall.Kill(n, syscall.SIGTERM)
			}
			e.Until("the removal", func() bool { return e.Try(nil, "inspect", "goes").Code == 1 })
			e.Until("the restart", func() bool {
				return e.Docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again") == "running 1"
			})
			e.Docker("rm", "-f", "frozen", "again")
			e.Until("no cgroups", func() bool { return len(e.Host.Cgroups()) == 0 })
			expect(t, e, 0, "", "start", "plain")
			expect(t, e, 0, "fresh", "run", "--rm", image, "echo", "fresh")
		})
	}
}

// TestImageOfARunningContainer: force removes the image of a stopped container, never that of a running one.
func TestImageOfARunningContainer(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	id := e.Docker("images", "-q", "--no-trunc", image)
	c := e.Docker("run", "-d", "--name", "runs", image, "sleep", "1000")
	words := "conflict: unable to delete " + strings.TrimPrefix(id, "sha256:")[:12] + " (cannot be forced) - image is being used by running container " + c[:12]
	expect(t, e, 1, words, "rmi", "-f", id)
	e.Restart(true)
	expect(t, e, 1, words, "rmi", "-f", id)
	e.Docker("kill", "runs")
	expect(t, e, 1, "image is referenced in multiple repositories", "rmi", id)
	expect(t, e, 0, "Deleted: "+id, "rmi", "-f", id)
	expect(t, e, 0, "", "start", "runs") // it has what it needs
	expect(t, e, 0, "uid=0", "exec", "runs", "id")
	e.Docker("rm", "-f", "runs")
	if left, _ := filepath.Glob(filepath.Join(e.DataRoot, "layers", "[0-9a-f]*")); len(left) > 1 { // "empty" and "fix" aside
		for _, l := range left {
			if len(filepath.Base(l)) == 64 {
				t.Errorf("the layer %s stays", l)
			}
		}
	}
}

// TestEngineKilledAndAtOnceThere: a pid file from before and a parent that does not wait keep no engine away.
func TestEngineKilledAndAtOnceThere(t *testing.T) {
	e := harness.Start(t)
	pid := filepath.Join(e.Dir, "tared.pid")
	e.Kill()
	os.WriteFile(pid, []byte(itoa(os.Getpid())), 0o644) // recycled: this is no engine
	e.Launch()
	if data, _ := os.ReadFile(pid); string(data) != itoa(e.Pid()) {
		t.Errorf("the pid file has %q", data)
	}
}
