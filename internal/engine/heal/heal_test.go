package heal

import (
	"context"
	"testing"

	"tare/internal/base/event"
)

// patient notes restarts, which last until they may end.
type patient struct {
	restarted chan string
	end       chan struct{}
}

func (p *patient) Restart(_ context.Context, ref, _ string, _ *int) error {
	p.restarted <- ref
	<-p.end
	return nil
}

func TestHeal(t *testing.T) {
	p := &patient{restarted: make(chan string, 10), end: make(chan struct{})}
	bus := &event.Bus{}
	s := New(p, bus)
	tell := func(id, action, label string) {
		bus.Publish(event.Event{Type: "container", Action: action, ID: id, Attributes: map[string]string{Label: label}})
	}
	tell("healthy", "health_status: healthy", "true")
	tell("unlabelled", "health_status: unhealthy", "")
	tell("no", "health_status: unhealthy", "false")
	tell("one", "health_status: unhealthy", "true")
	if got := <-p.restarted; got != "one" {
		t.Errorf("%s was restarted", got)
	}
	tell("one", "health_status: unhealthy", "true") // it is being restarted
	tell("two", "health_status: unhealthy", "true")
	if got := <-p.restarted; got != "two" {
		t.Errorf("%s was restarted", got)
	}
	close(p.end)
	s.Close()
	if len(p.restarted) > 0 {
		t.Errorf("%s was restarted", <-p.restarted)
	}
}
