package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/wire"
)

// Options say which supervisor to use.
type Options struct {
	Program  string // path of tare-run
	ExecRoot string // the socket is ExecRoot/supervisor.sock, the pid file beside it
	Instance string // the engine's instance name: part of the process title and of cgroup paths
	LogFile  string // where a new supervisor's own messages go; "": nowhere
	Kept     *Kept  `json:"-"` // holds what a killed supervisor's successor needs; nil: it has to do without
	// OnOOM is told of a container of which the kernel killed a process for want of memory. It must not wait.
	OnOOM func(container string) `json:"-"`
}

// startTime is how long a new supervisor may take to answer.
const startTime = 20 * time.Second

// Ensure connects to the supervisor of opts.ExecRoot and starts one, detached
// from this process's session and cgroup, where none answers. Of several engines that do so at
// once each gets the same one: a supervisor holds a lock in the exec root, and a
// second one ends at once.
//
// A supervisor that is of another build than opts.Program is told to upgrade itself; if it cannot, it goes on as it is. One that follows a
// killed one takes over what that ran before Ensure returns.
func Ensure(ctx context.Context, opts Options) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := os.MkdirAll(opts.ExecRoot, 0o711); err != nil {
		return nil, fault.Internal("cannot make exec root: %w", err)
	}
	for {
		c, err := connect(ctx, opts)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			return nil, fault.Unavailable("cannot connect to the supervisor: %w", err)
		}
		if ctx.Err() != nil {
			return nil, fault.Unavailable("the supervisor does not start: %w", ctx.Err())
		}
		// If another one is about to answer, ours ends at once and the next turn finds it.
		if err := start(ctx, opts); err != nil && !errors.Is(err, errBusy) {
			return nil, err
		}
	}
}

func connect(ctx context.Context, opts Options) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(opts.ExecRoot, wire.SocketName))
	if err != nil {
		return nil, err
	}
	c := newClient(conn.(*net.UnixConn), opts)
	if err := c.meet(ctx, opts); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// meet settles with the supervisor what was before this connection.
func (c *Client) meet(ctx context.Context, opts Options) error {
	var hello wire.HelloBody
	if _, err := c.call(ctx, wire.Hello, nil, &hello); err != nil {
		return err
	}
	if ours, err := wire.Identify(opts.Program); err == nil && ours != hello.Program {
		if err := c.upgrade(ctx, opts.Program, hello.Format); err != nil {
			slog.Warn("the supervisor stays as it is", "error", err)
		}
	}
	if c.kept != nil {
		for _, item := range c.kept.begin(hello.Life) {
			if !hello.Recovered {
				if _, err := c.call(ctx, wire.Adopt, wire.KeepBody{State: item.state}, nil, item.fds...); err != nil {
					slog.Error("cannot give back to the supervisor what was kept for it", "error", err)
				}
			}
			closeFDs(item.fds)
		}
	}
	if !hello.Recovered {
		if _, err := c.call(ctx, wire.Recover, nil, nil); err != nil {
			return err
		}
	}
	_, err := c.call(ctx, wire.Watch, wire.WatchBody{Keep: c.kept != nil}, nil)
	if err == nil && c.kept != nil {
		c.kept.settle()
	}
	return err
}

// upgrade has the supervisor execute program in its place, if that understands what it would be handed.
func (c *Client) upgrade(ctx context.Context, program string, format int) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, program, "supervise", "--understands", strconv.Itoa(format)).CombinedOutput(); err != nil {
		return fault.Unavailable("%s cannot take over from the running supervisor: %w %s", program, err, out)
	}
	return c.Upgrade(ctx, program)
}

// errBusy says that the exec root has a supervisor already.
var errBusy = errors.New("another supervisor holds the lock")

// start runs a supervisor and returns when it answers.
func start(ctx context.Context, opts Options) error {
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if opts.LogFile != "" {
		if err == nil {
			out.Close()
		}
		out, err = os.OpenFile(opts.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	}
	if err != nil {
		return fault.Internal("cannot open the supervisor's log: %w", err)
	}
	defer out.Close()
	ready, theirs, err := os.Pipe()
	if err != nil {
		return fault.Internal("cannot start the supervisor: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(opts.Program, "supervise", "--exec-root", opts.ExecRoot, "--instance", opts.Instance, "--ready", strconv.Itoa(3))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fault.Internal("cannot start the supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := ready.Read(make([]byte, 1))
	switch {
	case n == 1:
		go func() { _ = cmd.Wait() }() // it may end before us
		return nil
	case errors.Is(err, io.EOF):
		if err = cmd.Wait(); cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == wire.ExitBusy {
			return errBusy
		}
		return fault.Unavailable("the supervisor does not start: %v; its log is %s", err, out.Name())
	default:
		_ = cmd.Process.Kill()
		go func() { _ = cmd.Wait() }()
		return fault.Unavailable("the supervisor does not start: %w", err)
	}
}
