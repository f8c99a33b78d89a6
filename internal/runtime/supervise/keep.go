package supervise

import (
	"tare/internal/runtime/wire"
)

// What engines keep for a successor: see package wire. A process is kept from the moment that its creation is answered, for an
// exec from its start on; an attachment while its process is. Keys: "container", "container/exec", "container/exec#number".

func (p heir) key() string {
	if p.exec == "" {
		return p.c.id
	}
	return p.c.id + "/" + p.exec
}

// keep gives the process to those who keep, for the first time or because what there is of it changed.
func (p heir) keep() {
	p.kept = true
	for c := range p.s().conns {
		if c.keeping {
			c.keep((heir{p.process}).key(), (heir{p.process}).will())
		}
	}
}

// will is what a successor needs of this process alone.
func (p heir) will() *estate {
	e := &estate{Format: estateFormat}
	st, own := p.c.estate(false), (heir{p.process}).estate()
	own.Pending = nil // it is not kept up to date
	if own.Log != nil {
		own.Log.Part = [2][]byte{}
	}
	if p.exec == "" {
		st.Init = &own
	} else {
		st.Execs = []processState{own}
	}
	e.Containers = []containerState{st}
	return e
}

func (a *attachment) keep() {
	a.key = (heir{a.p}).key() + "#" + utoa(a.number)
	for c := range a.p.s().conns {
		if c.keeping {
			c.keep(a.key, a.will())
		}
	}
}

func (a *attachment) will() *estate {
	st := a.estate(nil)
	st.Exec, st.Conn, st.Pending = a.p.exec, 0, nil // of the engine that gives it back
	return &estate{Format: estateFormat, Containers: []containerState{{ID: a.p.c.id, Loose: []attachmentState{st}}}}
}

func (c *conn) keep(key string, e *estate) {
	fds := e.split()
	c.sendBorrowed(&wire.Message{Op: wire.Keep, FDs: len(fds), Body: wire.Body(wire.KeepBody{Key: key, State: e.marshal()})}, fds)
}

// forget ends the keeping of what has this key.
func (s *supervisor) forget(key string) {
	for c := range s.conns {
		if c.keeping {
			c.send(&wire.Message{Op: wire.Forget, Body: wire.Body(wire.ForgetBody{Key: key})}, -1)
		}
	}
}

// keepAll tells an engine of all that is to be kept.
func (c *conn) keepAll() {
	tell := func(p *process) {
		if !p.kept || p.phase == ended {
			return
		}
		c.keep((heir{p}).key(), (heir{p}).will())
		for _, a := range p.attached {
			if a.key != "" {
				c.keep(a.key, a.will())
			}
		}
	}
	for _, box := range c.s.containers {
		tell(&box.init)
		for _, p := range box.execs {
			tell(p)
		}
	}
}
