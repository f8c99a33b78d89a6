package container

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
)

// Pause freezes a running container.
func (s *Service) Pause(ctx context.Context, ref string) error {
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
	s.become(e, container.StateRunning, container.StatePaused, "pause")
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
	s.become(e, container.StatePaused, container.StateRunning, "unpause")
	return nil
}

// become changes the state if no exit came first, and records and publishes it.
func (p *parts) become(e *entry, from, to container.ContainerState, action string) {
	changed := false
	rec := e.change(func(r *record) {
		if changed = r.State.Status == from; changed {
			r.State.Status = to
		}
	})
	if changed {
		p.save(rec)
		e.publish(action)
	}
}
