package supervise

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/wire"
)

// quietTime is how long an upgrade waits for what has begun to end, before it is refused.
const quietTime = 10 * time.Second

// handover is the supervisor, as what passes over to a successor, or comes from a predecessor.
type handover struct{ *supervisor }

// upgrade is one under way: nothing new is begun, and once nothing is in between, the process executes the other program.
type upgrade struct {
	program string
	asked   *request
	expiry  *timer
}

// upgrade begins an upgrade; r is answered by the successor, or when it failed.
func (s handover) beginUpgrade(r *request, program string) error {
	if s.upgrading != nil {
		return fault.Conflict("the supervisor is being upgraded already")
	}
	if len(program) == 0 || program[0] != '/' {
		return fault.Invalid("the supervisor cannot be upgraded to %q: it is no absolute path", program)
	}
	if err := unix.Access(program, unix.X_OK); err != nil {
		return fault.Invalid("the supervisor cannot be upgraded to %s: %w", program, err)
	}
	s.upgrading = &upgrade{program: program, asked: r}
	s.upgrading.expiry = s.loop.after(quietTime, func() {
		s.endUpgrade(fault.Unavailable("the supervisor cannot be upgraded: containers have been starting for %s without a break", quietTime))
	})
	for c := range s.conns {
		c.rewatch()
	}
	s.loop.after(0, s.tryUpgrade)
	return nil
}

// endUpgrade goes on as before.
func (s handover) endUpgrade(err error) {
	u := s.upgrading
	if u == nil {
		return
	}
	u.expiry.stop()
	s.upgrading = nil
	u.asked.reply(nil, err)
	for c := range s.conns {
		c.rewatch()
		c.serve()
	}
}

// tryUpgrade executes the other program if nothing is in between, else it looks again soon.
func (s handover) tryUpgrade() {
	switch {
	case s.upgrading == nil:
	case s.busy():
		s.loop.after(time.Millisecond, s.tryUpgrade)
	default:
		s.endUpgrade(s.handOver(s.upgrading.program))
	}
}

// busy tells whether something is under way that cannot be handed over.
func (s handover) busy() bool {
	for _, c := range s.containers {
		if c.turning || inBetween(&c.init) || c.removal != nil && c.removal.then != nil {
			return true
		}
		for _, p := range c.execs {
			if inBetween(p) {
				return true
			}
		}
	}
	for _, e := range s.errands {
		if e.done != nil {
			return true
		}
	}
	return s.writer.working()
}

func inBetween(p *process) bool {
	return p.phase == launching || p.phase == going || p.waiting != nil || p.failure != nil && p.phase != ended
}

// handOver executes the program; it returns only if that failed.
func (s handover) handOver(program string) error {
	e := s.estate()
	memory, err := unix.MemfdCreate("estate", unix.MFD_CLOEXEC)
	if err != nil {
		return fault.Internal("cannot hand over: %w", err)
	}
	defer unix.Close(memory)
	for data := e.marshal(); len(data) > 0; {
		n, err := unix.Write(memory, data)
		if err != nil {
			return fault.Internal("cannot hand over: %w", err)
		}
		data = data[n:]
	}
	flag := func(value int) {
		set := func(fd *int) {
			if *fd >= 0 {
				_, _ = unix.FcntlInt(uintptr(*fd), unix.F_SETFD, value)
			}
		}
		set(&memory)
		e.descriptors(set)
	}
	flag(0)
	// Ignored signals stay so over the exec, caught ones would be deadly until the successor catches them.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	args := []string{"tare-run", "supervise", "--exec-root", s.root, "--instance", s.instance, "--handover", strconv.Itoa(memory)}
	err = unix.Exec(program, args, os.Environ())
	flag(unix.FD_CLOEXEC)
	s.catchSignals()
	return fault.Internal("cannot execute %s: %w", program, err)
}

// ticket describes an open request.
func (s handover) ticket(r *request) ticket {
	return ticket{Conn: slices.Index(s.lineUp, r.conn), ID: r.msg.ID, Op: r.msg.Op}
}

// estate describes all.
func (s handover) estate() *estate {
	s.lineUp = nil
	for c := range s.conns {
		s.lineUp = append(s.lineUp, c)
	}
	e := &estate{Format: estateFormat, Life: s.life, Recovered: s.recovered, Seq: s.seq, Listener: s.listener, Lock: s.lock}
	for _, c := range s.lineUp {
		st := connState{FD: c.fd, Watching: c.watching, Keeping: c.keeping, Rest: c.dec.Rest(), Received: c.received}
		for _, o := range c.queue {
			st.Queue = append(st.Queue, outgoingState{Data: o.data, FDs: o.fds})
		}
		e.Conns = append(e.Conns, st)
	}
	for _, c := range s.containers {
		st := c.estate(true)
		for _, a := range c.init.attached {
			st.Init.Attached = append(st.Init.Attached, a.estate(s.lineUp))
		}
		for i := range st.Execs {
			for _, a := range c.execs[st.Execs[i].Exec].attached {
				st.Execs[i].Attached = append(st.Execs[i].Attached, a.estate(s.lineUp))
			}
		}
		e.Containers = append(e.Containers, st)
	}
	for a := range s.lingering {
		e.Lingering = append(e.Lingering, a.estate(s.lineUp))
	}
	for pid, d := range s.errands {
		e.Errands = append(e.Errands, errandState{Pid: pid, Compression: d.compression})
	}
	if u := s.upgrading; u != nil {
		t := s.ticket(u.asked)
		e.Answer = &t
	}
	return e
}

// inherit is the other side of handOver.
func (s handover) inherit(memory int) error {
	file := os.NewFile(uintptr(memory), "estate")
	defer file.Close()
	var e estate
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fault.Internal("cannot read what was handed over: %w", err)
	}
	data, err := io.ReadAll(file)
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err == nil && e.Format != estateFormat {
		err = errors.New("its format is unknown")
	}
	if err != nil {
		return fault.Internal("cannot read what was handed over: %w", err)
	}
	e.descriptors(func(fd *int) {
		if *fd >= 0 {
			unix.CloseOnExec(*fd)
		}
	})
	s.inherits = true
	s.life, s.recovered, s.seq, s.listener, s.lock = e.Life, e.Recovered, e.Seq, e.Listener, e.Lock
	s.lineUp = nil
	for _, st := range e.Conns {
		c := &conn{s: s.supervisor, fd: st.FD, watching: st.Watching, keeping: st.Keeping, received: st.Received}
		c.dec.Feed(st.Rest)
		for _, o := range st.Queue {
			c.queue = append(c.queue, outgoing{data: o.Data, fds: o.FDs})
			c.queued += len(o.Data)
		}
		s.conns[c] = struct{}{}
		s.lineUp = append(s.lineUp, c)
	}
	for i := range e.Containers {
		st := &e.Containers[i]
		c, err := recovery{s.supervisor}.restore(st)
		if err != nil {
			complain("container %s is lost: %v", st.ID, err)
			continue
		}
		for i := range st.Init.Attached {
			(heir{&c.init}).restoreAttachment(&st.Init.Attached[i], s.lineUp)
		}
		for i := range st.Execs {
			for j := range st.Execs[i].Attached {
				heir{c.execs[st.Execs[i].Exec]}.restoreAttachment(&st.Execs[i].Attached[j], s.lineUp)
			}
		}
		if st.Removal != nil {
			c.removal = &removal{c: c, began: time.Unix(0, st.Removal.Began)}
			for _, t := range st.Removal.Waiting {
				c.removal.waiting = append(c.removal.waiting, s.open(t))
			}
		}
	}
	for i := range e.Lingering {
		a := recovery{s.supervisor}.newAttachment(&e.Lingering[i], s.lineUp)
		s.lingering[a] = struct{}{}
	}
	for _, d := range e.Errands {
		s.errands[d.Pid] = &errand{compression: d.Compression}
	}
	if e.Answer != nil {
		s.open(*e.Answer).reply(nil, nil)
	}
	return nil
}

// open is a request that a predecessor was asked.
func (s handover) open(t ticket) *request {
	if t.Conn < 0 || t.Conn >= len(s.lineUp) {
		return nil
	}
	return &request{conn: s.lineUp[t.Conn], msg: wire.Message{ID: t.ID, Op: t.Op}, fd: -1}
}

// goOn watches all that was inherited.
func (s handover) goOn() {
	s.loop.watch(s.listener, (*accept)(s.supervisor), unix.EPOLLIN)
	for _, c := range s.containers {
		if s.recovered {
			c.begin()
		}
	}
	for a := range s.lingering {
		a.rewatch()
	}
	for _, c := range s.lineUp {
		c.flush()
		c.serve()
	}
	s.lineUp, s.inherits = nil, false
	s.reapAll()
	s.restLater()
}
