package faults

import (
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// What happened is known after the engine was killed, and nothing is told twice.
func TestEventsSurviveAKill(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	e.Docker("run", "--name", "before", "tools", "true")
	e.Restart(true)
	e.Docker("run", "--name", "after", "tools", "true")
	list := func(args ...string) string {
		return e.Docker(append([]string{"events", "--since", "1h", "--until", "0s", "-f", "type=container", "--format", "{{.Actor.Attributes.name}} {{.Action}}"}, args...)...)
	}
	e.Until("the last second's events are past", func() bool { return strings.HasSuffix(list(), "after die") })
	want := "before create\nbefore attach\nbefore start\nbefore die\nafter create\nafter attach\nafter start\nafter die"
	if got := list(); got != want {
		t.Errorf("events:\n%s\nwant:\n%s", got, want)
	}
	if got := list("-f", "container=before", "-f", "event=die"); got != "before die" {
		t.Errorf("filtered: %s", got)
	}
}
