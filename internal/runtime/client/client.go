// Package client is the engine's end of the supervisor's socket.
//
// The connection is one unix stream socket; calls are multiplexed on it, exit
// records arrive on it unasked. When the connection is lost, every open call
// fails with Unavailable and Done is closed; the owner then calls Ensure again.
//
//	c, err := client.Ensure(ctx, opts)
//	go func() { for e := range c.Exits() { … } }()
//	pid, err := c.Create(ctx, runtime.Create{…})
//	stream, err := c.Attach(ctx, runtime.Attach{…})
//	err = c.Start(ctx, id)
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// Client is a connection to the supervisor. Its methods are safe for concurrent use.
type Client struct {
	conn  *net.UnixConn
	kept  *Kept // nil: nothing is kept
	oom   func(container string)
	exits chan runtime.Exit
	done  chan struct{}

	// Lock order: none, the two are never held together.
	write sync.Mutex // held while a frame is written

	mu      sync.Mutex // guards all below
	open    map[uint64]chan answer
	last    uint64 // ID
	lost    error  // why the connection ended
	backlog []runtime.Exit
	wake    chan struct{} // has room for one; told when backlog grew
}

// answer is what a call waits for. The receiver owns the file.
type answer struct {
	msg  wire.Message
	file *os.File
}

// newClient starts reading from the connection.
func newClient(conn *net.UnixConn, opts Options) *Client {
	c := &Client{
		conn:  conn,
		kept:  opts.Kept,
		oom:   opts.OnOOM,
		exits: make(chan runtime.Exit),
		done:  make(chan struct{}),
		open:  make(map[uint64]chan answer),
		wake:  make(chan struct{}, 1),
	}
	go c.read()
	go c.deliver()
	return c
}

// Close drops the connection; the supervisor and its containers go on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Done is closed when the connection is lost.
func (c *Client) Done() <-chan struct{} { return c.done }

// Exits delivers exit records: first all that the supervisor still keeps, then
// new ones as they happen. A record is kept, over engine restarts too, until
// Delete (containers) or Collect (execs). The channel closes with Done. A program
// that could not be executed has no record here: Start and Exec tell, and State does.
// There is one channel; a slow reader holds up nothing else.
func (c *Client) Exits() <-chan runtime.Exit { return c.exits }

func (c *Client) send(m *wire.Message, fds ...int) error {
	data, err := wire.Append(nil, m)
	if err != nil {
		return err
	}
	c.write.Lock()
	defer c.write.Unlock()
	n := 0
	if len(fds) > 0 { // they go with the first bytes
		n, _, err = c.conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
	}
	if err == nil {
		_, err = c.conn.Write(data[n:])
	}
	if err != nil {
		return fault.Unavailable("the connection to the supervisor is lost: %w", err)
	}
	return nil
}

// call asks and waits. result, if not nil, is filled from the answer's body. A call
// whose ctx ends is abandoned: the supervisor may still carry it out.
func (c *Client) call(ctx context.Context, op wire.Op, body, result any, fds ...int) (*os.File, error) {
	m := wire.Message{Op: op, FDs: len(fds)}
	if body != nil {
		m.Body = wire.Body(body)
	}
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.lost != nil {
		err := c.lost
		c.mu.Unlock()
		return nil, err
	}
	c.last++
	m.ID = c.last
	c.open[m.ID] = ch
	c.mu.Unlock()

	if err := c.send(&m, fds...); err != nil {
		c.abandon(m.ID, ch)
		return nil, err
	}
	var a answer
	select {
	case a = <-ch:
	case <-ctx.Done():
		c.abandon(m.ID, ch)
		return nil, ctx.Err()
	case <-c.done:
		select {
		case a = <-ch: // arrived just before
		default:
			c.mu.Lock()
			defer c.mu.Unlock()
			return nil, c.lost
		}
	}
	if a.msg.Error != nil {
		return nil, fromWire(a.msg.Error)
	}
	if result != nil {
		if err := json.Unmarshal(a.msg.Body, result); err != nil {
			closeFile(a.file)
			return nil, fault.Internal("supervisor: answer to %s: %w", op, err)
		}
	}
	return a.file, nil
}

// abandon forgets an open call; what it gets after all is closed.
func (c *Client) abandon(id uint64, ch chan answer) {
	c.mu.Lock()
	delete(c.open, id)
	c.mu.Unlock()
	select {
	case a := <-ch:
		closeFile(a.file)
	default:
	}
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// read hands answers to their calls until the connection ends.
func (c *Client) read() {
	var (
		dec wire.Decoder
		fds []int
		err error
	)
	buf := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(4*wire.MaxFDs))
	for err == nil {
		var n, nOOB int
		n, nOOB, _, _, err = c.conn.ReadMsgUnix(buf, oob)
		fds = append(fds, received(oob[:nOOB])...)
		if n == 0 && err == nil {
			err = io.EOF
		}
		dec.Feed(buf[:max(n, 0)])
		for {
			m, ok, e := dec.Next()
			if e != nil {
				err = e
			}
			if e != nil || !ok {
				break
			}
			if m.FDs > len(fds) {
				err = fault.Internal("supervisor: %d descriptors are missing", m.FDs-len(fds))
				break
			}
			mine := fds[:m.FDs:m.FDs]
			fds = fds[m.FDs:]
			c.take(m, mine)
		}
	}
	closeFDs(fds)
	c.conn.Close()
	c.mu.Lock()
	c.lost = fault.Unavailable("the connection to the supervisor is lost: %w", err)
	c.mu.Unlock()
	close(c.done)
}

// received takes descriptors out of a control message.
func received(oob []byte) (fds []int) {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil { // net receives them with close-on-exec set
			fds = append(fds, got...)
		}
	}
	return fds
}

// take handles one message.
func (c *Client) take(m wire.Message, fds []int) {
	switch m.Op {
	case wire.Keep:
		var body wire.KeepBody
		if c.kept == nil || json.Unmarshal(m.Body, &body) != nil {
			closeFDs(fds)
			return
		}
		c.kept.put(body, slices.Clone(fds))
		return
	case wire.Forget:
		var body wire.ForgetBody
		if c.kept != nil && json.Unmarshal(m.Body, &body) == nil {
			c.kept.drop(body.Key)
		}
		return
	case wire.OOM:
		var ref runtime.Ref
		if c.oom != nil && json.Unmarshal(m.Body, &ref) == nil {
			c.oom(ref.Container)
		}
		return
	}
	var file *os.File
	if len(fds) > 0 {
		file = os.NewFile(uintptr(fds[0]), "stream")
		closeFDs(fds[1:])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Op == wire.Exit {
		var e runtime.Exit
		if json.Unmarshal(m.Body, &e) == nil {
			c.backlog = append(c.backlog, e)
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
		closeFile(file)
		return
	}
	ch, ok := c.open[m.ID]
	if !ok { // abandoned
		closeFile(file)
		return
	}
	delete(c.open, m.ID)
	ch <- answer{m, file}
}

// deliver feeds Exits, so that read never waits for its reader.
func (c *Client) deliver() {
	defer close(c.exits)
	for {
		c.mu.Lock()
		batch := c.backlog
		c.backlog = nil
		c.mu.Unlock()
		for _, e := range batch {
			select {
			case c.exits <- e:
			case <-c.done:
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
	}
}

// ExecError says why the container's program could not be executed. Its class is
// Invalid, and Code is what a shell would exit with: 127 not found, 126 not executable.
type ExecError struct {
	Program string
	Err     error // an errno
	Code    int
}

func (e *ExecError) Error() string {
	if e.Err == unix.ENOENT && !strings.Contains(e.Program, "/") {
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.Program)
	}
	return fmt.Sprintf("exec: %q: %s", e.Program, e.Err)
}
func (e *ExecError) Unwrap() error { return e.Err }

// Is makes the error one of the class Invalid.
func (e *ExecError) Is(target error) bool { return target == errdefs.ErrInvalidArgument }

func fromWire(e *wire.Error) error {
	if e.Errno != 0 {
		return &ExecError{Program: e.Program, Err: unix.Errno(e.Errno), Code: e.Code}
	}
	return e.Fault()
}
