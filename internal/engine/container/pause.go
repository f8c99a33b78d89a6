package container

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
)

// Pause freezes a running container until Unpause.
func (s *Service) Pause(ctx context.Context, ref string) error { return s.pause(ctx, ref, true) }

// Freeze is Pause for the engine's own short work, which ends with Unpause: an engine that is killed meanwhile lets the
// container go on at its next start.
func (s *Service) Freeze(ctx context.Context, ref string) error { return s.pause(ctx, ref, false) }

func (s *Service) pause(ctx context.Context, ref string, lasting bool) error {
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	switch e.snapshot().State.Status {
	case container.StateRunning:
	case container.StatePaused:
		return fault.Conflict("Container %s is already paused", e.id)
	case container.StateRestarting:
		return fault.Conflict("Container %s is restarting, wait until the container is running", e.id)
	default:
		return fault.Conflict("Container %s is not running", e.id)
	}
	if err := s.cfg.Runtime.Pause(ctx, e.id); err != nil {
		return fmt.Errorf("cannot pause container %s: %w", e.id, err)
	}
	s.become(e, container.StateRunning, container.StatePaused, "pause", lasting)
	return nil
}

// Unpause lets a paused container go on.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	if e.snapshot().State.Status != container.StatePaused {
		return fault.Conflict("Container %s is not paused", e.id)
	}
	if err := s.cfg.Runtime.Resume(ctx, e.id); err != nil {
		return fmt.Errorf("Cannot unpause container %s: %w", e.id, err)
	}
	s.become(e, container.StatePaused, container.StateRunning, "unpause", true)
	return nil
}

// become changes the state if no exit came first, publishes it and, if it is to last, records it.
func (p *parts) become(e *entry, from, to container.ContainerState, action string, lasting bool) {
	changed := false
	rec := e.change(func(r *record) {
		if changed = r.State.Status == from; changed {
			r.State.Status = to
		}
	})
	if changed {
		if lasting {
			p.save(rec)
		}
		e.publish(action)
	}
}
