package supervise

import (
	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/plan"
)

// start lets a created container exec; r is answered when it did or could not.
func (s *supervisor) start(r *request, id string) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	if c.init.phase != created || c.removal != nil {
		return fault.Conflict("cannot start container %s: it is %s", id, c.status())
	}
	c.init.waiting = r
	c.init.goOn()
	s.restLater()
	return nil
}

// startExec launches a further process in a running container. r is answered when it
// exec'ed or could not; then nothing is left of it.
func (s *supervisor) startExec(r *request, req runtime.Exec, want *runtime.Attach) error {
	c, err := s.find(req.Ref.Container)
	if err != nil {
		return err
	}
	id := req.Ref.Exec
	switch {
	case id == "":
		return fault.Invalid("an exec needs an id")
	case len(req.Process.Args) == 0:
		return fault.Invalid("No exec command specified")
	case c.status() == runtime.Paused:
		return fault.Conflict("container %s is paused, unpause the container before exec", c.id)
	case c.status() != runtime.Running:
		return fault.Conflict("container %s is not running", c.id)
	}
	if _, ok := c.done[id]; ok || c.execs[id] != nil {
		return fault.Conflict("exec %s exists already in container %s", id, c.id)
	}
	spec, err := s.specs.get(c)
	if err != nil {
		return err
	}
	req.Process.Terminal = req.Stdio.Terminal
	compiled, err := plan.CompileExec(spec, &req.Process, s.host)
	if err != nil {
		return err
	}
	p := &process{c: c, exec: id}
	if err := p.launch(compiled, c.init.pid, req.Stdio, req.Process.User.UID); err != nil {
		return err
	}
	p.waiting = r
	if c.execs == nil {
		c.execs = make(map[string]*process)
	}
	c.execs[id] = p
	if want != nil {
		if r.fd, err = p.attach(r.conn, *want); err != nil {
			p.fail(err)
		}
	}
	if p.failure == nil && !p.terminal {
		p.goOn() // nothing has to happen between its creation and its exec
	}
	s.restLater()
	return nil
}
