package supervise

import (
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// removalTime is how long a cgroup may stay busy after its last process was killed.
const removalTime = 10 * time.Second

// removal takes away a container's cgroup, without making the loop wait.
type removal struct {
	c       *container
	began   time.Time
	pause   time.Duration
	waiting []*request
	then    func(error) // instead of answering
}

// remove forgets a created or stopped container; r is answered when its cgroup is gone.
func (s *supervisor) remove(r *request, id string) error {
	c := s.containers[id]
	if c == nil {
		r.reply(nil, nil)
		return nil
	}
	switch st := c.status(); st {
	case runtime.Running, runtime.Paused:
		return fault.Conflict("cannot remove container %s: container is %s: stop the container before removing", id, st)
	}
	if c.removal != nil {
		c.removal.waiting = append(c.removal.waiting, r)
		return nil
	}
	c.removal = &removal{c: c, began: time.Now(), waiting: []*request{r}}
	if c.init.phase == ended {
		c.removal.try()
	} else {
		// Its end goes on with the removal.
		_ = unix.PidfdSendSignal(c.init.pidfd, unix.SIGKILL, nil, 0)
	}
	return nil
}

// forgetFailed ends a creation that failed: the answer comes when nothing is left.
func (c *container) forgetFailed() {
	p := &c.init
	c.removal = &removal{c: c, began: time.Now(), then: func(error) { p.refuse() }}
	c.removal.try()
}

// try removes the cgroup, now or a little later, then the container's last trace.
func (m *removal) try() {
	c := m.c
	if c.foreign != nil && !c.foreign.Deleted {
		m.deleteForeign()
		return
	}
	err := c.group.Remove()
	if err != nil && time.Since(m.began) < removalTime {
		if !c.ownPids || m.pause > 0 {
			c.kill()
		}
		m.pause = min(max(2*m.pause, time.Millisecond), 100*time.Millisecond)
		c.s.loop.after(m.pause, m.try)
		return
	}
	if err != nil {
		err = fault.Internal("cannot remove the cgroup of container %s: %w", c.id, err)
		complain("%v", err)
	}
	delete(c.s.containers, c.id)
	if c.s.specs.id == c.id {
		c.s.specs.drop()
	}
	if m.then != nil {
		m.then(err)
	}
	for _, r := range m.waiting {
		r.reply(nil, err)
	}
	c.s.restLater()
}
