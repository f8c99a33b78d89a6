package oci

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// process: what config.json says about the program, but for its ids and rights.
func process() []clause {
	return []clause{
		{"process/args", "config.md, process.args", func(c *check) {
			out := c.prepare(args("sh", "-c", `printf '%s|' "$0" "$@"`, "a", "b c", "", "$HOME")).run()
			c.equal("arguments", out, "a|b c||$HOME|")
		}},
		{"process/args-are-required", "config.md, process.args", func(c *check) {
			c.refused(args())
		}},
		{"process/args-are-searched-in-path", "config.md, process.args (execvp)", func(c *check) {
			ct := c.prepare(args("found"), onProcess(func(p *specs.Process) { p.Env = []string{"PATH=/nowhere:/mnt:/bin"} }))
			c.must(os.WriteFile(ct.rootfs("mnt/found"), []byte("#!/bin/sh\necho found\n"), 0o755))
			c.equal("output", ct.run(), "found")
		}},
		{"process/env", "config.md, process.env", func(c *check) {
			out := c.sh("env", onProcess(func(p *specs.Process) { p.Env = append(p.Env, "A=1", "B=with space", "C=", "D=a=b") }))
			for _, w := range []string{"A=1\n", "B=with space\n", "C=\n", "D=a=b\n"} {
				c.contains("env", out+"\n", w)
			}
		}},
		{"process/env-of-the-runtime-is-not-passed", "config.md, process.env", func(c *check) {
			ct := c.prepare(args("env"))
			r := c.command("run", "--bundle", ct.bundle, ct.id)
			if strings.Contains(r.out, "GOCACHE") || strings.Contains(r.out, "TARE_BIN") || strings.Contains(r.out, "OLDPWD") {
				c.failf("%s", r.out)
			}
		}},
		{"process/home-comes-from-passwd", "runc, env.bats", func(c *check) {
			out := c.sh("echo $HOME", onProcess(func(p *specs.Process) { p.User = specs.User{UID: 1000, GID: 1000} }))
			c.equal("HOME", out, "/home/user")
		}},
		{"process/home-of-the-spec-wins", "runc, env.bats", func(c *check) {
			out := c.sh("echo $HOME", onProcess(func(p *specs.Process) { p.Env = append(p.Env, "HOME=/mine") }))
			c.equal("HOME", out, "/mine")
		}},
		{"process/cwd", "config.md, process.cwd", func(c *check) {
			c.equal("directory", c.sh("pwd", onProcess(func(p *specs.Process) { p.Cwd = "/bin" })), "/bin")
		}},
		{"process/cwd-must-be-absolute", "config.md, process.cwd", func(c *check) {
			c.refused(onProcess(func(p *specs.Process) { p.Cwd = "bin" }))
		}},
		{"process/cwd-is-made", "runc, cwd.bats", func(c *check) {
			c.equal("directory", c.sh("pwd", onProcess(func(p *specs.Process) { p.Cwd = "/made/here" })), "/made/here")
		}},
		{"process/cwd-that-only-the-user-may-enter", "runc, cwd.bats", func(c *check) {
			ct := c.prepare(script("pwd"), capabilities("CAP_SETUID", "CAP_SETGID"), onProcess(func(p *specs.Process) {
				p.User, p.Cwd = specs.User{UID: 1000, GID: 1000}, "/private"
			}))
			c.must(os.Mkdir(ct.rootfs("private"), 0o700))
			c.must(os.Chown(ct.rootfs("private"), 1000, 1000))
			c.equal("directory", ct.run(), "/private")
		}},
		{"process/cwd-that-is-a-file-fails", "config.md, process.cwd", func(c *check) {
			ct := c.prepare(onProcess(func(p *specs.Process) { p.Cwd = "/etc/passwd" }))
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it runs")
			}
		}},
		{"process/umask", "config.md, user.umask; runc, umask.bats", func(c *check) {
			c.equal("umask", field(c.sh("cat /proc/self/status", onProcess(func(p *specs.Process) { p.User.Umask = ptr(uint32(0o27)) })), "Umask"), "0027")
		}},
		{"process/umask-default", "runc, umask.bats", func(c *check) {
			c.equal("umask", field(c.sh("cat /proc/self/status"), "Umask"), "0022")
		}},
		{"process/umask-of-exec", "runc, umask.bats", func(c *check) {
			ct := c.running(onProcess(func(p *specs.Process) { p.User.Umask = ptr(uint32(0o77)) }))
			c.equal("umask", field(ct.exec("cat", "/proc/self/status"), "Umask"), "0077")
		}},
		{"process/no-terminal", "config.md, process.terminal", func(c *check) {
			c.equal("terminal", c.sh("test -t 1 || echo none"), "none")
		}},
		{"process/no-controlling-terminal", "config.md, process.terminal", func(c *check) {
			c.equal("terminal", c.sh("echo 2>/dev/null </dev/tty || echo none"), "none")
		}},
		{"process/terminal-in-the-foreground", "config.md, process.terminal", func(c *check) {
			r := c.prepare(script("test -t 0 && echo a-terminal"), onProcess(func(p *specs.Process) { p.Terminal = true })).tryRun()
			c.contains("output", r.out, "a-terminal")
		}},
		{"process/terminal-is-dev-console", "config-linux.md, Default Devices", func(c *check) {
			r := c.prepare(script("test -c /dev/console && echo to-console >/dev/console"), onProcess(func(p *specs.Process) { p.Terminal = true })).tryRun()
			c.contains("output", r.out, "to-console")
		}},
		{"process/rlimits", "config.md, process.rlimits", func(c *check) {
			out := c.probe([]string{"limits", "core=4", "stack=3", "nproc=6", "fsize=1", "memlock=8"}, onProcess(func(p *specs.Process) {
				p.Rlimits = []specs.POSIXRlimit{
					{Type: "RLIMIT_CORE", Soft: 0, Hard: 0}, {Type: "RLIMIT_STACK", Soft: 4 << 20, Hard: 8 << 20},
					{Type: "RLIMIT_NPROC", Soft: 300, Hard: 400}, {Type: "RLIMIT_FSIZE", Soft: 1 << 30, Hard: 1 << 31}, {Type: "RLIMIT_MEMLOCK", Soft: 4096, Hard: 8192},
				}
			}))
			c.equal("limits", out, "core 0 0\nstack 4194304 8388608\nnproc 300 400\nfsize 1073741824 2147483648\nmemlock 4096 8192")
		}},
		{"process/rlimits-nofile", "config.md, process.rlimits", func(c *check) { // Go programs change this one for themselves
			c.equal("limits", c.sh("ulimit -Sn; ulimit -Hn", onProcess(func(p *specs.Process) {
				p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
			})), "100\n200")
		}},
		{"process/rlimits-all-kinds", "config.md, process.rlimits", func(c *check) {
			kinds := []string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"}
			words := []string{"limits"}
			for i, k := range kinds {
				words = append(words, k+"="+strconv.Itoa(i))
			}
			before := probeHere(words)
			out := c.probe(words, onProcess(func(p *specs.Process) {
				for i, k := range kinds { // what it is already: no right to raise it is needed
					p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + k, Soft: before[i][0], Hard: before[i][1]})
				}
			}))
			if n := strings.Count(out, "\n") + 1; n != len(kinds) {
				c.failf("%s", out)
			}
		}},
		{"process/rlimits-unknown-kind", "config.md, process.rlimits", func(c *check) {
			c.refused(onProcess(func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_TEST", Soft: 1, Hard: 1}} }))
		}},
		{"process/rlimits-twice", "config.md, process.rlimits", func(c *check) {
			c.refused(onProcess(func(p *specs.Process) {
				p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 10}, {Type: "RLIMIT_NOFILE", Soft: 20, Hard: 20}}
			}))
		}},
		{"process/rlimits-of-exec", "runc, rlimits.bats", func(c *check) {
			ct := c.running(onProcess(func(p *specs.Process) {
				p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
			}))
			c.equal("limits", ct.exec("sh", "-c", "ulimit -Sn; ulimit -Hn"), "100\n200")
		}},
		{"process/rlimit-nofile-of-the-caller-stays", "runc, rlimits.bats", func(c *check) {
			// Go programs raise their soft limit for themselves.
			ct := c.prepare(args("/bin/sh", "-c", "ulimit -n"))
			r := c.command("run", "--bundle", ct.bundle, ct.id)
			want := strconv.FormatUint(softFiles, 10)
			c.equal("limit", strings.TrimSpace(r.out), want)
		}},
		{"process/oom-score-adj", "config.md, process.oomScoreAdj", func(c *check) {
			c.equal("oom_score_adj", c.sh("cat /proc/self/oom_score_adj", onProcess(func(p *specs.Process) { p.OOMScoreAdj = ptr(500) })), "500")
		}},
		{"process/oom-score-adj-unset", "config.md, process.oomScoreAdj", func(c *check) {
			c.equal("oom_score_adj", c.sh("cat /proc/self/oom_score_adj"), read(c, "/proc/self/oom_score_adj"))
		}},
		{"process/oom-score-adj-of-exec", "runc, exec.bats", func(c *check) {
			ct := c.running(onProcess(func(p *specs.Process) { p.OOMScoreAdj = ptr(400) }))
			c.equal("oom_score_adj", ct.exec("cat", "/proc/self/oom_score_adj"), "400")
		}},
		{"process/scheduler-batch", "config.md, process.scheduler; runc, scheduler.bats", func(c *check) {
			out := c.probe([]string{"scheduler"}, onProcess(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5} }))
			c.equal("policy nice priority", out, "3 5 0")
		}},
		{"process/scheduler-idle", "config.md, process.scheduler", func(c *check) {
			out := c.probe([]string{"scheduler"}, onProcess(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle} }))
			c.equal("policy nice priority", out, "5 0 0")
		}},
		{"process/scheduler-unknown", "config.md, process.scheduler", func(c *check) {
			c.refused(onProcess(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: "SCHED_NONSENSE"} }))
		}},
		{"process/scheduler-of-exec", "runc, scheduler.bats", func(c *check) {
			ct := c.running(onProcess(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 4} }))
			c.equal("policy nice priority", ct.exec("/bin/"+probeName, "scheduler"), "3 4 0")
		}},
		{"process/io-priority", "config.md, process.ioPriority; runc, ioprio.bats", func(c *check) {
			out := c.probe([]string{"ioprio"}, onProcess(func(p *specs.Process) {
				p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
			}))
			c.equal("class level", out, "2 6")
		}},
		{"process/io-priority-idle", "config.md, process.ioPriority", func(c *check) {
			out := c.probe([]string{"ioprio"}, onProcess(func(p *specs.Process) {
				p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE, Priority: 0}
			}))
			c.equal("class", strings.Fields(out)[0], "3")
		}},
		{"process/io-priority-unknown", "config.md, process.ioPriority", func(c *check) {
			c.refused(onProcess(func(p *specs.Process) { p.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_NONSENSE"} }))
		}},
		{"process/exec-cpu-affinity", "config.md, process.execCPUAffinity; runc, cpu_affinity.bats", func(c *check) {
			ct := c.running(onProcess(func(p *specs.Process) { p.ExecCPUAffinity = &specs.CPUAffinity{Final: "0"} }))
			c.equal("cpus", ct.exec("/bin/"+probeName, "affinity"), "0")
		}},
		{"process/stdio-belongs-to-the-user", "config.md, process.user", func(c *check) {
			ct := c.prepare(script("echo again > /proc/self/fd/1"), onProcess(func(p *specs.Process) { p.User = specs.User{UID: 1000, GID: 1000} }), capabilities())
			out, err := runPiped(c, ct)
			if err != nil {
				c.failf("%v", err)
			}
			c.equal("output", out, "again\n")
		}},
		{"process/huge-arguments", "config.md, process.args", func(c *check) {
			long := strings.Repeat("x", 100_000)
			out := c.prepare(args("sh", "-c", "echo ${#0}", long)).run()
			c.equal("length", out, "100000")
		}},
		{"process/annotations-in-state", "config.md, Annotations", func(c *check) {
			ct := c.create(func(s *specs.Spec) { s.Annotations = map[string]string{"com.example.key": "value"} })
			c.equal("annotation", ct.state().Annotations["com.example.key"], "value")
		}},
		{"process/unknown-fields-are-ignored", "config.md, Extensibility", func(c *check) {
			ct := c.prepare()
			text := read(c, filepath.Join(ct.bundle, "config.json"))
			ct.writeText(strings.Replace(text, "{", `{"org.example.unknown": {"a": 1},`, 1))
			ct.run()
		}},
	}
}

// identity: ids, groups, capabilities, no_new_privs.
func identity() []clause {
	user := func(u specs.User) edit { return onProcess(func(p *specs.Process) { p.User = u }) }
	status := func(c *check, edits ...edit) string { return c.sh("cat /proc/self/status", edits...) }
	sets := func(l specs.LinuxCapabilities) edit {
		return onProcess(func(p *specs.Process) { p.Capabilities = &l })
	}
	return []clause{
		{"identity/uid-and-gid", "config.md, user", func(c *check) {
			c.equal("ids", c.sh("id -u; id -g", user(specs.User{UID: 10, GID: 20})), "10\n20")
		}},
		{"identity/all-four-ids", "config.md, user", func(c *check) {
			s := status(c, user(specs.User{UID: 10, GID: 20}))
			c.equal("uids", field(s, "Uid"), "10 10 10 10")
			c.equal("gids", field(s, "Gid"), "20 20 20 20")
		}},
		{"identity/additional-gids", "config.md, user", func(c *check) {
			c.equal("groups", field(status(c, user(specs.User{UID: 10, GID: 20, AdditionalGids: []uint32{30, 40}})), "Groups"), "30 40")
		}},
		{"identity/no-groups-of-the-caller", "config.md, user", func(c *check) {
			c.equal("groups", field(status(c, user(specs.User{UID: 10, GID: 20})), "Groups"), "")
		}},
		{"identity/largest-ids", "config.md, user", func(c *check) {
			c.equal("ids", c.sh("id -u; id -g", user(specs.User{UID: 1<<31 - 2, GID: 1<<31 - 2})), "2147483646\n2147483646")
		}},
		{"identity/capabilities", "config.md, capabilities", func(c *check) {
			s := status(c, capabilities("CAP_KILL", "CAP_SYS_CHROOT"))
			for _, f := range []string{"CapBnd", "CapEff", "CapPrm"} {
				c.equal(f, field(s, f), "0000000000040020")
			}
			c.equal("CapInh", field(s, "CapInh"), "0000000000000000")
			c.equal("CapAmb", field(s, "CapAmb"), "0000000000000000")
		}},
		{"identity/capabilities-each-set", "config.md, capabilities", func(c *check) {
			// The program has no file capabilities: what a user that is not root gets are the ambient ones.
			s := status(c, user(specs.User{UID: 1000, GID: 1000}), sets(specs.LinuxCapabilities{
				Bounding: []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"}, Permitted: []string{"CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_KILL"},
				Inheritable: []string{"CAP_CHOWN"}, Ambient: []string{"CAP_CHOWN"},
			}))
			c.equal("CapBnd", field(s, "CapBnd"), "00000000000000e1")
			c.equal("CapInh", field(s, "CapInh"), "0000000000000001")
			c.equal("CapPrm", field(s, "CapPrm"), "0000000000000001")
			c.equal("CapEff", field(s, "CapEff"), "0000000000000001")
			c.equal("CapAmb", field(s, "CapAmb"), "0000000000000001")
		}},
		{"identity/capabilities-none", "config.md, capabilities", func(c *check) {
			s := status(c, capabilities())
			c.equal("CapBnd", field(s, "CapBnd"), "0000000000000000")
			c.equal("CapEff", field(s, "CapEff"), "0000000000000000")
		}},
		{"identity/capabilities-of-a-user", "config.md, capabilities", func(c *check) {
			s := status(c, user(specs.User{UID: 1000, GID: 1000}), capabilities("CAP_KILL", "CAP_SETUID", "CAP_SETGID"))
			c.equal("CapEff", field(s, "CapEff"), "0000000000000000")
			c.equal("CapBnd", field(s, "CapBnd"), "00000000000000e0")
		}},
		{"identity/capabilities-of-exec", "runc, capabilities.bats", func(c *check) {
			ct := c.running(capabilities("CAP_KILL"))
			c.equal("CapEff", field(ct.exec("cat", "/proc/self/status"), "CapEff"), "0000000000000020")
		}},
		{"identity/capabilities-the-kernel-lacks", "runtime-tools, process_capabilities_fail; runc, capabilities.bats", func(c *check) {
			// runc warns and goes on since 1.1; what nobody knows must not become a right.
			ct := c.prepare(args("cat", "/proc/self/status"), capabilities("CAP_KILL", "CAP_NO_SUCH"))
			if r := ct.tryRun(); r.code == 0 {
				c.equal("CapEff", field(r.out, "CapEff"), "0000000000000020")
			}
		}},
		{"identity/no-new-privileges", "config.md, noNewPrivileges", func(c *check) {
			c.equal("NoNewPrivs", field(status(c, onProcess(func(p *specs.Process) { p.NoNewPrivileges = true })), "NoNewPrivs"), "1")
			c.equal("NoNewPrivs", field(status(c), "NoNewPrivs"), "0")
		}},
		{"identity/no-new-privileges-of-exec", "runc, exec.bats", func(c *check) {
			ct := c.running(onProcess(func(p *specs.Process) { p.NoNewPrivileges = true }))
			c.equal("NoNewPrivs", field(ct.exec("cat", "/proc/self/status"), "NoNewPrivs"), "1")
		}},
		{"identity/apparmor-is-not-ignored", "config.md, apparmorProfile", func(c *check) {
			if _, err := os.Stat("/sys/kernel/security/apparmor"); err == nil {
				return // the kernel has it: another clause's matter
			}
			c.refused(onProcess(func(p *specs.Process) { p.ApparmorProfile = "no-such-profile" }))
		}},
		{"identity/selinux-is-not-ignored", "config.md, selinuxLabel", func(c *check) {
			if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
				return
			}
			ct := c.prepare(onProcess(func(p *specs.Process) { p.SelinuxLabel = "system_u:system_r:nonsense_t:s0" }))
			if r := ct.tryRun(); r.code == 0 {
				c.failf("it runs without the label")
			}
		}},
		{"identity/a-session-keyring-of-its-own", "runc, run.bats (--no-new-keyring)", func(c *check) {
			here := probeKeyring()
			there := c.probe([]string{"keyring"})
			if strings.HasPrefix(there, here+" ") {
				c.failf("the container has the caller's keyring %s", here)
			}
		}},
	}
}
