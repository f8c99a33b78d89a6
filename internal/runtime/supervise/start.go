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
	req.Process.Terminal = req.Stdio.Terminal
	p := &process{c: c, exec: id}
	if c.foreign != nil {
		err = (guest{p}).execForeign(&req.Process, req.Stdio)
	} else {
		err = p.launchExec(&req)
	}
	if err != nil {
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
	if p.failure == nil && !p.terminal && c.foreign == nil {
		p.goOn() // nothing has to happen between its creation and its exec
	}
	s.restLater()
	return nil
}

// launchExec launches an exec of our own.
func (p *process) launchExec(req *runtime.Exec) error {
	spec, err := p.s().specs.get(p.c)
	if err != nil {
		return err
	}
	compiled, err := plan.CompileExec(spec, &req.Process, p.s().host)
	if err != nil {
		return err
	}
	return p.launch(compiled, p.c.init.pid, req.Stdio, req.Process.User.UID)
}
