package client

import (
	"context"
	"errors"
	"net"
	"os"

	"tare/internal/base/fault"
	"tare/internal/base/trace"
	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// Create makes the container's namespaces, mounts and cgroup and returns the
// host pid of its process, which waits for Start. After an error nothing is left.
func (c *Client) Create(ctx context.Context, req runtime.Create) (pid int, err error) {
	trace.Step(ctx, "runtime", "create", "container", req.ID)
	var res wire.Pid
	_, err = c.call(ctx, wire.Create, req, &res)
	if err != nil && errors.Is(err, ctx.Err()) {
		// It may come into being yet: take it back. Nobody waits for the answer.
		_ = c.send(&wire.Message{Op: wire.Delete, Body: wire.Body(runtime.Ref{Container: req.ID})})
	}
	return res.Pid, err
}

// Start lets the process exec and returns once it did. If the exec fails the
// error is an *ExecError; the container is then stopped and wants Delete.
func (c *Client) Start(ctx context.Context, id string) error {
	trace.Step(ctx, "runtime", "start", "container", id)
	_, err := c.call(ctx, wire.Start, runtime.Ref{Container: id}, nil)
	return err
}

// Exec starts a further process and returns its host pid once it has exec'ed. Clients that
// must not miss output pass attach: the stream is then connected before the exec.
// After an *ExecError, or any other, nothing is left and no exit record comes.
func (c *Client) Exec(ctx context.Context, req runtime.Exec, attach *runtime.Attach) (pid int, stream *net.UnixConn, err error) {
	trace.Step(ctx, "runtime", "exec", "exec", req.Ref.Exec)
	var res wire.Pid
	file, err := c.call(ctx, wire.Exec, wire.ExecBody{Exec: req, Attach: attach}, &res)
	if err != nil {
		return 0, nil, err
	}
	if attach != nil {
		if stream, err = toStream(file); err != nil {
			return 0, nil, err
		}
	}
	return res.Pid, stream, nil
}

// Attach connects to a process's streams, before Start or while it runs. What is
// written to the stream goes to stdin (CloseWrite ends it, if Stdio.StdinOnce or
// for an exec; a terminal's never ends); what is read is, with a
// terminal, its raw output, else Docker's multiplexed frames: one byte 1 (stdout)
// or 2 (stderr), three zero bytes, a big-endian uint32 length, the data. All
// output written before the exit comes before EOF; a process that ended gives EOF at once.
// A client that does not read makes the process wait, after 1 MiB.
func (c *Client) Attach(ctx context.Context, req runtime.Attach) (*net.UnixConn, error) {
	trace.Step(ctx, "runtime", "attach", "container", req.Ref.Container)
	file, err := c.call(ctx, wire.Attach, req, nil)
	if err != nil {
		return nil, err
	}
	return toStream(file)
}

func toStream(file *os.File) (*net.UnixConn, error) {
	if file == nil {
		return nil, fault.Internal("supervisor: the stream is missing")
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fault.Internal("supervisor: %w", err)
	}
	stream, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fault.Internal("supervisor: the stream is no unix socket")
	}
	return stream, nil
}

// Signal sends sig to one process (its init for a container); Conflict if it has ended.
func (c *Client) Signal(ctx context.Context, ref runtime.Ref, sig int) error {
	trace.Step(ctx, "runtime", "signal", "container", ref.Container)
	_, err := c.call(ctx, wire.Signal, wire.SignalBody{Ref: ref, Signal: sig}, nil)
	return err
}

// Resize sets the size of a process's terminal.
func (c *Client) Resize(ctx context.Context, ref runtime.Ref, width, height uint16) error {
	_, err := c.call(ctx, wire.Resize, wire.ResizeBody{Ref: ref, Width: width, Height: height}, nil)
	return err
}

// Pause freezes the container's cgroup, Resume thaws it.
func (c *Client) Pause(ctx context.Context, id string) error {
	_, err := c.call(ctx, wire.Pause, runtime.Ref{Container: id}, nil)
	return err
}

// Resume thaws what Pause froze.
func (c *Client) Resume(ctx context.Context, id string) error {
	_, err := c.call(ctx, wire.Resume, runtime.Ref{Container: id}, nil)
	return err
}

// Delete forgets a stopped or created container (a created one is killed first)
// and removes its cgroup. It is idempotent; Conflict while the container runs.
func (c *Client) Delete(ctx context.Context, id string) error {
	trace.Step(ctx, "runtime", "delete", "container", id)
	_, err := c.call(ctx, wire.Delete, runtime.Ref{Container: id}, nil)
	return err
}

// State returns what is known of one container, NotFound if nothing is.
func (c *Client) State(ctx context.Context, id string) (runtime.State, error) {
	var st runtime.State
	_, err := c.call(ctx, wire.State, runtime.Ref{Container: id}, &st)
	return st, err
}

// List returns all containers that were not deleted, sorted by id.
func (c *Client) List(ctx context.Context) ([]runtime.State, error) {
	var all []runtime.State
	_, err := c.call(ctx, wire.List, nil, &all)
	return all, err
}

// Collect lets the supervisor forget an exec's exit record.
func (c *Client) Collect(ctx context.Context, ref runtime.Ref) error {
	trace.Step(ctx, "runtime", "collect", "exec", ref.Exec)
	_, err := c.call(ctx, wire.Collect, ref, nil)
	return err
}

// Upgrade has the supervisor execute another program in its place. Containers, streams and this connection go on; calls made
// meanwhile wait. Unavailable if it does not come to rest within ten seconds, or the program cannot be executed.
func (c *Client) Upgrade(ctx context.Context, program string) error {
	_, err := c.call(ctx, wire.Upgrade, wire.UpgradeBody{Program: program}, nil)
	return err
}

// Shutdown ends a supervisor that has no containers left; Conflict while it has some.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, wire.Shutdown, nil, nil)
	return err
}
