package inside

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// busybox imports an image of one static program, which can use up what a limit allows.
func busybox(t *testing.T, e *harness.Engine) {
	t.Helper()
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("this test needs busybox-static: test/deps.sh installs it")
	}
	text, err := os.ReadFile(box)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "busybox", Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	w.Write(text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r := e.Try(&b, "import", "-", "box"); r.Code != 0 {
		t.Fatalf("import: %+v", r)
	}
}

// TestLimits runs into limits rather than reading them back.
func TestLimits(t *testing.T) {
	e := harness.Start(t)
	busybox(t, e)
	t.Run("memory", func(t *testing.T) {
		r := e.Try(nil, "run", "--name", "eater", "-m", "20m", "--memory-swap", "20m", "box", "/busybox", "tail", "/dev/zero")
		if r.Code != 137 {
			t.Errorf("%+v", r)
		}
		if got := e.Docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater"); got != "true 137" {
			t.Error(got)
		}
	})
	t.Run("processes, updated live", func(t *testing.T) {
		e.Docker("run", "-d", "--name", "forker", "box", "/busybox", "sleep", "1000")
		fork := func() harness.Result {
			return e.Try(nil, "exec", "forker", "/busybox", "sh", "-c", "for i in 1 2 3 4 5 6; do /busybox sleep 0.1 & done; wait")
		}
		if r := fork(); r.Code != 0 {
			t.Errorf("without a limit: %+v", r)
		}
		e.Docker("update", "--pids-limit", "4", "forker")
		if r := fork(); !strings.Contains(r.Stderr, "can't fork") {
			t.Errorf("with a limit: %+v", r)
		}
	})
	t.Run("processor, updated live", func(t *testing.T) {
		e.Docker("run", "-d", "--name", "spinner", "box", "/busybox", "sh", "-c", "while :; do :; done")
		e.Docker("update", "--cpus", "0.1", "spinner")
		// stats measures over a second: a whole processor would be 100 %.
		out := strings.TrimSuffix(e.Docker("stats", "--no-stream", "--format", "{{.CPUPerc}}", "spinner"), "%")
		if used, err := strconv.ParseFloat(out, 64); err != nil || used > 40 {
			t.Errorf("a tenth of a processor uses %s %%", out)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for flags, want := range map[string]string{
			"--cpuset-cpus=4000": "Requested CPUs are not available - requested 4000, available: ",
			"--memory=1m":        "Minimum memory limit allowed is 6MB",
			"--cpus=4000":        "range of CPUs is from 0.01 to",
		} {
			if r := e.Try(nil, "run", "--rm", flags, "box", "/busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s: %+v", flags, r)
			}
		}
	})
}
