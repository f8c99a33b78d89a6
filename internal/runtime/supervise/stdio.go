package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// readSize is how much is read from a pipe or client at once.
const readSize = 64 << 10

// source is a process's stdout or stderr, or its terminal's output.
type source struct {
	p      *process
	fd     int // -1 when closed
	stream byte
	tty    bool
	hung   bool // a terminal that nobody has open for now
}

// resume watches the source, unless a client is too far behind.
func (o *source) resume() {
	if o.fd < 0 {
		return
	}
	events := uint32(unix.EPOLLIN)
	if o.hung {
		events |= unix.EPOLLET // else the hang-up would be reported without end
	}
	if o.p.behind() {
		events = 0
	}
	o.p.s().loop.watch(o.fd, o, events)
}

func (o *source) ready(uint32) {
	for range 4 { // then it is another's turn
		if o.p.behind() {
			break
		}
		if n, more := o.read(); !more || n < readSize {
			break
		}
	}
	// A client that turned out to be gone may have been what the other one waited for.
	o.p.out.resume()
	o.p.err.resume()
}

// read reads once and passes it on; more is false if there is nothing more for now, or ever.
func (o *source) read() (n int, more bool) {
	if o.fd < 0 {
		return 0, false
	}
	buf := o.p.s().buf
	n, err := unix.Read(o.fd, buf[frameHeader:])
	switch {
	case err == unix.EINTR:
		return 0, true
	case err == unix.EAGAIN:
		return 0, false
	case err == unix.EIO && o.tty:
		o.hung = true // another process may open it again
		return 0, false
	case err != nil || n == 0:
		o.p.s().loop.close(&o.fd)
		return 0, false
	}
	o.hung = false
	o.p.log.write(o.stream, buf[frameHeader:frameHeader+n], time.Now())
	for i := len(o.p.attached) - 1; i >= 0; i-- { // send removes a client that is gone
		o.p.attached[i].send(o.stream, buf[:frameHeader+n])
	}
	return n, true
}

// drain reads what the source holds now, at most limit bytes, and closes it.
func (o *source) drain(limit int) {
	for limit > 0 {
		n, more := o.read()
		if !more {
			break
		}
		limit -= n
	}
	o.p.s().loop.close(&o.fd)
}

// stdin is a process's standard input: a pipe, or its terminal's input.
type stdin struct {
	p       *process
	fd      int    // -1: closed; what clients send is thrown away
	pending []byte // does not fit into the pipe now; clients wait
	ending  bool   // to be closed after pending
}

// write takes all of data; what the pipe does not take at once waits in pending,
// and no client is read before that is empty.
func (in *stdin) write(data []byte) {
	if in.fd < 0 {
		return
	}
	n := in.put(data)
	if n < len(data) && in.fd >= 0 {
		in.pending = append([]byte(nil), data[n:]...)
		in.p.s().loop.watch(in.fd, in, unix.EPOLLOUT)
		in.p.stdinChanged()
	}
}

func (in *stdin) put(data []byte) (n int) {
	for n < len(data) {
		m, err := unix.Write(in.fd, data[n:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN || err == nil && m == 0:
			return n
		case err != nil: // the process closed it
			in.close()
			return n
		default:
			n += m
		}
	}
	return n
}

func (in *stdin) ready(uint32) {
	in.pending = in.pending[in.put(in.pending):]
	if in.fd < 0 || len(in.pending) > 0 {
		return
	}
	in.pending = nil
	in.p.s().loop.watch(in.fd, nil, 0)
	if in.ending {
		in.close()
	}
	in.p.stdinChanged()
}

// end closes stdin after what is pending. A terminal has no end.
func (in *stdin) end() {
	if in.p.terminal {
		return
	}
	if len(in.pending) > 0 {
		in.ending = true
		return
	}
	in.close()
}

func (in *stdin) close() {
	in.p.s().loop.close(&in.fd)
	in.pending = nil
	if in.p.kept {
		(heir{in.p}).keep() // without it: else the engine's duplicate would keep the process from seeing the end
	}
	in.p.stdinChanged()
}

// stdinChanged lets the clients go on, or wait.
func (p *process) stdinChanged() {
	for _, a := range p.attached {
		a.rewatch()
	}
}
