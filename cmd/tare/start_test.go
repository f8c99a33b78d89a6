package main

import (
	"os/exec"
	"strings"
	"testing"

	"tare/internal/cli/command"
	"tare/internal/server/config"
)

// What would make the program slow to start, or part of the engine. Each costs at init or by its size.
func TestStartIsLight(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		for _, heavy := range []string{
			"tare/internal/engine", "tare/internal/server", "tare/internal/runtime", "tare/internal/image", "tare/internal/network", "tare/internal/build", "tare/internal/hub",
			"github.com/moby/buildkit", "github.com/google/nftables", "github.com/vishvananda/netlink", "github.com/klauspost", "google.golang.org", "gopkg.in/yaml", "html/template", "expvar", "testing",
		} {
			if dep == heavy || strings.HasPrefix(dep, heavy+"/") {
				t.Errorf("tare imports %s", dep)
			}
		}
	}
}

// tare looks where tared listens.
func TestDefaultHost(t *testing.T) {
	if command.DefaultHost != config.DefaultHost {
		t.Errorf("tare asks %s, tared listens on %s", command.DefaultHost, config.DefaultHost)
	}
}
