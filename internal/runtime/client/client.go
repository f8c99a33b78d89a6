// Package client is the engine's end of the supervisor's socket.
//
// The connection is one unix stream socket; calls are multiplexed on it, exit
// records arrive on it unasked. When the connection is lost, every open call
// fails with Unavailable and Done is closed; the owner then calls Ensure again.
package client

import (
	"context"
	"net"
	"os"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// Options say which supervisor to use.
type Options struct {
	Program  string // path of tare-run
	ExecRoot string // the socket is ExecRoot/supervisor.sock, the pid file beside it
	Instance string // the engine's instance name: part of the process title and of cgroup paths
	LogFile  string // where a new supervisor's own messages go
}

// Client is a connection to the supervisor. Its methods are safe for concurrent use.
type Client struct{}

// Ensure connects to the supervisor of opts.ExecRoot and starts one, detached
// from this process's session and cgroup, where none answers.
func Ensure(ctx context.Context, opts Options) (*Client, error) {
	return nil, fault.Unsupported("supervisor client is not built yet")
}

// Close drops the connection; the supervisor and its containers go on.
func (c *Client) Close() error { return nil }

// Done is closed when the connection is lost.
func (c *Client) Done() <-chan struct{} { return nil }

// Create makes the container's namespaces, mounts and cgroup and returns the
// host pid of its process, which waits for Start. After an error nothing is left.
func (c *Client) Create(ctx context.Context, req runtime.Create) (pid int, err error) {
	return 0, fault.Unsupported("")
}

// Start lets the process exec and returns once it did. If the exec fails the
// error is an *ExecError; the container is then stopped and wants Delete.
func (c *Client) Start(ctx context.Context, id string) error { return fault.Unsupported("") }

// Exec starts a further process and returns its host pid once it has exec'ed. Clients that
// must not miss output pass attach: the stream is then connected before the exec.
func (c *Client) Exec(ctx context.Context, req runtime.Exec, attach *runtime.Attach) (pid int, stream *net.UnixConn, err error) {
	return 0, nil, fault.Unsupported("")
}

// Attach connects to a process's streams, before Start or while it runs. What is
// written to the stream goes to stdin (CloseWrite ends it); what is read is, with a
// terminal, its raw output, else Docker's multiplexed frames: one byte 1 (stdout)
// or 2 (stderr), three zero bytes, a big-endian uint32 length, the data. All
// output written before the exit comes before EOF. A client that does not read
// makes the process wait, after 1 MiB.
func (c *Client) Attach(ctx context.Context, req runtime.Attach) (*net.UnixConn, error) {
	return nil, fault.Unsupported("")
}

// Signal sends sig to one process (its init for a container).
func (c *Client) Signal(ctx context.Context, ref runtime.Ref, sig int) error {
	return fault.Unsupported("")
}

// Resize sets the size of a process's terminal.
func (c *Client) Resize(ctx context.Context, ref runtime.Ref, width, height uint16) error {
	return fault.Unsupported("")
}

// Pause freezes the container's cgroup, Resume thaws it.
func (c *Client) Pause(ctx context.Context, id string) error  { return fault.Unsupported("") }
func (c *Client) Resume(ctx context.Context, id string) error { return fault.Unsupported("") }

// Delete forgets a stopped or created container (a created one is killed first)
// and removes its cgroup. It is idempotent.
func (c *Client) Delete(ctx context.Context, id string) error { return fault.Unsupported("") }

// State returns what is known of one container, NotFound if nothing is.
func (c *Client) State(ctx context.Context, id string) (runtime.State, error) {
	return runtime.State{}, fault.Unsupported("")
}

// List returns all containers that were not deleted.
func (c *Client) List(ctx context.Context) ([]runtime.State, error) {
	return nil, fault.Unsupported("")
}

// Exits delivers exit records: first all that the supervisor still keeps, then
// new ones as they happen. A record is kept, over engine restarts too, until
// Delete (containers) or Collect (execs). The channel closes with Done.
func (c *Client) Exits() <-chan runtime.Exit { return nil }

// Collect lets the supervisor forget an exec's exit record.
func (c *Client) Collect(ctx context.Context, ref runtime.Ref) error { return fault.Unsupported("") }

// Shutdown ends a supervisor that has no containers left; Conflict while it has some.
func (c *Client) Shutdown(ctx context.Context) error { return fault.Unsupported("") }

// ExecError says why the container's program could not be executed. Its class is
// Invalid, and Code is what a shell would exit with: 127 not found, 126 not executable.
type ExecError struct {
	Program string
	Err     error // an errno
	Code    int
}

func (e *ExecError) Error() string {
	return "cannot execute " + e.Program + " in the container: " + e.Err.Error()
}
func (e *ExecError) Unwrap() error { return e.Err }

var _ = os.Getpid
