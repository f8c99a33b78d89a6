package network

import (
	"strings"
	"testing"
)

// TestConnectStopped: what a stopped container is connected to it has when it starts.
func TestConnectStopped(t *testing.T) {
	e := start(t)
	e.Docker("network", "create", "n1")
	serve(e, "web", "--network", "n1")
	e.Docker("create", "--name", "late", image, "sleep", "1000")
	e.Docker("network", "connect", "--alias", "alias", "n1", "late")
	e.Docker("start", "late")
	if got := wget(e, "late", "http://web/"); got != "web" {
		t.Errorf("names: %q", got)
	}
	if got := resolve(e, "web", "alias"); len(got) != 1 || got[0] != address(e, "late", "n1") {
		t.Errorf("alias: %v", got)
	}
	e.Docker("stop", "-t", "0", "late")
	e.Docker("network", "disconnect", "bridge", "late")
	e.Docker("start", "late")
	if out := in(e, "late", "ip", "-4", "addr"); strings.Count(out, "eth") != strings.Count(out, "eth0") || !strings.Contains(out, address(e, "late", "n1")) {
		t.Errorf("after disconnect while stopped:\n%s", out)
	}
}

// TestStaticAddress: an address that was asked for stays, over restarts of container and engine.
func TestStaticAddress(t *testing.T) {
	e := start(t)
	e.Docker("network", "create", "--subnet", "10.231.77.0/24", "n1")
	idle(e, "fixed", "--network", "n1", "--ip", "10.231.77.9", "--restart", "always")
	idle(e, "any", "--network", "n1")
	want := func(when string) {
		t.Helper()
		if got := address(e, "fixed", "n1"); got != "10.231.77.9" {
			t.Errorf("%s: %s", when, got)
		}
		if out := in(e, "fixed", "ip", "-4", "addr"); !strings.Contains(out, "10.231.77.9/24") {
			t.Errorf("%s:\n%s", when, out)
		}
	}
	want("at first")
	e.Docker("restart", "-t", "0", "fixed")
	want("after a restart of the container")
	e.Restart(true)
	want("after a restart of the engine")
	got := e.Docker("network", "inspect", "-f", "{{range .Containers}}{{.Name}}={{.IPv4Address}} {{end}}", "n1")
	if !strings.Contains(got, "fixed=10.231.77.9/24") || !strings.Contains(got, "any=") {
		t.Errorf("inspect lists %q", got)
	}
	if r := e.Try(nil, "network", "rm", "n1"); r.Code == 0 || !strings.Contains(r.Stderr, "has active endpoints") {
		t.Errorf("removal of a network in use: %+v", r)
	}
}
