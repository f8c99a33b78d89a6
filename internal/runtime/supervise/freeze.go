package supervise

import (
	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// pause freezes a running container.
func (s *supervisor) pause(id string) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	switch c.status() {
	case runtime.Paused:
		return fault.Conflict("container %s is already paused", id)
	case runtime.Running:
	default:
		return fault.Conflict("container %s is not running", id)
	}
	if err := c.group.Freeze(); err != nil {
		return fault.Internal("cannot pause container %s: %w", id, err)
	}
	c.paused = true
	return nil
}

// resume thaws a paused container.
func (s *supervisor) resume(id string) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	if c.status() != runtime.Paused {
		return fault.Conflict("container %s is not paused", id)
	}
	if err := c.group.Thaw(); err != nil {
		return fault.Internal("cannot unpause container %s: %w", id, err)
	}
	c.paused = false
	return nil
}
