package engine_test

import (
	"os"
	"path/filepath"
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

// TestKilledSupervisor: its containers can't go on, for nobody holds their streams or would hear of their ends. They are ended,
// reported and cleaned away, restart policies apply, and the engine goes on with a new supervisor.
func TestKilledSupervisor(t *testing.T) {
	for _, with := range []string{"engine running", "engine killed too"} {
		t.Run(with, func(t *testing.T) {
			t.Parallel()
			e := harness.Start(t)
			image := e.Tools()
			e.Docker("run", "-d", "--name", "lost", "-p", "127.0.0.1::80", image, "sleep", "1000")
			e.Docker("run", "-d", "--name", "host", "--pid", "host", image, "sh", "-c", "sleep 1000; true")
			e.Docker("run", "-d", "--name", "frozen", image, "sleep", "1000")
			e.Docker("run", "-d", "--name", "again", "--restart", "always", image, "sleep", "1000")
			e.Docker("run", "-d", "--rm", "--name", "goes", image, "sleep", "1000")
			e.Docker("pause", "frozen")
			pids := map[string]string{}
			for _, name := range []string{"lost", "host", "frozen", "again", "goes"} {
				pids[name] = e.Docker("inspect", "-f", "{{.State.Pid}}", name)
			}
			if with == "engine killed too" {
				e.Kill()
				killSupervisor(t, e)
				e.Launch()
			} else {
				killSupervisor(t, e)
			}
			inspect := func(name, format string) string {
				return strings.TrimSpace(e.Try(nil, "inspect", "-f", format, name).Stdout)
			}
			for _, name := range []string{"lost", "host", "frozen"} {
				e.Until(name+"'s end", func() bool {
					return inspect(name, "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}") == "exited 255 0"
				})
				if why := inspect(name, "{{.State.Error}}"); !strings.Contains(why, "its supervisor ended first") {
					t.Errorf("%s: %q", name, why)
				}
			}
			e.Until("the restart", func() bool {
				return inspect("again", "{{.State.Status}}") == "running" && inspect("again", "{{.State.Pid}}") != pids["again"]
			})
			e.Until("the removal", func() bool { return e.Try(nil, "inspect", "goes").Code == 1 })
			for name, pid := range pids {
				if exe, err := os.Readlink("/proc/" + pid + "/exe"); err == nil && strings.Contains(exe, "toolbox") {
					t.Errorf("the process of %s lives on", name)
				}
			}
			id := e.Docker("inspect", "-f", "{{.Id}}", "again")
			e.Until("cgroups of none but the one that runs", func() bool {
				for _, g := range e.Host.Cgroups() {
					if !strings.HasSuffix(g, id) {
						return false
					}
				}
				return true
			})
			e.Until("veths of none but the one that runs", func() bool {
				links, err := e.Host.Links()
				veths := 0
				for _, l := range links {
					if l.Type() == "veth" {
						veths++
					}
				}
				return err == nil && veths <= 1
			})
			expect(t, e, 0, "", "start", "lost")
			expect(t, e, 0, "uid=0", "exec", "lost", "id")
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
