package engine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tare/internal/test/harness"
)

// TestEvents does one of everything and reads the events from the engine's history.
func TestEvents(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	began := time.Now()
	e.Docker("network", "create", "net")
	e.Docker("volume", "create", "vol")
	id := e.Docker("create", "--name", "c0", "-l", "k=v", "-v", "vol:/vol", "--network", "net", "--health-cmd", "true", "--health-interval", "50ms", image, "sleep", "1000")
	e.Docker("start", "c0")
	e.Docker("exec", "c0", "true")
	e.Until("healthy", func() bool { return e.Docker("inspect", "-f", "{{.State.Health.Status}}", "c0") == "healthy" })
	e.Docker("pause", "c0")
	e.Docker("unpause", "c0")
	e.Docker("rename", "c0", "d0")
	e.Docker("update", "-m", "64m", "--memory-swap", "128m", "d0")
	e.Docker("top", "d0")
	local := filepath.Join(t.TempDir(), "f")
	os.WriteFile(local, []byte("x"), 0o644)
	e.Docker("cp", local, "d0:/f")
	e.Docker("cp", "d0:/f", local)
	e.Docker("export", "-o", local, "d0")
	e.Docker("commit", "d0", "made")
	e.Docker("network", "disconnect", "net", "d0")
	e.Docker("network", "connect", "net", "d0")
	e.Docker("restart", "-t", "0", "d0")
	e.Docker("kill", "d0")
	e.Docker("rm", "d0")
	e.Docker("tag", "made", "made:two")
	e.Docker("save", "-o", local, "made")
	e.Docker("rmi", "made", "made:two")
	e.Docker("load", "-i", local)
	e.Docker("volume", "rm", "vol")
	e.Docker("network", "rm", "net")
	e.Docker("system", "prune", "-f", "--volumes")
	stamp := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	out := e.Docker("events", "--since", stamp(began), "--until", stamp(time.Now()), "--format", "{{json .}}")
	type message struct {
		Type, Action string
		Actor        struct {
			ID         string
			Attributes map[string]string
		}
	}
	var seen []string
	with := map[string]message{}
	for line := range strings.Lines(out) {
		var m message
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		action := m.Type + " " + m.Action
		if m.Type == "container" && m.Actor.ID == id && (m.Actor.Attributes["k"] != "v" || m.Actor.Attributes["image"] != image || m.Actor.Attributes["name"] == "") {
			t.Errorf("%s lacks attributes: %v", action, m.Actor.Attributes)
		}
		if strings.HasPrefix(action, "container exec_") && strings.Contains(out, "health") {
			action, _, _ = strings.Cut(action, ":")
		}
		seen, with[action] = append(seen, action), m
	}
	for _, want := range []string{
		"network create", "network connect", "network disconnect", "network destroy", "volume create", "volume mount", "volume unmount", "volume destroy",
		"container create", "container start", "container exec_create", "container exec_start", "container exec_die", "container health_status: healthy",
		"container pause", "container unpause", "container rename", "container update", "container top", "container extract-to-dir", "container archive-path",
		"container export", "container commit", "container stop", "container restart", "container kill", "container die", "container destroy",
		"image tag", "image save", "image untag", "image delete", "image load", "container prune", "network prune", "volume prune", "image prune",
	} {
		if !slices.Contains(seen, want) {
			t.Errorf("no event %q", want)
		}
	}
	for _, c := range []struct{ event, key, value string }{
		{"container die", "exitCode", "137"}, {"container kill", "signal", "9"}, {"container rename", "oldName", "/c0"},
		{"volume mount", "destination", "/vol"}, {"volume mount", "container", id}, {"volume mount", "read/write", "true"}, {"volume mount", "driver", "local"},
		{"network connect", "container", id}, {"network connect", "name", "net"}, {"network connect", "type", "bridge"},
	} {
		if got := with[c.event].Actor.Attributes[c.key]; got != c.value {
			t.Errorf("%s: %s is %q, want %q", c.event, c.key, got, c.value)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(seen, "\n"))
	}
	// Filters, and a window in the past.
	out = e.Docker("events", "--since", stamp(began), "--until", stamp(time.Now()), "--filter", "container="+id, "--filter", "event=die", "--format", "{{.Action}}")
	if out != "die\ndie" {
		t.Errorf("filtered: %q", out)
	}
	if out := e.Docker("events", "--since", stamp(began.Add(-time.Minute)), "--until", stamp(began)); strings.Contains(out, id) {
		t.Errorf("events from before: %s", out)
	}
}

// TestStats: what docker shows is computed from what we count; many at once don't wait for each other.
func TestStats(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "-d", "--name", "busy", "-m", "64m", "--pids-limit", "50", image, "tick", "0", "1ms")
	e.Docker("run", "-d", "--name", "free", image, "sleep", "1000")
	shown := func(name, format string) string { return e.Docker("stats", "--no-stream", "--format", format, name) }
	if got := shown("busy", "{{.MemUsage}}"); !strings.HasSuffix(got, " / 64MiB") {
		t.Errorf("memory: %s", got)
	}
	total := e.Docker("info", "-f", "{{.MemTotal}}")
	if got := shown("free", "{{.MemUsage}}"); strings.Contains(got, "EiB") || strings.HasSuffix(got, "/ 0B") {
		t.Errorf("without a limit: %s (the host has %s)", got, total)
	}
	if got := shown("busy", "{{.CPUPerc}}"); got == "0.00%" || got == "--" {
		t.Errorf("cpu: %s", got)
	}
	if got := shown("busy", "{{.PIDs}}"); got == "0" || got == "--" {
		t.Errorf("pids: %s", got)
	}
	for i := range 18 {
		e.Docker("run", "-d", "--name", "more"+itoa(i), "--network", "none", image, "sleep", "1000")
	}
	begin := time.Now()
	if n := strings.Count(e.Docker("stats", "--no-stream"), "\n"); n != 20 {
		t.Errorf("%d containers", n)
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("20 containers took %s", took)
	}
}
