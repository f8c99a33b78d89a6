package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// privately runs a shell script as if on a machine of its own: no engine, no network, its
// processes end with it. $BIN is the folder of the programs.
func privately(t *testing.T, bin, script string) (string, error) {
	t.Helper()
	const machine = "set -e; for d in /run /var/lib /var/log; do mount -t tmpfs none $d; done; cd /; "
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", machine+script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "BIN=" + bin, "HOME=/root", "DOCKER_CONFIG=/run"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// `tare` needs no engine to be started before.
func TestFirstCommandStartsTheEngine(t *testing.T) {
	out, err := privately(t, harness.Programs(t), `$BIN/tare ps -a; $BIN/tare version -f '{{.Server.Platform.Name}} {{.Client.APIVersion}}'; pidof tared | wc -w; cat /var/log/tared.log >&2`)
	if err != nil || !strings.Contains(out, "CONTAINER ID") || !strings.Contains(out, "Tare 1.50\n1\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Ten first commands at once start one engine, and all are answered.
func TestManyFirstCommandsStartOneEngine(t *testing.T) {
	out, err := privately(t, harness.Programs(t), `for i in 1 2 3 4 5 6 7 8 9 10; do $BIN/tare info -f answered & done; wait; pidof tared | wc -w; grep -c . /var/log/tared.log >/dev/null || true`)
	if err != nil || strings.Count(out, "answered\n") != 10 || !strings.HasSuffix(out, "\n1\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// An engine that somebody named is not started: they would wonder which one answers.
func TestNamedEnginesAreNotStarted(t *testing.T) {
	for _, set := range []string{"TARE_HOST=unix:///run/tare/tared.sock", "DOCKER_HOST=unix:///run/other.sock", "TARE_NO_AUTOSTART=1"} {
		out, err := privately(t, harness.Programs(t), "export "+set+`; $BIN/tare ps && exit 9; test -z "$(pidof tared)"`)
		if err != nil || !strings.Contains(out, "Cannot connect to the Docker daemon at unix:///run/") {
			t.Errorf("%s: %v\n%s", set, err, out)
		}
	}
}

// What is wrong is said: no tared to be found, or one that ends at once.
func TestEngineThatCannotBeStarted(t *testing.T) {
	bin := t.TempDir()
	data, err := os.ReadFile(filepath.Join(harness.Programs(t), "tare"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "tare"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := privately(t, bin, `$BIN/tare ps`)
	if want := "cannot start one: tared is neither beside tare nor on PATH"; err == nil || !strings.Contains(out, want) {
		t.Errorf("without tared: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(bin, "tared"), []byte("#!/bin/sh\necho broken >&2; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err = privately(t, bin, `$BIN/tare run x || echo "code $?"; cat /var/log/tared.log`)
	if err != nil || !strings.Contains(out, "ended at once (exit status 3); /var/log/tared.log says why") || !strings.Contains(out, "code 125") || !strings.Contains(out, "broken") {
		t.Errorf("broken tared: %v\n%s", err, out)
	}
}
