// Package supervisor keeps the engine connected to its supervisor: a Link has
// the client's calls, makes a new connection (and, where none answers, a new
// supervisor) when one is lost, and parts the exit records into those of containers and those of execs.
//
// It holds what the successor of a killed supervisor needs (client.Kept) and gives it back, so that containers survive that too.
//
// A call that was open when the connection broke fails with Unavailable; it is not repeated, for it may have been done (List is).
package supervisor

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// connection is what Link uses of *client.Client.
type connection interface {
	Create(ctx context.Context, req runtime.Create) (pid int, err error)
	Start(ctx context.Context, id string) error
	Exec(ctx context.Context, req runtime.Exec, attach *runtime.Attach) (pid int, stream *net.UnixConn, err error)
	Attach(ctx context.Context, req runtime.Attach) (*net.UnixConn, error)
	Signal(ctx context.Context, ref runtime.Ref, sig int) error
	Resize(ctx context.Context, ref runtime.Ref, width, height uint16) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Delete(ctx context.Context, id string) error
	State(ctx context.Context, id string) (runtime.State, error)
	List(ctx context.Context) ([]runtime.State, error)
	Collect(ctx context.Context, ref runtime.Ref) error
	Exits() <-chan runtime.Exit
	Done() <-chan struct{}
	Close() error
}

// Link is a lasting connection. Safe for concurrent use.
type Link struct {
	dial       func(ctx context.Context) (connection, error)
	containers chan runtime.Exit
	execs      chan runtime.Exit
	closing    chan struct{}
	done       sync.WaitGroup
	kept       *client.Kept
	hear       *hearing

	mu   sync.Mutex // guards all below
	conn connection
	next chan struct{} // closed when conn is replaced
	lost func()        // called after each new connection but the first
}

// Open connects, and starts a supervisor where none answers.
func Open(ctx context.Context, opts client.Options) (*Link, error) {
	kept, hear := new(client.Kept), new(hearing)
	opts.Kept, opts.OnOOM = kept, hear.oom
	l, err := open(ctx, func(ctx context.Context) (connection, error) { return client.Ensure(ctx, opts) })
	if err != nil {
		kept.Close()
		return nil, err
	}
	l.kept, l.hear = kept, hear
	return l, nil
}

func open(ctx context.Context, dial func(context.Context) (connection, error)) (*Link, error) {
	l := &Link{dial: dial, containers: make(chan runtime.Exit, 64), execs: make(chan runtime.Exit, 64), closing: make(chan struct{}), next: make(chan struct{})}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	l.conn = conn
	l.done.Go(l.run)
	return l, nil
}

// OnReconnect sets what to do after a new connection: what the old supervisor ran may be gone.
func (l *Link) OnReconnect(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = f
}

// OnOOM sets who is told of containers in which the kernel killed a process for want of memory. It must not wait.
func (l *Link) OnOOM(f func(container string)) {
	if l.hear != nil {
		l.hear.tell.Store(&f)
	}
}

// hearing is what every connection of a link tells without being asked.
type hearing struct {
	tell atomic.Pointer[func(container string)]
}

func (h *hearing) oom(container string) {
	if f := h.tell.Load(); f != nil {
		(*f)(container)
	}
}

// run passes exit records on, over any number of connections.
func (l *Link) run() {
	defer close(l.execs)
	defer close(l.containers)
	for {
		conn, _ := l.current()
		l.pass(conn)
		if !l.redial() {
			return
		}
	}
}

func (l *Link) pass(conn connection) {
	for x := range conn.Exits() {
		to := l.containers
		if x.Ref.Exec != "" {
			to = l.execs
		}
		select {
		case to <- x:
		case <-l.closing:
			return
		}
	}
}

// redial connects again, waiting longer each time that fails; false when the link closes.
func (l *Link) redial() bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		select {
		case <-l.closing:
			return false
		default:
		}
		conn, err := l.dial(ctx)
		if err == nil {
			lost, ok := l.adopt(conn)
			if !ok { // Close came while we dialled: it has not seen this connection
				conn.Close()
				return false
			}
			slog.Warn("the connection to the supervisor was lost and made again")
			if lost != nil {
				l.done.Go(lost)
			}
			return true
		}
		slog.Error("cannot reach or start the supervisor", "error", err)
		select {
		case <-l.closing:
			return false
		case <-time.After(wait):
		}
	}
}

// adopt makes conn the current connection, unless the link closes.
func (l *Link) adopt(conn connection) (lost func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closing:
		return nil, false
	default:
		l.conn = conn
		close(l.next)
		l.next = make(chan struct{})
		return l.lost, true
	}
}

// Close drops the connection and ends the exit channels; the supervisor and its containers go on.
func (l *Link) Close() error {
	l.mu.Lock()
	close(l.closing)
	conn := l.conn
	l.mu.Unlock()
	err := conn.Close()
	l.done.Wait()
	if l.kept != nil {
		l.kept.Close()
	}
	return err
}

func (l *Link) current() (connection, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return nil, fault.Unavailable("the supervisor is not connected")
	}
	return l.conn, nil
}

// Exits delivers the exit records of containers, ExecExits those of execs. Both must be read.
func (l *Link) Exits() <-chan runtime.Exit     { return l.containers }
func (l *Link) ExecExits() <-chan runtime.Exit { return l.execs }

// The calls are the client's.

func (l *Link) Create(ctx context.Context, req runtime.Create) (int, error) {
	c, err := l.current()
	if err != nil {
		return 0, err
	}
	return c.Create(ctx, req)
}

func (l *Link) Start(ctx context.Context, id string) error {
	return l.do(func(c connection) error { return c.Start(ctx, id) })
}

func (l *Link) Exec(ctx context.Context, req runtime.Exec, attach *runtime.Attach) (int, *net.UnixConn, error) {
	c, err := l.current()
	if err != nil {
		return 0, nil, err
	}
	return c.Exec(ctx, req, attach)
}

func (l *Link) Attach(ctx context.Context, req runtime.Attach) (*net.UnixConn, error) {
	c, err := l.current()
	if err != nil {
		return nil, err
	}
	return c.Attach(ctx, req)
}

func (l *Link) Signal(ctx context.Context, ref runtime.Ref, sig int) error {
	return l.do(func(c connection) error { return c.Signal(ctx, ref, sig) })
}

func (l *Link) Resize(ctx context.Context, ref runtime.Ref, width, height uint16) error {
	return l.do(func(c connection) error { return c.Resize(ctx, ref, width, height) })
}

func (l *Link) Pause(ctx context.Context, id string) error {
	return l.do(func(c connection) error { return c.Pause(ctx, id) })
}

func (l *Link) Resume(ctx context.Context, id string) error {
	return l.do(func(c connection) error { return c.Resume(ctx, id) })
}

func (l *Link) Delete(ctx context.Context, id string) error {
	return l.do(func(c connection) error { return c.Delete(ctx, id) })
}

func (l *Link) Collect(ctx context.Context, ref runtime.Ref) error {
	return l.do(func(c connection) error { return c.Collect(ctx, ref) })
}

func (l *Link) State(ctx context.Context, id string) (runtime.State, error) {
	c, err := l.current()
	if err != nil {
		return runtime.State{}, err
	}
	return c.State(ctx, id)
}

// List is asked again where the connection breaks under it: a supervisor that was killed may take one more on its way out.
func (l *Link) List(ctx context.Context) ([]runtime.State, error) {
	for {
		l.mu.Lock()
		c, next := l.conn, l.next
		l.mu.Unlock()
		states, err := c.List(ctx)
		if !errdefs.IsUnavailable(err) || !ended(c) {
			return states, err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, err
		case <-l.closing:
			return nil, err
		}
	}
}

// ended tells whether a connection is over.
func ended(c connection) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

func (l *Link) do(f func(connection) error) error {
	c, err := l.current()
	if err != nil {
		return err
	}
	return f(c)
}
