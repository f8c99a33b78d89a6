package supervise

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/wire"
)

// maxQueued is how many bytes of answers may wait for an engine before it is cut off.
const maxQueued = 32 << 20

// conn is one engine's connection.
type conn struct {
	s        *supervisor
	fd       int // -1 when closed
	dec      wire.Decoder
	queue    []outgoing
	queued   int
	received []int // descriptors that no message has taken yet
	watching bool  // wants exit records
	keeping  bool  // keeps descriptors for a successor
}

// outgoing is a frame, or the rest of one, and the descriptors that go with it.
type outgoing struct {
	data []byte
	fds  []int // closed here once they were sent
}

// request is an open call of an engine. It is answered exactly once.
type request struct {
	conn *conn
	msg  wire.Message
	fds  []int // came with it; whoever handles it takes them
	fd   int   // to be sent with a good answer; -1: none
}

// listen makes the socket and accepts engines from then on.
func (s *supervisor) listen() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fault.Internal("cannot make a socket: %w", err)
	}
	os.Remove(s.socket) // of a supervisor that was killed: we hold the lock
	old := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: s.socket})
	unix.Umask(old)
	if err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		return fault.Internal("cannot listen on %s: %w", s.socket, err)
	}
	s.listener = fd
	s.loop.watch(fd, (*accept)(s), unix.EPOLLIN)
	return nil
}

// accept is the supervisor as the handler of its socket.
type accept supervisor

func (a *accept) ready(uint32) {
	for {
		fd, _, err := unix.Accept4(a.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch err {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EAGAIN:
			return
		default: // no descriptors left, most likely: asking again at once would not help
			complain("cannot take a connection: %v", err)
			a.loop.watch(a.listener, nil, 0)
			a.loop.after(100*time.Millisecond, func() { a.loop.watch(a.listener, a, unix.EPOLLIN) })
			return
		}
		c := &conn{s: (*supervisor)(a), fd: fd}
		a.conns[c] = struct{}{}
		a.loop.watch(fd, c, unix.EPOLLIN)
	}
}

func (c *conn) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		c.flush()
	}
	if events&^unix.EPOLLOUT == 0 || c.closed() {
		return
	}
	if c.s.upgrading != nil {
		c.rewatch()
		return
	}
	var rights [rightsSize]byte
	n, rn, _, _, err := unix.Recvmsg(c.fd, c.s.buf, rights[:], unix.MSG_CMSG_CLOEXEC)
	if rn > 0 {
		c.received = append(c.received, descriptorsOf(rights[:rn])...)
	}
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err != nil || n == 0:
		c.close() // half a message, if there is one, is forgotten
		return
	}
	c.dec.Feed(c.s.buf[:n])
	c.serve()
}

// rightsSize is the room in bytes for one message's descriptors: a header of 16, then 4 for each.
const rightsSize = 16 + 4*wire.MaxFDs

func descriptorsOf(rights []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	for i := range msgs {
		got, _ := unix.ParseUnixRights(&msgs[i])
		fds = append(fds, got...)
	}
	return fds
}

// serve carries out the requests that have arrived.
func (c *conn) serve() {
	for !c.closed() && c.s.upgrading == nil {
		m, ok, err := c.dec.Next()
		if err == nil && ok && m.FDs > len(c.received) {
			err = fault.Invalid("supervisor protocol: %d descriptors are missing", m.FDs-len(c.received))
		}
		if err != nil {
			complain("an engine is cut off: %v", err)
			c.close()
			return
		}
		if !ok {
			return
		}
		r := &request{conn: c, msg: m, fd: -1, fds: c.received[:m.FDs:m.FDs]}
		if c.received = c.received[m.FDs:]; len(c.received) == 0 {
			c.received = nil
		}
		c.s.dispatch(r)
		closeFDs(r.fds) // what its handler did not take
	}
}

func (c *conn) closed() bool { return c.fd < 0 }

func (c *conn) close() {
	c.s.loop.close(&c.fd)
	delete(c.s.conns, c)
	for _, o := range c.queue {
		closeFDs(o.fds)
	}
	closeFDs(c.received)
	c.queue, c.received = nil, nil
	c.dec = wire.Decoder{}
}

// reply answers; r may be nil. The descriptor is closed if there is no good answer to send it with.
func (r *request) reply(body any, err error) {
	if r == nil {
		return
	}
	m := wire.Message{ID: r.msg.ID, Op: r.msg.Op}
	fd := r.fd
	r.fd = -1
	if err != nil {
		m.Error = wire.FromError(err)
		if fd >= 0 {
			unix.Close(fd)
			fd = -1
		}
	} else if body != nil {
		m.Body = wire.Body(body)
	}
	if fd >= 0 {
		m.FDs = 1
	}
	if m.ID == 0 { // nobody listens
		if fd >= 0 {
			unix.Close(fd)
		}
		return
	}
	r.conn.send(&m, fd)
}

// send queues a message and sends what the socket takes. It owns fd.
func (c *conn) send(m *wire.Message, fd int) {
	var fds []int
	if fd >= 0 {
		fds = []int{fd}
	}
	if c.closed() {
		closeFDs(fds)
		return
	}
	data, err := wire.Append(nil, m)
	if err != nil {
		data, _ = wire.Append(nil, &wire.Message{ID: m.ID, Op: m.Op, Error: wire.FromError(err)})
	}
	c.put(data, fds)
}

// sendBorrowed is send for descriptors that stay the caller's.
func (c *conn) sendBorrowed(m *wire.Message, fds []int) {
	if c.closed() {
		return
	}
	data, err := wire.Append(nil, m)
	if err != nil || len(fds) > wire.MaxFDs {
		complain("bug: %s message: %v, %d descriptors", m.Op, err, len(fds))
		return
	}
	if len(c.queue) == 0 && c.s.upgrading == nil {
		n, err := unix.SendmsgN(c.fd, data, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		if err == nil {
			if n < len(data) {
				c.put(data[n:], nil)
			}
			return
		}
	}
	var own []int
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			closeFDs(own)
			complain("cannot hand out descriptors: %v", err)
			return
		}
		own = append(own, dup)
	}
	c.put(data, own)
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (c *conn) put(data []byte, fds []int) {
	c.queue = append(c.queue, outgoing{data, fds})
	c.queued += len(data)
	c.flush()
	if c.queued > maxQueued {
		complain("an engine is cut off: it does not read its answers")
		c.close()
	}
}

func (c *conn) flush() {
	for len(c.queue) > 0 {
		o := &c.queue[0]
		var rights []byte
		if len(o.fds) > 0 {
			rights = unix.UnixRights(o.fds...)
		}
		n, err := unix.SendmsgN(c.fd, o.data, rights, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			c.close()
			return
		}
		closeFDs(o.fds)
		o.fds = nil
		c.queued -= n
		if o.data = o.data[n:]; len(o.data) == 0 {
			*o = outgoing{}
			c.queue = c.queue[1:]
		}
	}
	if len(c.queue) == 0 {
		c.queue = nil
	}
	c.rewatch()
}

// rewatch sets what the connection is watched for. An upgrade lets requests wait.
func (c *conn) rewatch() {
	events := uint32(unix.EPOLLIN)
	if c.s.upgrading != nil {
		events = unix.EPOLLERR
	}
	if len(c.queue) > 0 {
		events |= unix.EPOLLOUT
	}
	c.s.loop.watch(c.fd, c, events)
}
