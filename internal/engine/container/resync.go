package container

import (
	"context"
	"time"

	"tare/internal/runtime"
)

// Resync compares running containers with a supervisor that was connected anew. One that the supervisor does not have
// ended with the old one: its code is not known, so 255 and a sentence are recorded.
func (a Access) Resync(ctx context.Context) error {
	began := time.Now()
	states, err := a.s.cfg.Runtime.List(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, st := range states {
		known[st.ID] = true
	}
	for _, e := range a.s.index.all() {
		e.mu.Lock()
		lost := e.rec.State.running() && !known[e.id] && e.rec.State.StartedAt.Before(began)
		if lost {
			e.rec.State.Error = "how the container ended is not known: its supervisor ended first"
		}
		e.mu.Unlock()
		if lost {
			a.s.monitor.exited(e, runtime.Exit{Ref: runtime.Ref{Container: e.id}, Code: 255, At: time.Now()})
		}
	}
	return nil
}
