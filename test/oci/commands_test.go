package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// commands: run, exec, list, ps, pause, resume, update, events, spec, features and their flags.
func commands() []clause {
	return []clause{
		{"commands/run-returns-the-exit-code", "runc, run.bats", func(c *check) {
			r := c.prepare(script("exit 42")).tryRun()
			c.equal("exit code", strconv.Itoa(r.code), "42")
		}},
		{"commands/run-returns-128-and-the-signal", "runc, run.bats", func(c *check) {
			r := c.prepare(script("kill -KILL $$; true"), without(specs.PIDNamespace)).tryRun()
			c.equal("exit code", strconv.Itoa(r.code), "137")
		}},
		{"commands/run-deletes-at-the-end", "runc, run.bats", func(c *check) {
			ct := c.prepare()
			ct.run()
			c.fails("state", ct.id)
		}},
		{"commands/run-keep", "runc, run.bats", func(c *check) {
			ct := c.prepare()
			if r := ct.tryRun("--keep"); r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("status", ct.status(), "stopped")
		}},
		{"commands/run-detach", "runc, start_detached.bats", func(c *check) {
			ct := c.prepare(args("sleep", "1000"))
			if r := ct.tryRun("--detach"); r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("status", ct.status(), "running")
		}},
		{"commands/run-passes-stdin", "runc, start_hello.bats", func(c *check) {
			ct := c.prepare(args("cat"))
			r := c.commandFrom(func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader("hello") }, "run", "--bundle", ct.bundle, ct.id)
			c.equal("output", r.out, "hello")
		}},
		{"commands/run-separates-stderr", "runc, start_hello.bats", func(c *check) {
			r := c.prepare(script("echo out; echo err >&2")).tryRun()
			c.equal("stdout", r.out, "out\n")
			c.equal("stderr", r.errout, "err\n")
		}},
		{"commands/run-of-a-missing-program-fails", "runc, run.bats", func(c *check) {
			ct := c.prepare(args("no-such-program"))
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it succeeds")
			}
			c.fails("state", ct.id)
		}},
		{"commands/pid-file-of-create", "runtime-tools, pidfile", func(c *check) {
			ct := c.prepare()
			file := filepath.Join(c.dir, "pid")
			c.ok("create", "--bundle", ct.bundle, "--pid-file", file, ct.id)
			c.equal("pid", read(c, file), strconv.Itoa(ct.state().Pid))
		}},
		{"commands/pid-file-of-run", "runc, start_detached.bats", func(c *check) {
			ct := c.prepare(args("sleep", "1000"))
			file := filepath.Join(c.dir, "pid")
			if r := ct.tryRun("-d", "--pid-file", file); r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("pid", read(c, file), strconv.Itoa(ct.state().Pid))
		}},
		{"commands/pid-file-of-exec", "runc, exec.bats", func(c *check) {
			ct := c.running()
			file := filepath.Join(c.dir, "pid")
			c.ok("exec", "--detach", "--pid-file", file, ct.id, "sleep", "1000")
			c.contains("command line", read(c, "/proc/"+read(c, file)+"/cmdline"), "sleep")
		}},
		{"commands/exec-runs-inside", "runc, exec.bats", func(c *check) {
			ct := c.running()
			c.equal("hostname", ct.exec("hostname"), "clause")
			c.contains("processes", ct.exec("ps"), "sleep 1000")
		}},
		{"commands/exec-returns-the-exit-code", "runc, exec.bats", func(c *check) {
			ct := c.running()
			c.equal("exit code", strconv.Itoa(c.command("exec", ct.id, "sh", "-c", "exit 77").code), "77")
		}},
		{"commands/exec-cwd", "runc, exec.bats (--cwd)", func(c *check) {
			ct := c.running()
			c.equal("directory", strings.TrimSpace(c.ok("exec", "--cwd", "/bin", ct.id, "pwd")), "/bin")
		}},
		{"commands/exec-env", "runc, exec.bats (--env)", func(c *check) {
			ct := c.running()
			c.equal("A B", strings.TrimSpace(c.ok("exec", "--env", "A=1", "--env", "B=2", ct.id, "sh", "-c", "echo $A $B")), "1 2")
		}},
		{"commands/exec-has-the-containers-env", "runc, exec.bats", func(c *check) {
			ct := c.running(onProcess(func(p *specs.Process) { p.Env = append(p.Env, "FROM=spec") }))
			c.equal("FROM", ct.exec("sh", "-c", "echo $FROM"), "spec")
		}},
		{"commands/exec-user", "runc, exec.bats (--user)", func(c *check) {
			ct := c.running()
			c.equal("ids", strings.TrimSpace(c.ok("exec", "--user", "1000:1001", ct.id, "sh", "-c", "id -u; id -g")), "1000\n1001")
		}},
		{"commands/exec-additional-gids", "runc, exec.bats (--additional-gids)", func(c *check) {
			ct := c.running()
			out := c.ok("exec", "--user", "1000:1000", "--additional-gids", "100", "--additional-gids", "200", ct.id, "id", "-G")
			c.equal("groups", strings.TrimSpace(out), "1000 100 200")
		}},
		{"commands/exec-process-file", "runc, exec.bats (--process)", func(c *check) {
			ct := c.running()
			b, _ := json.Marshal(specs.Process{Args: []string{"sh", "-c", "echo $X; pwd; id -u"}, Cwd: "/tmp", Env: []string{"PATH=/bin", "X=y"}, User: specs.User{UID: 5}})
			file := filepath.Join(c.dir, "process.json")
			c.must(os.WriteFile(file, b, 0o644))
			c.equal("said", c.ok("exec", "--process", file, ct.id), "y\n/tmp\n5\n")
		}},
		{"commands/exec-cap", "runc, exec.bats (--cap)", func(c *check) {
			ct := c.running(capabilities())
			c.equal("without", field(ct.exec("cat", "/proc/self/status"), "CapEff"), "0000000000000000")
			out := c.ok("exec", "--cap", "CAP_SYS_TIME", ct.id, "cat", "/proc/self/status")
			c.equal("with", field(out, "CapEff"), "0000000002000000")
		}},
		{"commands/exec-no-new-privs", "runc, exec.bats", func(c *check) {
			ct := c.running()
			c.equal("NoNewPrivs", field(c.ok("exec", "--no-new-privs", ct.id, "cat", "/proc/self/status"), "NoNewPrivs"), "1")
		}},
		{"commands/exec-detach", "runc, exec.bats (--detach)", func(c *check) {
			ct := c.running()
			c.ok("exec", "-d", ct.id, "sh", "-c", "echo > /ran; sleep 1000")
			c.until("its work", func() bool { _, err := os.Stat(ct.rootfs("ran")); return err == nil })
		}},
		{"commands/exec-of-a-missing-program-fails", "runc, exec.bats", func(c *check) {
			ct := c.running()
			c.fails("exec", ct.id, "no-such-program")
		}},
		{"commands/exec-joins-the-cgroups", "runc, exec.bats", func(c *check) {
			ct := c.running()
			c.ok("exec", "-d", ct.id, "sleep", "1000")
			c.equal("processes", strconv.Itoa(len(strings.Fields(ct.controller("memory", "cgroup.procs")))), "2")
		}},
		{"commands/exec-in-a-stopped-container-fails", "runc, exec.bats", func(c *check) {
			ct := c.create()
			ct.start()
			ct.stopped()
			c.fails("exec", ct.id, "true")
		}},
		{"commands/exec-in-a-created-container", "runc, exec.bats", func(c *check) {
			ct := c.create()
			c.equal("hostname", ct.exec("hostname"), "clause")
			c.equal("status", ct.status(), "created")
		}},
		{"commands/exec-in-a-paused-container-fails", "runc, exec.bats (--ignore-paused)", func(c *check) {
			ct := c.running()
			c.ok("pause", ct.id)
			c.fails("exec", ct.id, "true")
		}},
		{"commands/exec-preserve-fds", "runc, exec.bats (--preserve-fds)", func(c *check) {
			ct := c.running()
			f, err := os.CreateTemp(c.dir, "kept")
			c.must(err)
			defer f.Close()
			f.WriteString("kept")
			f.Seek(0, 0)
			r := c.commandFrom(func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{f} }, "exec", "--preserve-fds", "1", ct.id, "cat", "/proc/self/fd/3")
			if r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("fd 3", r.out, "kept")
		}},
		{"commands/preserve-fds-of-run", "runc, start_hello.bats (--preserve-fds)", func(c *check) {
			ct := c.prepare(script("cat <&3"))
			file := filepath.Join(c.dir, "kept")
			c.must(os.WriteFile(file, []byte("kept"), 0o644))
			f, err := os.Open(file)
			c.must(err)
			defer f.Close()
			r := c.commandFrom(func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{f} }, "run", "--bundle", ct.bundle, "--preserve-fds", "1", ct.id)
			c.equal("fd 3", r.out, "kept")
		}},
		{"commands/other-fds-are-not-passed", "runc, run.bats", func(c *check) {
			ct := c.prepare(args("ls", "/proc/self/fd"))
			f, err := os.Open("/")
			c.must(err)
			defer f.Close()
			r := c.commandFrom(func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{f, f, f} }, "run", "--bundle", ct.bundle, ct.id)
			c.equal("descriptors", strings.Join(strings.Fields(r.out), " "), "0 1 2 3") // 3 is ls's own
		}},
		{"commands/console-socket", "runc, tty.bats", func(c *check) {
			ct := c.prepare(onProcess(func(p *specs.Process) {
				p.Terminal, p.Args = true, []string{"sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo three; sleep 1000"}
			}))
			out := c.terminal(func(socket string) { c.ok("create", "--bundle", ct.bundle, "--console-socket", socket, ct.id) }, func() { ct.start() }, "three")
			c.contains("terminal", out, "/dev/pts/0")
		}},
		{"commands/console-socket-of-exec", "runc, tty.bats", func(c *check) {
			ct := c.running()
			c.terminal(func(socket string) {
				c.ok("exec", "--tty", "--detach", "--console-socket", socket, ct.id, "sh", "-c", "tty; test -t 0 && echo yes; sleep 1000")
			}, func() {}, "yes")
		}},
		{"commands/a-detached-terminal-needs-a-socket", "runc, tty.bats", func(c *check) {
			ct := c.prepare(onProcess(func(p *specs.Process) { p.Terminal = true }))
			c.fails("create", "--bundle", ct.bundle, ct.id)
		}},
		{"commands/a-socket-needs-a-terminal", "runc, tty.bats", func(c *check) {
			ct := c.prepare()
			c.fails("create", "--bundle", ct.bundle, "--console-socket", filepath.Join(c.dir, "none.sock"), ct.id)
		}},
		{"commands/list-table", "runc, list.bats", func(c *check) {
			a, b := c.create(), c.running()
			out := c.ok("list")
			for _, w := range []string{"ID", "PID", "STATUS", "BUNDLE", a.id, b.id, "created", "running"} {
				c.contains("list", out, w)
			}
		}},
		{"commands/list-quiet", "runc, list.bats (-q)", func(c *check) {
			a := c.create()
			c.equal("list", strings.TrimSpace(c.ok("list", "-q")), a.id)
		}},
		{"commands/list-json", "runc, list.bats (-f json)", func(c *check) {
			a := c.create()
			var got []struct{ ID, Status, Bundle string }
			c.must(json.Unmarshal([]byte(c.ok("list", "-f", "json")), &got))
			if len(got) != 1 || got[0].ID != a.id || got[0].Status != "created" {
				c.failf("%+v", got)
			}
		}},
		{"commands/list-of-nothing", "runc, list.bats", func(c *check) { c.equal("list", c.ok("list", "-q"), "") }},
		{"commands/ps-table", "runc, ps.bats", func(c *check) {
			ct := c.running()
			out := c.ok("ps", ct.id)
			c.contains("ps", out, "PID")
			c.contains("ps", out, strconv.Itoa(ct.state().Pid))
		}},
		{"commands/ps-json", "runc, ps.bats (-f json)", func(c *check) {
			ct := c.running()
			c.ok("exec", "-d", ct.id, "sleep", "1000")
			var pids []int
			c.must(json.Unmarshal([]byte(c.ok("ps", "-f", "json", ct.id)), &pids))
			if len(pids) != 2 || (pids[0] != ct.state().Pid && pids[1] != ct.state().Pid) {
				c.failf("%v", pids)
			}
		}},
		{"commands/ps-takes-options-of-ps", "runc, ps.bats (-e -x)", func(c *check) {
			ct := c.running()
			c.contains("ps", c.ok("ps", ct.id, "-e", "-o", "pid,args"), "sleep 1000")
		}},
		{"commands/pause-and-resume", "runc, pause.bats", func(c *check) {
			ct := c.create(script("i=0; while :; do i=$((i+1)); echo $i > /count; done"))
			ct.start()
			count := func() string { b, _ := os.ReadFile(ct.rootfs("count")); return string(b) }
			moves := func() bool {
				before := count()
				time.Sleep(50 * time.Millisecond) // what is frozen must show that it does nothing
				return count() != before
			}
			c.until("work", moves)
			c.ok("pause", ct.id)
			if moves() {
				c.failf("it works while paused")
			}
			c.ok("resume", ct.id)
			c.until("work again", moves)
		}},
		{"commands/pause-of-a-stopped-container-fails", "runc, pause.bats", func(c *check) {
			ct := c.create()
			ct.start()
			ct.stopped()
			c.fails("pause", ct.id)
		}},
		{"commands/resume-of-a-running-container-fails", "runc, pause.bats", func(c *check) {
			ct := c.running()
			c.fails("resume", ct.id)
		}},
		{"commands/pause-of-no-container", "runc, pause.bats", func(c *check) { c.fails("pause", "nobody"); c.fails("resume", "nobody") }},
		{"commands/update-memory", "runc, update.bats", func(c *check) {
			ct := c.running()
			c.ok("update", "--memory", "33554432", ct.id)
			c.equal("limit", ct.memoryLimit(), "33554432")
		}},
		{"commands/update-pids", "runc, update.bats", func(c *check) {
			ct := c.running()
			c.ok("update", "--pids-limit", "20", ct.id)
			c.equal("limit", ct.controller("pids", "pids.max"), "20")
		}},
		{"commands/update-cpu-quota", "runc, update.bats", func(c *check) {
			ct := c.running()
			c.ok("update", "--cpu-period", "50000", "--cpu-quota", "25000", ct.id)
			c.equal("quota", ct.cpuQuota(), "25000 50000")
		}},
		{"commands/update-cpu-share", "runc, update.bats", func(c *check) {
			ct := c.running()
			c.ok("update", "--cpu-share", "200", ct.id)
			c.equal("weight", ct.cpuWeight(), weight("200", "8"))
		}},
		{"commands/update-cpuset", "runc, update.bats", func(c *check) {
			ct := c.running()
			c.ok("update", "--cpuset-cpus", "0", ct.id)
			c.equal("cpus", ct.controller("cpuset", "cpuset.cpus"), "0")
		}},
		{"commands/update-from-a-file", "runc, update.bats (-r)", func(c *check) {
			ct := c.running()
			file := filepath.Join(c.dir, "resources.json")
			c.must(os.WriteFile(file, []byte(`{"memory":{"limit":41943040},"pids":{"limit":30}}`), 0o644))
			c.ok("update", "-r", file, ct.id)
			c.equal("memory", ct.memoryLimit(), "41943040")
			c.equal("pids", ct.controller("pids", "pids.max"), "30")
		}},
		{"commands/update-from-stdin", "runc, update.bats (-r -)", func(c *check) {
			ct := c.running()
			r := c.commandFrom(func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(`{"pids":{"limit":31}}`) }, "update", "-r", "-", ct.id)
			if r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("pids", ct.controller("pids", "pids.max"), "31")
		}},
		{"commands/update-keeps-what-is-not-named", "runc, update.bats", func(c *check) {
			ct := c.running(onLinux(func(l *specs.Linux) { l.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))} }))
			c.ok("update", "--pids-limit", "20", ct.id)
			c.equal("memory", ct.memoryLimit(), "67108864")
		}},
		{"commands/update-of-no-container", "runc, update.bats", func(c *check) { c.fails("update", "--memory", "33554432", "nobody") }},
		{"commands/events-stats", "runc, events.bats (--stats)", func(c *check) {
			ct := c.running()
			var e struct {
				Type, ID string
				Data     struct {
					Memory struct{ Usage struct{ Usage uint64 } }
					Pids   struct{ Current uint64 }
				}
			}
			c.must(json.Unmarshal([]byte(c.ok("events", "--stats", ct.id)), &e))
			if e.Type != "stats" || e.ID != ct.id || e.Data.Pids.Current != 1 || e.Data.Memory.Usage.Usage == 0 {
				c.failf("%+v", e)
			}
		}},
		{"commands/events-of-no-container", "runc, events.bats", func(c *check) { c.fails("events", "--stats", "nobody") }},
		{"commands/events-tell-oom", "runc, events.bats (oom)", func(c *check) {
			ct := c.running(onLinux(func(l *specs.Linux) {
				l.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(32 << 20))}
			}))
			out, err := os.Create(filepath.Join(c.dir, "events"))
			c.must(err)
			defer out.Close()
			cmd := c.runtime(context.Background(), "events", "--interval", "100ms", ct.id)
			cmd.Stdout = out
			c.must(cmd.Start())
			c.cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			lines := func() string { b, _ := os.ReadFile(out.Name()); return string(b) }
			c.until("the first stats", func() bool { return strings.Contains(lines(), `"stats"`) })
			c.command("exec", ct.id, "/bin/"+probeName, "eat", "100")
			c.until("the oom event", func() bool { return strings.Contains(lines(), `"oom"`) })
		}},
		{"commands/spec-writes-a-config", "runc, spec.bats", func(c *check) {
			dir := filepath.Join(c.dir, "new")
			c.must(os.Mkdir(dir, 0o755))
			c.ok("spec", "--bundle", dir)
			var s specs.Spec
			c.must(json.Unmarshal([]byte(read(c, filepath.Join(dir, "config.json"))), &s))
			if s.Version == "" || s.Process == nil || s.Linux == nil || len(s.Mounts) == 0 {
				c.failf("%+v", s)
			}
		}},
		{"commands/spec-keeps-what-is-there", "runc, spec.bats", func(c *check) {
			dir := filepath.Join(c.dir, "new")
			c.must(os.Mkdir(dir, 0o755))
			c.ok("spec", "--bundle", dir)
			c.fails("spec", "--bundle", dir)
		}},
		{"commands/spec-can-be-run", "runc, spec.bats", func(c *check) {
			ct := c.prepare()
			c.must(os.Remove(filepath.Join(ct.bundle, "config.json")))
			c.ok("spec", "--bundle", ct.bundle)
			var s specs.Spec
			c.must(json.Unmarshal([]byte(read(c, filepath.Join(ct.bundle, "config.json"))), &s))
			s.Process.Terminal, s.Process.Args, s.Process.Env = false, []string{"echo", "hello"}, []string{"PATH=/bin"}
			s.Process.Rlimits = nil // raising one needs CAP_SYS_RESOURCE
			s.Linux.CgroupsPath = ct.group
			ct.write(&s)
			c.equal("output", ct.run(), "hello")
		}},
		{"commands/features", "features.md", func(c *check) {
			var f struct {
				OCIVersionMin string `json:"ociVersionMin"`
				OCIVersionMax string `json:"ociVersionMax"`
				Hooks         []string
				MountOptions  []string
				Linux         struct {
					Namespaces, Capabilities []string
					Seccomp                  struct{ Enabled bool }
				}
			}
			c.must(json.Unmarshal([]byte(c.ok("features")), &f))
			if f.OCIVersionMin == "" || f.OCIVersionMax == "" || len(f.Hooks) < 6 || len(f.MountOptions) < 30 || len(f.Linux.Namespaces) < 7 || len(f.Linux.Capabilities) < 38 || !f.Linux.Seccomp.Enabled {
				c.failf("%+v", f)
			}
		}},
		{"commands/version", "runc, version.bats", func(c *check) {
			out := c.ok("--version")
			c.contains("version", out, "version")
			c.contains("version", out, "spec:")
		}},
		{"commands/help", "runc, help.bats", func(c *check) {
			r := c.command("--help")
			for _, w := range []string{"create", "start", "exec", "delete"} {
				c.contains("help", r.all(), w)
			}
		}},
		{"commands/unknown-command-fails", "runc, help.bats", func(c *check) { c.fails("no-such-command") }},
		{"commands/root-separates-containers", "runc, root.bats", func(c *check) {
			ct := c.create()
			r := c.command("--root", filepath.Join(c.dir, "other"), "state", ct.id)
			if r.code == 0 {
				c.failf("it is in another root too")
			}
		}},
		{"commands/log-json", "runc, debug.bats (--log --log-format json)", func(c *check) {
			file := filepath.Join(c.dir, "log.json")
			c.fails("--log", file, "--log-format", "json", "start", "nobody")
			var line struct{ Level, Msg, Time string }
			first, _, _ := strings.Cut(read(c, file), "\n")
			c.must(json.Unmarshal([]byte(first), &line))
			if line.Level != "error" || line.Msg == "" || line.Time == "" {
				c.failf("%+v", line)
			}
		}},
		{"commands/no-pivot", "runc, no_pivot.bats", func(c *check) {
			ct := c.prepare(script("ls /; ls /proc/1/root/bin/busybox"))
			r := ct.tryRun("--no-pivot")
			if r.code != 0 {
				c.failf("%s", r.all())
			}
			c.contains("root", r.out, "busybox")
		}},
		{"commands/the-terminal-has-a-size", "config.md, consoleSize", func(c *check) {
			ct := c.prepare(onProcess(func(p *specs.Process) {
				p.Terminal, p.ConsoleSize = true, &specs.Box{Width: 91, Height: 37}
				p.Args = []string{"sh", "-c", "/bin/" + probeName + " window; sleep 1000"}
			}))
			c.terminal(func(socket string) { c.ok("create", "--bundle", ct.bundle, "--console-socket", socket, ct.id) }, func() { ct.start() }, "91 37")
		}},
	}
}

// terminal receives a terminal at a console socket and reads it until a word was there.
func (c *check) terminal(create func(socket string), start func(), word string) string {
	// The path of a socket must be short.
	dir, err := os.MkdirTemp("", "tare-tty-")
	c.must(err)
	c.cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	c.must(err)
	defer l.Close()
	got := make(chan *os.File, 1)
	go func() {
		defer close(got)
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		buf, oob := make([]byte, 4096), make([]byte, 1024)
		_, n, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		messages, _ := unix.ParseSocketControlMessage(oob[:n])
		for _, m := range messages {
			if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
				_ = unix.SetNonblock(fds[0], true)
				got <- os.NewFile(uintptr(fds[0]), "terminal")
			}
		}
	}()
	create(socket)
	var tty *os.File
	select {
	case tty = <-got:
	case <-time.After(limit):
	}
	if tty == nil {
		c.failf("no terminal came")
	}
	defer tty.Close()
	start()
	_ = tty.SetReadDeadline(time.Now().Add(limit))
	var out strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(out.String(), word) {
		n, err := tty.Read(buf)
		if err != nil {
			c.failf("%q does not come from the terminal: %v; before: %q", word, err, out.String())
		}
		out.Write(buf[:n])
	}
	return out.String()
}

func (ct *container) memoryLimit() string {
	if unifiedCgroup() {
		return ct.controller("memory", "memory.max")
	}
	return ct.controller("memory", "memory.limit_in_bytes")
}

// cpuQuota is "QUOTA PERIOD".
func (ct *container) cpuQuota() string {
	if unifiedCgroup() {
		return ct.controller("cpu", "cpu.max")
	}
	return fmt.Sprint(ct.controller("cpu", "cpu.cfs_quota_us"), " ", ct.controller("cpu", "cpu.cfs_period_us"))
}

func (ct *container) cpuWeight() string {
	if unifiedCgroup() {
		return ct.controller("cpu", "cpu.weight")
	}
	return ct.controller("cpu", "cpu.shares")
}

// weight is what a file has to hold under v1, or v2.
func weight(v1, v2 string) string {
	if unifiedCgroup() {
		return v2
	}
	return v1
}
