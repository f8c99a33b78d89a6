package engine_test

import (
	"testing"

	"tare/internal/test/harness"
)

// TestCommitOfARunningContainer: files, removals and changes are in the image, and the container goes on, paused or not before.
func TestCommitOfARunningContainer(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "-d", "--name", "runs", "--no-healthcheck", image, "sh", "-c", "write /made yes; rm /etc/notexec; sleep 1000")
	e.Until("the file", func() bool { return e.Try(nil, "exec", "runs", "cat", "/made").Code == 0 })
	e.Until("the removal", func() bool { return e.Try(nil, "exec", "runs", "cat", "/etc/notexec").Code == 1 })
	e.Docker("commit", "-m", "why", "-a", "who", "-c", "ENV X=9", "-c", `CMD ["cat","/made"]`, "runs", "made")
	expect(t, e, 0, "running", "inspect", "-f", "{{.State.Status}}", "runs")
	expect(t, e, 0, "yes", "run", "--rm", "made")
	expect(t, e, 0, "X=9", "run", "--rm", "made", "env")
	expect(t, e, 1, "no such file", "run", "--rm", "made", "cat", "/etc/notexec")
	expect(t, e, 0, "who why", "inspect", "-f", "{{.Author}} {{.Comment}}", "made")
	e.Docker("pause", "runs")
	e.Docker("commit", "runs", "again")
	expect(t, e, 0, "paused", "inspect", "-f", "{{.State.Status}}", "runs")
	e.Docker("unpause", "runs")
	expect(t, e, 1, "RUN is not a valid change command", "commit", "-c", "RUN x", "runs")
}
