package supervise

import (
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// lateOutput is how many bytes are read after a process's end from a pipe that
// other processes still hold.
const lateOutput = 4 << 20

// exitWatch is the process as the handler of its pidfd.
type exitWatch process

func (w *exitWatch) ready(uint32) { (*process)(w).reap() }

// reap collects the process's exit status, if it has one.
func (p *process) reap() {
	if p.bearing() {
		if p.receive(); p.bearing() && p.sync >= 0 {
			return // its socket is about to tell what it bore
		}
	}
	if p.phase == ended {
		return
	}
	var status unix.WaitStatus
	pid, err := unix.Wait4(p.pid, &status, unix.WNOHANG|unix.WALL, nil)
	for err == unix.EINTR {
		pid, err = unix.Wait4(p.pid, &status, unix.WNOHANG|unix.WALL, nil)
	}
	switch {
	case err != nil: // a predecessor's child
		(heir{p}).reapOrphan(0)
	case pid == 0 || status.Stopped() || status.Continued():
	default:
		p.endWith(status)
	}
}

// endWith is what follows the end of a process whose status is known.
func (p *process) endWith(status unix.WaitStatus) {
	if p.phase == going && p.c.foreign != nil { // a short program: the command that started it is about to end
		p.faster, p.status = true, status
		p.s().loop.watch(p.pidfd, nil, 0)
		return
	}
	p.end(codeOf(status))
}

// end is what follows the end of a process, in the order that others may rely on:
// output, log, attachments, then the exit record.
func (p *process) end(code int) {
	p.receive() // the reason may have been reported before the end
	c, l, now := p.c, p.s().loop, time.Now()
	if p.exec == "" && !c.ownPids {
		c.kill()
	}
	limit := lateOutput
	if p.exec == "" && c.ownPids {
		limit = 1 << 40 // no writer is left
	}
	p.out.drain(limit)
	p.err.drain(limit)
	p.log.close(now)
	was := p.phase
	p.phase = ended
	l.close(&p.stdin.fd)
	l.close(&p.sync)
	l.close(&p.pidfd)
	for _, a := range p.attached {
		a.finish()
	}
	p.log, p.attached, p.stdin.pending, p.child = nil, nil, nil, nil

	if p.failure == nil && was < running {
		p.failure = &wire.Error{Class: "internal", Message: "the process ended before it was started", Code: code}
	}
	exit := runtime.Exit{Ref: p.ref(), Code: code, At: now.UTC(), Reason: p.reason}
	switch {
	case p.exec != "":
		p.endExec(exit, was)
	case c.removal != nil: // Delete killed it
		p.refuse()
		c.removal.try()
	case was == launching:
		c.forgetFailed()
	case was == going:
		// Not published: whoever asked for the start is told.
		exit.Code = max(p.failure.Code, 1)
		c.exit = &exit
		p.refuse()
	default:
		exit.OOMKilled = c.oomKilled()
		if exit.OOMKilled {
			c.tellOOM()
		}
		c.exit = &exit
		p.s().publish(c.exit)
	}
	if p.kept {
		p.s().forget((heir{p}).key())
	}
	if p.exec == "" {
		c.unwatchOOM()
	}
	if p.exec == "" && p.kept {
		_ = unix.Unlink(recovery{p.s()}.notePath(c.id))
	}
	p.s().restLater()
}

func (p *process) endExec(exit runtime.Exit, was phase) {
	c := p.c
	delete(c.execs, p.exec)
	if len(c.execs) == 0 {
		c.execs = nil
	}
	if was != running {
		p.refuse()
		return
	}
	exit.OOMKilled = exit.Code == 128+int(unix.SIGKILL) && c.oomKilled()
	p.s().publish(&exit)
	if c.done == nil {
		c.done = make(map[string]runtime.Exit)
	}
	c.done[p.exec] = exit
}

// publish numbers the record and sends it to every engine that watches.
func (s *supervisor) publish(e *runtime.Exit) {
	s.seq++
	e.Seq = s.seq
	for c := range s.conns {
		if c.watching {
			c.send(&wire.Message{Op: wire.Exit, Body: wire.Body(e)}, -1)
		}
	}
}

// oomKilled tells whether the kernel killed a process of the container for lack of memory.
func (c *container) oomKilled() bool { return c.group.OOMKills() > 0 }

// kill ends every process of the container's cgroup.
func (c *container) kill() {
	pids, err := c.group.Pids()
	if err != nil {
		return
	}
	for _, pid := range pids {
		if pid != c.init.pid {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
