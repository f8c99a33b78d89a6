package cgroup

import "testing"

func TestKillAndChildren(t *testing.T) {
	g := group(t)
	if err := g.Create(nil); err != nil {
		t.Fatal(err)
	}
	below, err := Open(g.Path() + "/below")
	if err != nil {
		t.Fatal(err)
	}
	if err := below.Create(nil); err != nil {
		t.Fatal(err)
	}
	names, err := g.Children()
	if err != nil || len(names) != 1 || names[0] != "below" {
		t.Errorf("children: %q %v", names, err)
	}
	must(t, g.Create(nil))
	sleeper(t, below, "exec sleep 1000")
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	g.RemoveEmpty()
	if !g.exists() {
		t.Error("a group with processes was removed")
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	below.RemoveEmpty()
	g.RemoveEmpty()
	if g.exists() {
		t.Error("an empty group stays")
	}
	if err := g.Kill(); err != nil {
		t.Errorf("a group that is not there: %v", err)
	}
}
