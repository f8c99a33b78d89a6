package supervise

import (
	"encoding/json"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// dispatch carries out a request. What takes more than this moment keeps r and answers later.
func (s *supervisor) dispatch(r *request) {
	body, later, err := s.carryOut(r)
	if err != nil || !later {
		r.reply(body, err)
	}
}

// carryOut returns the answer, or later=true if r was kept for it.
func (s *supervisor) carryOut(r *request) (body any, later bool, err error) {
	switch r.msg.Op {
	case wire.Create:
		req, err := decode[runtime.Create](r)
		if err == nil {
			err = s.create(r, req)
		}
		return nil, true, err
	case wire.Start:
		ref, err := decode[runtime.Ref](r)
		if err == nil {
			err = s.start(r, ref.Container)
		}
		return nil, true, err
	case wire.Exec:
		req, err := decode[wire.ExecBody](r)
		if err == nil {
			err = s.startExec(r, req.Exec, req.Attach)
		}
		return nil, true, err
	case wire.Delete:
		ref, err := decode[runtime.Ref](r)
		if err == nil {
			err = s.remove(r, ref.Container)
		}
		return nil, true, err
	case wire.Watch:
		return nil, true, s.watch(r)
	case wire.Hello:
		return wire.HelloBody{Life: s.life, Program: s.program, Format: estateFormat, Recovered: s.recovered}, false, nil
	case wire.Adopt:
		return nil, false, recovery{s}.adopt(r)
	case wire.Recover:
		recovery{s}.recover()
		return nil, false, nil
	case wire.Upgrade:
		req, err := decode[wire.UpgradeBody](r)
		if err == nil {
			err = handover{s}.beginUpgrade(r, req.Program)
		}
		return nil, true, err
	case wire.Attach:
		req, err := decode[runtime.Attach](r)
		if err == nil {
			r.fd, err = s.attach(r.conn, req)
		}
		return nil, false, err
	case wire.Signal:
		req, err := decode[wire.SignalBody](r)
		if err != nil {
			return nil, false, err
		}
		p, err := s.findProcess(req.Ref)
		if err == nil {
			err = p.signal(req.Signal)
		}
		return nil, false, err
	case wire.Resize:
		req, err := decode[wire.ResizeBody](r)
		if err != nil {
			return nil, false, err
		}
		p, err := s.findProcess(req.Ref)
		if err == nil {
			err = p.resize(req.Width, req.Height)
		}
		return nil, false, err
	case wire.Pause, wire.Resume:
		ref, err := decode[runtime.Ref](r)
		if err == nil {
			err = s.freeze(r, ref.Container, r.msg.Op == wire.Pause)
		}
		return nil, true, err
	case wire.State:
		ref, err := decode[runtime.Ref](r)
		if err != nil {
			return nil, false, err
		}
		c, err := s.find(ref.Container)
		if err != nil {
			return nil, false, err
		}
		return c.state(), false, nil
	case wire.List:
		return s.list(), false, nil
	case wire.Collect:
		ref, err := decode[runtime.Ref](r)
		if err == nil {
			s.collect(ref)
		}
		return nil, false, err
	case wire.Shutdown:
		if n := len(s.containers); n > 0 {
			return nil, false, fault.Conflict("the supervisor has %d containers left", n)
		}
		s.shutdown()
		return nil, false, nil
	}
	return nil, false, fault.Unsupported("the supervisor does not know the request %q", r.msg.Op)
}

func decode[T any](r *request) (v T, err error) {
	if err := json.Unmarshal(r.msg.Body, &v); err != nil {
		return v, fault.Invalid("supervisor: %s request: %w", r.msg.Op, err)
	}
	r.msg.Body = nil
	return v, nil
}

// watch sends the kept exit records after the answer, and new ones as they come.
func (s *supervisor) watch(r *request) error {
	var want wire.WatchBody
	if len(r.msg.Body) > 0 {
		var err error
		if want, err = decode[wire.WatchBody](r); err != nil {
			return err
		}
	}
	if want.Keep && !r.conn.keeping {
		r.conn.keeping = true
		r.conn.keepAll()
	}
	r.reply(nil, nil)
	r.conn.watching = true
	for _, e := range s.kept() {
		r.conn.send(&wire.Message{Op: wire.Exit, Body: wire.Body(e)}, -1)
	}
	return nil
}

func (s *supervisor) attach(c *conn, req runtime.Attach) (int, error) {
	container, err := s.find(req.Ref.Container)
	if err != nil {
		return -1, err
	}
	if _, past := container.done[req.Ref.Exec]; past || req.Ref.Exec == "" && container.init.phase == ended {
		return endedStream()
	}
	p, err := s.findProcess(req.Ref)
	if err != nil {
		return -1, err
	}
	return p.attach(c, req)
}

// shutdown makes the loop end after the answer was sent; a new engine finds nobody from now on.
func (s *supervisor) shutdown() {
	s.loop.close(&s.listener)
	s.loop.stopped = true
	_ = unix.Unlink(s.socket)
}
