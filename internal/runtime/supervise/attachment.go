package supervise

import (
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// frameHeader is the length of the header of Docker's multiplexed stream in bytes:
// the stream's number, three zeros, the length of the data as a big-endian uint32.
const frameHeader = 8

// maxBehind is how many bytes may wait for a client before its process has to.
const maxBehind = 1 << 20

// vanishDelay is how long after a client vanished without closing its input it is
// taken for gone; if its engine vanished too, the input is not at its end.
const vanishDelay = 100 * time.Millisecond

// attachment is one client's stream to a process: output out, stdin in.
type attachment struct {
	p       *process // nil once the process ended
	s       *supervisor
	number  uint64
	key     string // under which engines keep it; "": they do not
	conn    *conn  // of the engine that asked for it
	fd      int
	in      bool // stdin is wanted and has not ended
	out     bool
	err     bool
	raw     bool   // a terminal's output has no frames
	limbo   bool   // see vanish
	gone    bool   // the other end is closed: nothing can be sent
	pending []byte // output that the socket did not take
	head    int    // of pending: what is sent
}

// attach makes the socket pair and returns the client's end.
func (p *process) attach(c *conn, want runtime.Attach) (int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fault.Internal("cannot attach to container %s: %w", p.c.id, err)
	}
	_ = unix.SetNonblock(fds[0], true)
	s := p.s()
	s.attachments++
	a := &attachment{p: p, s: s, number: s.attachments, conn: c, fd: fds[0], in: want.Stdin, out: want.Stdout, err: want.Stderr, raw: p.terminal}
	p.attached = append(p.attached, a)
	if p.kept {
		a.keep()
	}
	a.rewatch()
	return fds[1], nil
}

// endedStream returns a client's end of a stream that is at its end.
func endedStream() (int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fault.Internal("cannot attach: %w", err)
	}
	unix.Close(fds[0])
	return fds[1], nil
}

// behind tells whether a client waits for more than maxBehind.
func (p *process) behind() bool {
	for _, a := range p.attached {
		if len(a.pending)-a.head > maxBehind {
			return true
		}
	}
	return false
}

// send passes on output; frame has frameHeader bytes of room before the data.
// It removes the attachment if the client is gone.
func (a *attachment) send(stream byte, frame []byte) {
	if a.gone || stream == stdout && !a.out || stream == stderr && !a.err {
		return
	}
	data := frame[frameHeader:]
	if !a.raw {
		data = frame
		binary.BigEndian.PutUint32(frame, uint32(stream)<<24)
		binary.BigEndian.PutUint32(frame[4:], uint32(len(frame)-frameHeader))
	}
	if a.head < len(a.pending) {
		a.pending = append(a.pending, data...)
		return
	}
	n := a.put(data)
	if n < len(data) && !a.gone {
		a.pending, a.head = append(a.pending[:0], data[n:]...), 0
	}
	if a.gone && !a.in {
		a.close()
		return
	}
	a.rewatch()
}

func (a *attachment) put(data []byte) (n int) {
	for n < len(data) {
		m, err := unix.SendmsgN(a.fd, data[n:], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return n
		case err != nil:
			a.lose()
			return n
		default:
			n += m
		}
	}
	return n
}

// lose gives up sending. Input that the client sent before is still read.
func (a *attachment) lose() {
	a.gone, a.pending, a.head = true, nil, 0
}

// reads tells whether input is to be read now.
func (a *attachment) reads() bool {
	return a.in && a.p != nil && len(a.p.stdin.pending) == 0
}

// rewatch sets what the socket is watched for, by what the attachment can do now.
func (a *attachment) rewatch() {
	if a.fd < 0 {
		return
	}
	events := uint32(unix.EPOLLERR) // always reported, as is the hang-up
	if a.reads() {
		events |= unix.EPOLLIN
	}
	if a.head < len(a.pending) {
		events |= unix.EPOLLOUT
	}
	if a.gone && !a.reads() {
		events = 0 // the hang-up would be reported without end
	}
	a.s.loop.watch(a.fd, a, events)
}

func (a *attachment) ready(events uint32) {
	p := a.p
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		a.lose()
	}
	if a.head < len(a.pending) {
		a.head += a.put(a.pending[a.head:])
		switch {
		case a.gone:
		case a.head == len(a.pending):
			a.pending, a.head = nil, 0
		case a.head > maxBehind/2:
			a.pending = append(a.pending[:0], a.pending[a.head:]...)
			a.head = 0
		}
	}
	if a.reads() && !a.read() {
		a.inputEnds()
	}
	switch {
	case a.p == nil && a.head == len(a.pending), a.gone && !a.in:
		a.close()
	default:
		a.rewatch()
	}
	if p != nil {
		p.out.resume()
		p.err.resume()
	}
}

// read passes input on to the process; false at its end.
func (a *attachment) read() bool {
	buf := a.p.s().buf
	n, err := unix.Read(a.fd, buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return true
	case err != nil || n == 0:
		return false
	}
	a.p.stdin.write(buf[:n])
	return true
}

// inputEnds ends the process's stdin, if this client's is the one that counts.
func (a *attachment) inputEnds() {
	a.in = false
	p := a.p
	if !p.once {
		return
	}
	if !a.gone || p.exec != "" { // nobody can attach to an exec a second time
		p.stdin.end()
		return
	}
	// A client that vanished whole, without closing its input first: if it was the
	// engine that vanished, another one may attach and go on.
	a.vanish()
}

// vanish ends stdin a little later, if the client's engine is then still there.
func (a *attachment) vanish() {
	p := a.p
	a.limbo = true
	a.s.loop.after(vanishDelay, func() {
		a.limbo = false
		if p.phase != ended && a.conn != nil && !a.conn.closed() {
			p.stdin.end()
		}
	})
}

// finish closes the stream after what is pending; the process has ended.
func (a *attachment) finish() {
	a.p, a.in = nil, false
	if a.gone || a.head == len(a.pending) {
		a.close()
		return
	}
	a.s.lingering[a] = struct{}{}
	a.rewatch()
}

func (a *attachment) close() {
	delete(a.s.lingering, a)
	if a.key != "" {
		a.s.forget(a.key)
		a.key = ""
	}
	if a.p != nil {
		if i := slices.Index(a.p.attached, a); i >= 0 {
			a.p.attached = slices.Delete(a.p.attached, i, i+1)
		}
		if len(a.p.attached) == 0 {
			a.p.attached = nil
		}
	}
	if a.fd < 0 {
		return
	}
	// Closing with unread input would turn the client's EOF into ECONNRESET.
	_ = unix.Shutdown(a.fd, unix.SHUT_RDWR)
	var trash [4096]byte
	for {
		if n, err := unix.Read(a.fd, trash[:]); n <= 0 || err != nil {
			break
		}
	}
	a.s.loop.close(&a.fd)
	a.pending = nil
}
