package oci

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// onHost runs a program of the host and returns what it said on stderr.
func (c *check) onHost(name string, args ...string) string {
	cmd := exec.Command(name, args...)
	var errout strings.Builder
	cmd.Stderr = &errout
	if err := cmd.Run(); err != nil {
		return err.Error() + ": " + errout.String()
	}
	return ""
}

// points are where hooks run, in their order.
var points = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

func setHook(s *specs.Spec, point string, h ...specs.Hook) {
	if s.Hooks == nil {
		s.Hooks = &specs.Hooks{}
	}
	switch point {
	case "prestart":
		s.Hooks.Prestart = append(s.Hooks.Prestart, h...) //nolint:staticcheck // runtimes must run it still
	case "createRuntime":
		s.Hooks.CreateRuntime = append(s.Hooks.CreateRuntime, h...)
	case "createContainer":
		s.Hooks.CreateContainer = append(s.Hooks.CreateContainer, h...)
	case "startContainer":
		s.Hooks.StartContainer = append(s.Hooks.StartContainer, h...)
	case "poststart":
		s.Hooks.Poststart = append(s.Hooks.Poststart, h...)
	case "poststop":
		s.Hooks.Poststop = append(s.Hooks.Poststop, h...)
	}
}

// hooked is a container with hooks that write to DIR/log, and the folder seen in the container at /log; all say the name of their point.
func hooked(c *check, text string, edits ...edit) (*container, func() string) {
	dir := filepath.Join(c.dir, "hooks")
	c.must(os.MkdirAll(dir, 0o777))
	e := func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dir, Type: "bind", Source: dir, Options: []string{"bind"}})
		for _, p := range points {
			setHook(s, p, specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", strings.ReplaceAll(text, "POINT", p), p}, Env: []string{"PATH=/usr/bin:/bin", "LOG=" + dir + "/log"}})
		}
		s.Process.Args = []string{"sh", "-c", "echo program >> " + dir + "/log; sleep 1000"}
	}
	ct := c.prepare(append([]edit{e}, edits...)...)
	return ct, func() string {
		b, _ := os.ReadFile(dir + "/log")
		return strings.Join(strings.Fields(string(b)), " ")
	}
}

// hooks: their points, their state, their environment, what their failure does.
func hooks() []clause {
	list := []clause{
		{"hooks/order", "config.md, POSIX-platform Hooks; runtime.md, Lifecycle", func(c *check) {
			ct, log := hooked(c, "echo POINT >> $LOG")
			c.ok("create", "--bundle", ct.bundle, ct.id)
			c.equal("after create", log(), "prestart createRuntime createContainer")
			ct.start()
			c.until("the program", func() bool { return strings.Contains(log(), "program") && strings.Contains(log(), "poststart") })
			ct.end()
			out := log()
			c.contains("log", out, "prestart createRuntime createContainer startContainer")
			if !strings.HasSuffix(out, " poststop") || strings.Count(out, " ") != 6 {
				c.failf("%s", out)
			}
		}},
		{"hooks/several-run-in-their-order", "config.md, POSIX-platform Hooks", func(c *check) {
			file := filepath.Join(c.dir, "log")
			hook := func(w string) specs.Hook {
				return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + w + " >> " + file}}
			}
			c.sh("true", func(s *specs.Spec) { setHook(s, "createRuntime", hook("one"), hook("two"), hook("three")) })
			c.equal("log", strings.Join(strings.Fields(read(c, file)), " "), "one two three")
		}},
		{"hooks/args-and-env", "config.md, POSIX-platform Hooks", func(c *check) {
			file := filepath.Join(c.dir, "log")
			c.sh("true", func(s *specs.Spec) {
				setHook(s, "createRuntime", specs.Hook{Path: "/bin/sh", Args: []string{"zero", "-c", "echo $0 $1 $A ${HOME-nothing} > " + file, "a", "b"}, Env: []string{"A=env"}})
			})
			c.equal("log", read(c, file), "a b env nothing")
		}},
		{"hooks/path-must-be-absolute", "config.md, POSIX-platform Hooks", func(c *check) {
			c.refused(func(s *specs.Spec) { setHook(s, "createRuntime", specs.Hook{Path: "true"}) })
		}},
		{"hooks/timeout", "config.md, POSIX-platform Hooks (timeout)", func(c *check) {
			c.refused(func(s *specs.Spec) {
				setHook(s, "createRuntime", specs.Hook{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: ptr(1)})
			})
		}},
		{"hooks/timeout-that-is-not-reached", "config.md, POSIX-platform Hooks (timeout)", func(c *check) {
			c.sh("true", func(s *specs.Spec) {
				setHook(s, "createRuntime", specs.Hook{Path: "/bin/true", Args: []string{"true"}, Timeout: ptr(10)})
			})
		}},
		{"hooks/create-container-sees-the-container", "config.md, createContainer Hooks", func(c *check) {
			file := filepath.Join(c.dir, "log")
			ct := c.create(args("sleep", "1000"), func(s *specs.Spec) {
				setHook(s, "createContainer", specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "readlink /proc/self/ns/mnt /proc/self/ns/net > " + file + " || readlink /proc/thread-self/ns/mnt > " + file}, Env: []string{"PATH=/bin:/usr/bin"}})
			})
			pid := ct.state().Pid
			c.contains("namespaces", read(c, file), namespaceOf(c, pid, "mnt"))
			c.contains("namespaces", read(c, file), namespaceOf(c, pid, "net"))
		}},
		{"hooks/create-runtime-sees-the-host", "config.md, createRuntime Hooks", func(c *check) {
			file := filepath.Join(c.dir, "log")
			ct := c.create(func(s *specs.Spec) {
				setHook(s, "createRuntime", specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "readlink /proc/self/ns/mnt > " + file}, Env: []string{"PATH=/bin:/usr/bin"}})
			})
			if read(c, file) == namespaceOf(c, ct.state().Pid, "mnt") {
				c.failf("the hook ran in the container's mount namespace")
			}
		}},
		{"hooks/start-container-runs-inside", "config.md, startContainer Hooks", func(c *check) {
			ct := c.prepare(func(s *specs.Spec) {
				setHook(s, "startContainer", specs.Hook{Path: "/bin/inside-only", Args: []string{"inside-only"}, Env: []string{"PATH=/bin"}})
			})
			c.must(os.WriteFile(ct.rootfs("bin/inside-only"), []byte("#!/bin/sh\nhostname > /said\n"), 0o755))
			ct.run()
			c.equal("said", read(c, ct.rootfs("said")), "clause")
		}},
		{"hooks/create-runtime-may-configure-the-network", "config.md, createRuntime Hooks", func(c *check) {
			out := c.sh("busybox ip addr", func(s *specs.Spec) {
				setHook(s, "createRuntime", specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", `pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/'); exec nsenter -t $pid -n ip addr add 192.0.2.77/32 dev lo`}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}})
			})
			c.contains("addresses", out, "192.0.2.77")
		}},
		{"hooks/state-on-stdin", "runtime.md, State; runtime-tools, hooks_stdin", func(c *check) {
			ct, _ := hooked(c, "cat > $LOG.POINT", func(s *specs.Spec) { s.Annotations = map[string]string{"k": "v"} })
			c.ok("create", "--bundle", ct.bundle, ct.id)
			pid := ct.state().Pid
			ct.start()
			file := func(p string) string { return filepath.Join(c.dir, "hooks", "log."+p) }
			c.until("poststart", func() bool { b, _ := os.ReadFile(file("poststart")); return len(b) > 0 })
			ct.end()
			want := map[string]string{"prestart": "creating created", "createRuntime": "creating created", "createContainer": "creating created", "startContainer": "created running", "poststart": "running", "poststop": "stopped"}
			for _, p := range points {
				var s specs.State
				if err := json.Unmarshal([]byte(read(c, file(p))), &s); err != nil {
					c.failf("%s: %v", p, err)
				}
				if s.ID != ct.id || s.Bundle != ct.bundle || s.Version == "" || s.Annotations["k"] != "v" || !strings.Contains(want[p], string(s.Status)) {
					c.failf("%s: %+v", p, s)
				}
				if (p == "prestart" || p == "createRuntime" || p == "poststart") && s.Pid != pid {
					c.failf("%s: pid %d, want %d", p, s.Pid, pid)
				}
			}
		}},
		{"hooks/failing-poststart-ends-the-container", "runtime.md, Lifecycle 9", func(c *check) {
			ct := c.prepare(args("sleep", "1000"), func(s *specs.Spec) { setHook(s, "poststart", specs.Hook{Path: "/bin/false"}) })
			if c.command("create", "--bundle", ct.bundle, ct.id).code == 0 {
				c.fails("start", ct.id)
			}
			c.until("its end", func() bool {
				r := c.command("state", ct.id)
				return r.code != 0 || strings.Contains(r.out, `"stopped"`)
			})
		}},
		{"hooks/failing-poststop-is-only-a-warning", "runtime.md, Lifecycle 12; runtime-tools, poststop_fail", func(c *check) {
			file := filepath.Join(c.dir, "log")
			ct := c.create(func(s *specs.Spec) {
				setHook(s, "poststop", specs.Hook{Path: "/bin/false"}, specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo second > " + file}})
			})
			ct.start()
			ct.stopped()
			c.ok("delete", ct.id)
			c.equal("the hook after", read(c, file), "second")
			c.fails("state", ct.id)
		}},
		{"hooks/poststop-runs-after-force", "runtime.md, Lifecycle 12", func(c *check) {
			ct, log := hooked(c, "echo POINT >> $LOG")
			c.ok("create", "--bundle", ct.bundle, ct.id)
			c.ok("delete", "--force", ct.id)
			c.contains("log", log(), "poststop")
		}},
		{"hooks/poststop-runs-after-run", "runtime.md, Lifecycle 12", func(c *check) {
			ct, log := hooked(c, "echo POINT >> $LOG", func(s *specs.Spec) { s.Process.Args = []string{"true"} })
			ct.run()
			c.equal("log", log(), "prestart createRuntime createContainer startContainer poststart poststop")
		}},
		{"hooks/memory-of-hooks-is-not-the-containers", "config.md, createRuntime Hooks (runtime namespace)", func(c *check) {
			file := filepath.Join(c.dir, "log")
			c.create(func(s *specs.Spec) {
				setHook(s, "createRuntime", specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "cat /proc/self/cgroup > " + file}, Env: []string{"PATH=/bin:/usr/bin"}})
			})
			if strings.Contains(read(c, file), c.group) {
				c.failf("the hook is in the container's cgroup")
			}
		}},
		{"hooks/none-for-a-container-that-fails-before", "runtime.md, Lifecycle", func(c *check) {
			file := filepath.Join(c.dir, "log")
			c.refused(func(s *specs.Spec) {
				s.Root.Path = "nowhere"
				setHook(s, "startContainer", specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo > " + file}})
			})
			if _, err := os.Stat(file); err == nil {
				c.failf("startContainer ran")
			}
		}},
	}
	for _, p := range []string{"prestart", "createRuntime", "createContainer", "startContainer"} {
		name := map[string]string{"prestart": "prestart", "createRuntime": "create-runtime", "createContainer": "create-container", "startContainer": "start-container"}[p]
		list = append(list, clause{"hooks/failing-" + name + "-ends-the-container", "runtime.md, Lifecycle; runc, hooks.bats", func(c *check) {
			ct := c.prepare(args("touch", "/ran"), func(s *specs.Spec) { setHook(s, p, specs.Hook{Path: "/bin/false", Args: []string{"false"}}) })
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it runs")
			}
			if _, err := os.Stat(ct.rootfs("ran")); err == nil {
				c.failf("the program ran")
			}
		}})
		list = append(list, clause{"hooks/missing-" + name + "-fails", "runtime.md, Lifecycle; runc, hooks.bats", func(c *check) {
			ct := c.prepare(func(s *specs.Spec) { setHook(s, p, specs.Hook{Path: "/no/such/hook"}) })
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it runs")
			}
		}})
	}
	return list
}
