package engine_test

import (
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// expect runs docker and compares exit code and a part of the output.
func expect(t *testing.T, e *harness.Engine, code int, words string, args ...string) {
	t.Helper()
	r := e.Try(nil, args...)
	if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, words) {
		t.Errorf("docker %s: code %d, want %d and %q:\n%s%s", strings.Join(args, " "), r.Code, code, words, r.Stdout, r.Stderr)
	}
}

// TestKilledEngine kills tared under containers in every state that matters and looks at what the next one makes of them.
func TestKilledEngine(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "-d", "--name", "lives", "-p", "127.0.0.1::80", image, "sleep", "1000")
	e.Docker("run", "-d", "--name", "ends", image, "sh", "-c", "sleep 1; exit 33")
	e.Docker("run", "-d", "--rm", "--name", "goes", image, "sleep", "1")
	e.Docker("run", "-d", "--restart", "always", "--name", "again", image, "sleep", "1")
	e.Docker("create", "--name", "made", image, "true")
	e.Docker("run", "-d", "--name", "froze", image, "sleep", "1000")
	e.Docker("pause", "froze")
	before := e.Docker("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}} {{json .NetworkSettings}}", "lives")
	e.Kill()
	e.Launch()
	if after := e.Docker("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}} {{json .NetworkSettings}}", "lives"); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
	state := func(name string) string {
		return e.Try(nil, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).Stdout
	}
	e.Until("the exit code", func() bool { return state("ends") == "exited 33\n" })
	e.Until("the removal", func() bool { return e.Try(nil, "inspect", "goes").Code == 1 })
	e.Until("the restart", func() bool {
		return e.Docker("inspect", "-f", "{{.RestartCount}}", "again") != "0" && strings.HasPrefix(state("again"), "running")
	})
	if s := state("made"); s != "created 0\n" {
		t.Errorf("made: %s", s)
	}
	if s := state("froze"); s != "paused 0\n" {
		t.Errorf("froze: %s", s)
	}
	e.Docker("unpause", "froze")
	expect(t, e, 0, "uid=0", "exec", "lives", "id")
	expect(t, e, 0, "", "start", "made")
	expect(t, e, 0, "", "rm", "-f", "lives", "again", "froze", "ends", "made")
}

// TestFailedStarts checks the messages, the codes, and that nothing is left.
func TestFailedStarts(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	expect(t, e, 127, `exec: "nosuch": executable file not found in $PATH`, "run", "--rm", image, "nosuch")
	expect(t, e, 127, "no such file or directory", "run", "--rm", image, "/no/such")
	expect(t, e, 126, "permission denied", "run", "--rm", image, "/etc/notexec")
	expect(t, e, 125, "no matching entries in passwd file", "run", "--rm", "-u", "nobody-here", image, "true")
	expect(t, e, 125, "bind source path does not exist", "run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", image, "true")
	expect(t, e, 125, "unknown or invalid runtime name", "run", "--rm", "--runtime", "kata", image, "true")
	expect(t, e, 125, "network nosuch not found", "run", "--rm", "--network", "nosuch", image, "true")
	if out := e.Docker("ps", "-aq"); out != "" {
		t.Errorf("left: %s", out)
	}
	e.Docker("create", "--name", "one", image)
	expect(t, e, 1, `The container name "/one" is already in use`, "create", "--name", "one", image)
	expect(t, e, 0, "", "rm", "one")
}

// TestInit checks that --init's pid 1 passes signals on, reaps and gives the exit code.
func TestInit(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	expect(t, e, 9, "", "run", "--rm", "--init", image, "exit", "9")
	expect(t, e, 127, "", "run", "--rm", "--init", image, "nosuch")
	expect(t, e, 0, "tty", "run", "--rm", "-t", "--init", image, "echo", "tty")
	e.Docker("run", "-d", "--init", "--name", "stops", image, "sleep", "1000")
	// Before its first instructions, pid 1 gets no signals: that is the kernel's rule.
	e.Until("the program behind init", func() bool { return strings.Count(e.Docker("top", "stops"), "\n") == 2 })
	e.Docker("stop", "-t", "20", "stops")
	expect(t, e, 0, "143", "inspect", "-f", "{{.State.ExitCode}}", "stops")
}

// TestHealth follows a container from starting over unhealthy to healthy.
func TestHealth(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "-d", "--name", "probed", "--health-cmd", "cat /tmp/ok", "--health-interval", "50ms", "--health-retries", "2", image, "sleep", "1000")
	health := func() string { return e.Docker("inspect", "-f", "{{.State.Health.Status}}", "probed") }
	e.Until("unhealthy", func() bool { return health() == "unhealthy" })
	e.Docker("exec", "probed", "write", "/tmp/ok", "yes")
	e.Until("healthy", func() bool { return health() == "healthy" })
	expect(t, e, 0, "(healthy)", "ps", "--filter", "health=healthy")
	expect(t, e, 0, "yes", "inspect", "-f", "{{range .State.Health.Log}}{{.Output}}{{end}}", "probed")
	e.Kill()
	e.Launch()
	e.Docker("exec", "probed", "rm", "/tmp/ok")
	e.Until("unhealthy after a restart", func() bool { return health() == "unhealthy" })
}

// TestVolumesLimitsCommit takes one container through what needs the kernel.
func TestVolumesLimitsCommit(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "--name", "seed", "-w", "/data", image, "write", "/data/seed", "sown")
	e.Docker("commit", "-c", `CMD ["cat","/data/seed"]`, "-c", "VOLUME /data", "seed", "seeded")
	expect(t, e, 0, "sown", "run", "--rm", "seeded")
	expect(t, e, 0, "sown", "run", "--rm", "-v", "named:/data", "seeded")
	expect(t, e, 0, "named", "volume", "ls", "-q")
	expect(t, e, 1, "volume is in use", "volume", "rm", e.Docker("inspect", "-f", "{{(index .Mounts 0).Name}}", e.Docker("create", "seeded")))
	e.Docker("run", "-d", "--name", "limited", "-m", "64m", image, "sleep", "1000")
	e.Docker("update", "-m", "32m", "--memory-swap", "64m", "--restart", "on-failure:3", "limited")
	expect(t, e, 0, "33554432 on-failure", "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}", "limited")
	expect(t, e, 0, "32MiB", "stats", "--no-stream", "limited")
}
