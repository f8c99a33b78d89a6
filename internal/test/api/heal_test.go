package api

import (
	"testing"

	"tare/internal/test/harness"
)

// A container whose label asks for it is restarted when it becomes unhealthy, and healthy again by that.
func TestUnhealthyContainersAreRestarted(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	run := func(name string, more ...string) string {
		args := append([]string{"run", "-d", "--name", name, "--stop-signal", "KILL", "--health-interval", "100ms", "--health-retries", "2", "--health-cmd", "cat /tmp/well"}, more...)
		e.Docker(append(args, "tools", "sh", "-c", "write /tmp/well yes; sleep 1000")...)
		e.Until(name+" is well", func() bool { return e.Docker("inspect", "-f", "{{.State.Health.Status}}", name) == "healthy" })
		return e.Docker("inspect", "-f", "{{.State.Pid}}", name)
	}
	pid, left := run("cared-for", "--label", "autoheal=true"), run("left-alone")
	e.Docker("exec", "cared-for", "rm", "/tmp/well")
	e.Docker("exec", "left-alone", "rm", "/tmp/well")
	e.Until("the restart", func() bool {
		return e.Docker("inspect", "-f", "{{.State.Health.Status}} {{.State.Running}}", "cared-for") == "healthy true" && e.Docker("inspect", "-f", "{{.State.Pid}}", "cared-for") != pid
	})
	e.Until("the other one's illness", func() bool { return e.Docker("inspect", "-f", "{{.State.Health.Status}}", "left-alone") == "unhealthy" })
	if now := e.Docker("inspect", "-f", "{{.State.Pid}}", "left-alone"); now != left {
		t.Error("a container without the label was restarted")
	}
}
