package supervise

import (
	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// freeze pauses a running container, or resumes a paused one. The freezer has to wait for
// the container's processes to stop, so it works beside the loop, and r is answered later.
func (s *supervisor) freeze(r *request, id string, pause bool) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	st := c.status()
	switch {
	case c.turning:
		return fault.Conflict("container %s is being paused or resumed already", id)
	case pause && st == runtime.Paused:
		return fault.Conflict("container %s is already paused", id)
	case pause && st != runtime.Running:
		return fault.Conflict("container %s is not running", id)
	case !pause && st != runtime.Paused:
		return fault.Conflict("container %s is not paused", id)
	}
	c.turning = true
	group, act := c.group, c.group.Thaw
	if pause {
		act = c.group.Freeze
	}
	go func() {
		err := act()
		if err != nil && pause {
			_ = group.Thaw() // rather running than half stopped
		}
		s.loop.post(func() {
			c.turning = false
			switch {
			case c.init.phase == ended:
				err = fault.Conflict("container %s is not running", id)
			case err == nil:
				c.paused = pause
			case pause:
				err = fault.Internal("cannot pause container %s: %w", id, err)
			default:
				err = fault.Internal("cannot resume container %s: %w", id, err)
			}
			r.reply(nil, err)
		})
	}()
	return nil
}
