package oci

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// lifecycle: what create, start, kill, delete and state do, and in which states they may.
func lifecycle() []clause {
	return []clause{
		{"lifecycle/create-makes-it-created", "runtime.md, Lifecycle 2", func(c *check) {
			ct := c.create()
			c.equal("status", ct.status(), "created")
		}},
		{"lifecycle/create-does-not-run-the-program", "runtime.md, Create", func(c *check) {
			ct := c.create(script("touch /ran"))
			if _, err := os.Stat(ct.rootfs("ran")); err == nil {
				c.failf("the program ran before start")
			}
			ct.start()
			ct.stopped()
			if _, err := os.Stat(ct.rootfs("ran")); err != nil {
				c.failf("the program did not run after start")
			}
		}},
		{"lifecycle/create-refuses-a-used-id", "runtime.md, Create", func(c *check) {
			ct := c.create()
			c.fails("create", "--bundle", ct.bundle, ct.id)
			c.equal("status of the first", ct.status(), "created")
		}},
		{"lifecycle/create-refuses-an-empty-id", "runtime.md, Create", func(c *check) {
			ct := c.prepare()
			c.fails("create", "--bundle", ct.bundle, "")
		}},
		{"lifecycle/create-needs-an-id", "runtime.md, Create", func(c *check) {
			ct := c.prepare()
			c.fails("create", "--bundle", ct.bundle)
		}},
		{"lifecycle/create-refuses-ids-that-are-paths", "runc, create.bats", func(c *check) {
			ct := c.prepare()
			c.fails("create", "--bundle", ct.bundle, "../"+ct.id)
			c.fails("create", "--bundle", ct.bundle, "a/"+ct.id)
		}},
		{"lifecycle/create-without-a-bundle", "runtime.md, Create", func(c *check) {
			c.fails("create", "--bundle", filepath.Join(c.dir, "nowhere"), "missing")
		}},
		{"lifecycle/create-without-config", "runtime.md, Create", func(c *check) {
			ct := c.prepare()
			c.must(os.Remove(filepath.Join(ct.bundle, "config.json")))
			c.fails("create", "--bundle", ct.bundle, ct.id)
		}},
		{"lifecycle/create-with-broken-config", "config.md", func(c *check) {
			ct := c.prepare()
			ct.writeText("{ this is no JSON")
			c.fails("create", "--bundle", ct.bundle, ct.id)
		}},
		{"lifecycle/create-takes-bundle-from-working-directory", "runtime.md, Create; runc, root.bats", func(c *check) {
			ct := c.prepare()
			r := c.commandFrom(func(cmd *exec.Cmd) { cmd.Dir = ct.bundle }, "create", ct.id)
			if r.code != 0 {
				c.failf("create: %s", r.all())
			}
			c.equal("status", ct.status(), "created")
		}},
		{"lifecycle/config-updates-have-no-effect", "runtime.md, Lifecycle 2", func(c *check) {
			ct := c.create(script("echo first > /said"))
			c.must(os.Remove(filepath.Join(ct.bundle, "config.json")))
			other := defaultSpec()
			other.Process.Args = []string{"sh", "-c", "echo second > /said"}
			b, _ := json.Marshal(other)
			c.must(os.WriteFile(filepath.Join(ct.bundle, "config.json"), b, 0o644))
			ct.start()
			ct.stopped()
			c.equal("said", read(c, ct.rootfs("said")), "first")
		}},
		{"lifecycle/start-runs-the-program", "runtime.md, Start", func(c *check) {
			ct := c.running()
			c.equal("status", ct.status(), "running")
		}},
		{"lifecycle/start-of-a-running-container-fails", "runtime.md, Start", func(c *check) {
			ct := c.running()
			c.fails("start", ct.id)
			c.equal("status", ct.status(), "running")
		}},
		{"lifecycle/start-of-a-stopped-container-fails", "runtime.md, Start", func(c *check) {
			ct := c.create()
			ct.start()
			ct.stopped()
			c.fails("start", ct.id)
		}},
		{"lifecycle/start-without-an-id", "runtime.md, Start", func(c *check) { c.fails("start") }},
		{"lifecycle/start-of-no-container", "runtime.md, Start", func(c *check) { c.fails("start", "nobody") }},
		{"lifecycle/start-of-a-missing-program-fails", "runtime.md, Start; runc, start.bats", func(c *check) {
			ct := c.prepare(args("/no/such/program"))
			if r := c.command("create", "--bundle", ct.bundle, ct.id); r.code == 0 {
				c.fails("start", ct.id)
			}
		}},
		{"lifecycle/a-program-that-ends-is-stopped", "runtime.md, Lifecycle 9", func(c *check) {
			ct := c.create()
			ct.start()
			ct.stopped()
		}},
		{"lifecycle/kill-of-a-created-container", "runtime.md, Kill", func(c *check) {
			ct := c.create()
			c.ok("kill", ct.id, "KILL")
			ct.stopped()
		}},
		{"lifecycle/kill-of-a-running-container", "runtime.md, Kill", func(c *check) {
			ct := c.running()
			c.ok("kill", ct.id, "KILL")
			ct.stopped()
		}},
		{"lifecycle/kill-of-a-stopped-container-fails", "runtime.md, Kill", func(c *check) {
			ct := c.create()
			ct.start()
			ct.stopped()
			c.fails("kill", ct.id, "KILL")
		}},
		{"lifecycle/kill-without-an-id", "runtime.md, Kill", func(c *check) { c.fails("kill") }},
		{"lifecycle/kill-of-no-container", "runtime.md, Kill", func(c *check) { c.fails("kill", "nobody", "KILL") }},
		{"lifecycle/kill-sends-the-signal", "runtime.md, Kill", func(c *check) {
			ct := c.create(script("trap 'echo hup > /got; exit' HUP; echo > /ready; while :; do sleep 0.02; done"))
			ct.start()
			c.until("the trap", func() bool { _, err := os.Stat(ct.rootfs("ready")); return err == nil })
			c.ok("kill", ct.id, "HUP")
			ct.stopped()
			c.equal("got", read(c, ct.rootfs("got")), "hup")
		}},
		{"lifecycle/kill-takes-names-with-sig", "runc, kill.bats", func(c *check) { signalled(c, "SIGUSR1", "USR1") }},
		{"lifecycle/kill-takes-numbers", "runc, kill.bats", func(c *check) { signalled(c, "10", "USR1") }},
		{"lifecycle/kill-takes-lower-case", "runc, kill.bats", func(c *check) { signalled(c, "usr1", "USR1") }},
		{"lifecycle/kill-sends-term-without-a-signal", "runc, kill.bats", func(c *check) { signalled(c, "", "TERM") }},
		{"lifecycle/kill-takes-real-time-signals", "runc, kill.bats", func(c *check) { signalled(c, "35", "35") }},
		{"lifecycle/kill-refuses-unknown-signals", "runc, kill.bats", func(c *check) {
			ct := c.running()
			c.fails("kill", ct.id, "NONSENSE")
			c.fails("kill", ct.id, "99")
			c.equal("status", ct.status(), "running")
		}},
		{"lifecycle/kill-all-reaches-every-process", "runc, kill.bats (-a)", func(c *check) {
			ct := c.create(script("sleep 1000 & sleep 1000 & wait"), without(specs.PIDNamespace))
			ct.start()
			c.until("three processes", func() bool { return len(strings.Fields(ct.controller("pids", "cgroup.procs"))) == 3 })
			c.ok("kill", "--all", ct.id, "KILL")
			c.until("their end", func() bool { return ct.controller("pids", "cgroup.procs") == "" })
		}},
		{"lifecycle/delete-of-a-stopped-container", "runtime.md, Delete", func(c *check) {
			ct := c.create()
			ct.start()
			ct.stopped()
			c.ok("delete", ct.id)
			c.fails("state", ct.id)
		}},
		{"lifecycle/delete-of-a-running-container-fails", "runtime.md, Delete", func(c *check) {
			ct := c.running()
			c.fails("delete", ct.id)
			c.equal("status", ct.status(), "running")
		}},
		{"lifecycle/delete-without-an-id", "runtime.md, Delete", func(c *check) { c.fails("delete") }},
		{"lifecycle/delete-of-no-container", "runtime.md, Delete", func(c *check) { c.fails("delete", "nobody") }},
		{"lifecycle/delete-force-of-a-running-container", "runc, delete.bats", func(c *check) {
			ct := c.running()
			pid := ct.state().Pid
			c.ok("delete", "--force", ct.id)
			c.fails("state", ct.id)
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
				b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
				if !strings.Contains(string(b), ") Z ") {
					c.failf("the process goes on")
				}
			}
		}},
		{"lifecycle/delete-force-of-a-created-container", "runc, delete.bats", func(c *check) {
			ct := c.create()
			c.ok("delete", "-f", ct.id)
			c.fails("state", ct.id)
		}},
		{"lifecycle/delete-force-of-a-paused-container", "runc, delete.bats", func(c *check) {
			ct := c.running()
			c.ok("pause", ct.id)
			c.ok("delete", "-f", ct.id)
			c.fails("state", ct.id)
		}},
		{"lifecycle/delete-force-of-no-container", "runc, delete.bats", func(c *check) { c.ok("delete", "--force", "nobody") }},
		{"lifecycle/delete-removes-the-cgroup", "runtime.md, Delete", func(c *check) {
			ct := c.running()
			dir := ct.cgroup("memory")
			if _, err := os.Stat(dir); err != nil {
				c.failf("there is no cgroup: %v", err)
			}
			ct.end()
			if _, err := os.Stat(dir); err == nil {
				c.failf("the cgroup stays")
			}
		}},
		{"lifecycle/delete-keeps-what-create-did-not-make", "runtime.md, Delete", func(c *check) {
			ct := c.running()
			ct.end()
			if _, err := os.Stat(ct.rootfs("bin/busybox")); err != nil {
				c.failf("the root is gone: %v", err)
			}
		}},
		{"lifecycle/delete-lets-the-id-be-used-again", "runtime.md, Delete", func(c *check) {
			ct := c.running()
			ct.end()
			c.ok("create", "--bundle", ct.bundle, ct.id)
			c.equal("status", ct.status(), "created")
		}},
		{"lifecycle/delete-removes-sub-cgroups", "runc, delete.bats", func(c *check) {
			ct := c.running()
			sub := filepath.Join(ct.cgroup("memory"), "below")
			c.must(os.Mkdir(sub, 0o755))
			ct.end()
			if _, err := os.Stat(sub); err == nil {
				c.failf("the cgroup below stays")
			}
		}},
		{"lifecycle/delete-ends-processes-of-a-shared-pid-namespace", "runc, delete.bats", func(c *check) {
			ct := c.create(script("sleep 1000 & exit 0"), without(specs.PIDNamespace))
			ct.start()
			ct.stopped()
			c.ok("delete", "--force", ct.id)
			if b, err := os.ReadFile(filepath.Join(ct.cgroup("pids"), "cgroup.procs")); err == nil && len(b) > 0 {
				c.failf("processes go on: %s", b)
			}
		}},
		{"lifecycle/state-of-no-container", "runtime.md, State", func(c *check) { c.fails("state", "nobody") }},
		{"lifecycle/state-without-an-id", "runtime.md, State", func(c *check) { c.fails("state") }},
		{"lifecycle/state-has-all-fields", "runtime.md, State", func(c *check) {
			ct := c.create(func(s *specs.Spec) { s.Annotations = map[string]string{"a.b": "c", "d": "e f"} })
			s := ct.state()
			c.equal("id", s.ID, ct.id)
			c.equal("bundle", s.Bundle, ct.bundle)
			c.equal("status", string(s.Status), "created")
			c.equal("annotation", s.Annotations["a.b"]+s.Annotations["d"], "ce f")
			if s.Version == "" || s.Pid <= 0 {
				c.failf("ociVersion %q, pid %d", s.Version, s.Pid)
			}
		}},
		{"lifecycle/state-tells-the-pid-on-the-host", "runtime.md, State", func(c *check) {
			ct := c.running()
			b := read(c, "/proc/"+strconv.Itoa(ct.state().Pid)+"/cmdline")
			c.contains("command line", b, "sleep")
		}},
		{"lifecycle/state-of-a-stopped-container-has-no-pid", "runtime.md, State; runc, state.bats", func(c *check) {
			ct := c.create()
			ct.start()
			ct.stopped()
			if p := ct.state().Pid; p != 0 {
				c.failf("pid %d", p)
			}
		}},
		{"lifecycle/state-of-a-paused-container", "runc, state.bats", func(c *check) {
			ct := c.running()
			c.ok("pause", ct.id)
			c.equal("status", ct.status(), "paused")
			c.ok("resume", ct.id)
			c.equal("status", ct.status(), "running")
		}},
	}
}

// signalled sends a signal to a shell that waits for it.
func signalled(c *check, send, trap string) {
	ct := c.create(script("trap 'echo yes > /got; exit 0' " + trap + "; echo > /ready; while :; do sleep 0.02; done"))
	ct.start()
	c.until("the trap", func() bool { _, err := os.Stat(ct.rootfs("ready")); return err == nil })
	if send == "" {
		c.ok("kill", ct.id)
	} else {
		c.ok("kill", ct.id, send)
	}
	ct.stopped()
	c.equal("the trap", read(c, ct.rootfs("got")), "yes")
}
