package main

import (
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file")

// tare-run is started for every container and stays as their supervisor: what it
// links is paid for at each start. A package more is a decision, made here with -update.
func TestDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, p := range strings.Fields(string(out)) {
		// The standard library's own inner packages change with each release of Go.
		if !strings.HasPrefix(p, "internal/") && !strings.Contains(p, "/internal/") || strings.HasPrefix(p, "tare/") {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	got := strings.Join(list, "\n") + "\n"
	const file = "testdata/deps.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		old := strings.Fields(string(want))
		for _, p := range list {
			if !slices.Contains(old, p) {
				t.Errorf("new: %s", p)
			}
		}
		for _, p := range old {
			if !slices.Contains(list, p) {
				t.Errorf("gone: %s (run with -update)", p)
			}
		}
	}
	// net comes with D-Bus, for systemd's cgroups; its initialisation takes 30 µs, and no address is looked up.
	for _, forbidden := range []string{"net/http", "crypto/tls", "text/template", "github.com/spf13/cobra"} {
		if slices.Contains(list, forbidden) {
			t.Errorf("tare-run must not link %s", forbidden)
		}
	}
}
