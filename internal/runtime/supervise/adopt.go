package supervise

import (
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
	"tare/internal/runtime/wire"
)

// recovery is the supervisor, as what takes over from one that was killed.
type recovery struct{ *supervisor }

// adopt takes over what an engine kept of a killed supervisor. Nothing of it is read or reported before recover,
// so that a process's clients are there before its output flows.
func (s recovery) adopt(r *request) error {
	fds := r.fds
	r.fds = nil
	closeAll := func(used []bool) {
		for i, fd := range fds {
			if used == nil || !used[i] {
				unix.Close(fd)
			}
		}
	}
	var body wire.KeepBody
	var e estate
	err := json.Unmarshal(r.msg.Body, &body)
	if err == nil {
		err = json.Unmarshal(body.State, &e)
	}
	if err != nil {
		closeAll(nil)
		return fault.Invalid("supervisor: adopt request: %w", err)
	}
	if e.Format != estateFormat || s.recovered {
		closeAll(nil)
		return fault.Unsupported("the supervisor cannot take over what format %d describes", e.Format)
	}
	e.Lock, e.Conns = 0, nil
	closeAll(e.join(fds))
	for i := range e.Containers {
		if st := &e.Containers[i]; st.ID != "" {
			s.adoptParts(st, r.conn)
		}
	}
	return nil
}

// adoptParts takes over a container with its init, or what is to be added to one that is there.
func (s recovery) adoptParts(st *containerState, by *conn) {
	c := s.containers[st.ID]
	if c == nil && st.Init != nil {
		var err error
		if c, err = s.restore(st); err != nil {
			complain("cannot take over container %s: %v", st.ID, err)
		} else {
			if noted := s.readNote(c.id); noted != nil && noted.Started != 0 && noted.Init.Pid == c.init.pid {
				c.started = noted.Started
				(heir{&c.init}).isRunning()
			}
			c.paused = c.group.Frozen()
			st.Init = nil
		}
	}
	for i := range st.Execs {
		if c == nil || c.execs[st.Execs[i].Exec] != nil {
			continue
		}
		c.restoreExec(&st.Execs[i])
		st.Execs[i].descriptors(func(fd *int) { *fd = -1 })
	}
	for i := range st.Loose {
		a := &st.Loose[i]
		if c == nil || a.FD < 0 {
			continue
		}
		p := &c.init
		if a.Exec != "" {
			p = c.execs[a.Exec]
		}
		if p != nil && p.phase != ended {
			(heir{p}).restoreAttachment(a, []*conn{by})
			a.FD = -1
		}
	}
	// What found no owner. A client's stream has to be ended, for its engine holds it too.
	for i := range st.Loose {
		if st.Loose[i].FD >= 0 {
			_ = unix.Shutdown(st.Loose[i].FD, unix.SHUT_RDWR)
		}
	}
	left := estate{Containers: []containerState{*st}}
	left.descriptors(func(fd *int) {
		if *fd >= 0 {
			unix.Close(*fd)
		}
	})
}

// recover ends the take-over: what nobody kept is looked for, and all that was taken over begins to be watched.
func (s recovery) recover() {
	if s.recovered {
		return
	}
	s.recovered = true
	s.readNotes()
	for _, c := range s.containers {
		c.begin()
	}
	s.reapAll()
	s.restLater()
}

// restore makes the container, with the execs and attachments of its description. It is not watched before begin.
func (s recovery) restore(st *containerState) (*container, error) {
	group, err := cgroup.Open(st.Cgroup)
	if err != nil {
		return nil, err
	}
	c := &container{
		s: s.supervisor, id: st.ID, bundle: st.Bundle, cgroup: st.Cgroup, group: group, rootfs: st.Rootfs, foreign: st.Foreign,
		created: st.Created, started: st.Started, ownPids: st.OwnPids, paused: st.Paused, oomsTold: st.OOMs, limited: st.Limited,
		exit: st.Exit, done: st.Done,
	}
	(heir{&c.init}).restore(c, st.Init)
	s.containers[c.id] = c
	for i := range st.Execs {
		c.restoreExec(&st.Execs[i])
	}
	return c, nil
}

func (c *container) restoreExec(st *processState) {
	p := &process{}
	(heir{p}).restore(c, st)
	if c.execs == nil {
		c.execs = make(map[string]*process)
	}
	c.execs[p.exec] = p
}

// heir is a process, as what a successor gets.
type heir struct{ *process }

func (p heir) restore(c *container, st *processState) {
	p.c, p.exec, p.pid, p.pidfd, p.sync, p.phase = c, st.Exec, st.Pid, st.PidFD, st.Sync, st.Phase
	p.terminal, p.once, p.pipes, p.failure, p.size = st.Terminal, st.Once, st.Pipes, st.Failure, st.Size
	p.stdin = stdin{p: p.process, fd: st.Stdin, pending: st.Pending, ending: st.Ending}
	p.out = source{p: p.process, fd: st.Stdout, stream: stdout, tty: st.TTY, hung: st.Hung}
	p.err = source{p: p.process, fd: st.Stderr, stream: stderr}
	p.kept = true
	if st.Log != nil && p.phase != ended {
		log, err := c.s.log(c.id, st.Log.Config)
		if err != nil { // rather an output that nobody keeps than a container that waits for a reader
			complain("container %s: its output is no longer logged: %v", c.id, err)
		}
		if log != nil {
			log.take(st.Log)
			p.log = log
		}
	}
	if p.sync >= 0 {
		compiled := (heir{p.process}).plan()
		if p.child = launch.Adopt(compiled, p.sync); c.s.inherits { // then it was not told: such a process is not handed over
			p.child = launch.Resume(compiled, p.sync)
		}
	}
}

// plan compiles a container's plan anew; only the words of errors depend on it, so it may be empty.
func (p heir) plan() *plan.Plan {
	if p.exec == "" {
		if spec, err := runtime.LoadBundle(p.c.bundle); err == nil {
			if compiled, err := plan.Compile(spec, p.c.rootfs, p.c.s.host); err == nil {
				return compiled
			}
		}
	}
	return &plan.Plan{}
}

func (p heir) restoreAttachment(st *attachmentState, conns []*conn) {
	a := recovery{p.s()}.newAttachment(st, conns)
	a.p = p.process
	a.key = (heir{p.process}).key() + "#" + utoa(a.number)
	p.attached = append(p.attached, a)
}

func (s recovery) newAttachment(st *attachmentState, conns []*conn) *attachment {
	a := &attachment{
		s: s.supervisor, number: st.Number, fd: st.FD, in: st.In, out: st.Out, err: st.Err, raw: st.Raw, gone: st.Gone, limbo: st.Limbo,
		pending: st.Pending,
	}
	if st.Conn >= 0 && st.Conn < len(conns) {
		a.conn = conns[st.Conn]
	}
	s.attachments = max(s.attachments, a.number)
	return a
}

// isRunning settles a process of which a successor learns that it had been started.
func (p heir) isRunning() {
	if p.phase < running {
		p.s().loop.close(&p.sync)
		p.phase, p.child = running, nil
		p.c.rootfs = nil
	}
}

// begin watches all of a container that was taken over.
func (c *container) begin() {
	if m := c.removal; m != nil {
		if c.init.phase == ended {
			m.try()
		}
	}
	(heir{&c.init}).begin()
	for _, p := range c.execs {
		(heir{p}).begin()
	}
	if c.s.containers[c.id] == c {
		c.watchOOM()
	}
}

func (p heir) begin() {
	if p.phase == ended || p.begun {
		return
	}
	p.begun = true
	l := p.s().loop
	for _, a := range p.attached {
		if a.limbo {
			a.vanish()
		}
		a.rewatch()
	}
	if len(p.stdin.pending) > 0 && p.stdin.fd >= 0 {
		l.watch(p.stdin.fd, &p.stdin, unix.EPOLLOUT)
	}
	p.out.resume()
	p.err.resume()
	if p.sync >= 0 {
		l.watch(p.sync, (*syncWatch)(p.process), unix.EPOLLIN)
	}
	if p.pidfd >= 0 {
		l.watch(p.pidfd, (*exitWatch)(p.process), unix.EPOLLIN)
		return
	}
	l.after(time.Millisecond, func() { (heir{p.process}).lost("nothing is known of its process") })
}
