package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/engine/logs"
	"tare/internal/runtime"
)

// Attach connects to a container's streams. One that does not run yet is attached to from its next start on, before its program
// runs, so that no output is missed; the stream ends when the container is removed instead.
func (s *Service) Attach(ctx context.Context, ref string, o AttachOptions) (*Stream, error) {
	e, err := s.index.find(ref)
	if err != nil {
		return nil, err
	}
	keys, err := ParseDetachKeys(o.DetachKeys)
	if err != nil {
		return nil, err
	}
	rec := e.snapshot()
	switch rec.State.Status {
	case container.StatePaused:
		return nil, fault.Conflict("container %s is paused, unpause the container before attach", refName(ref))
	case container.StateRestarting:
		return nil, fault.Conflict("container %s is restarting, wait until the container is running", refName(ref))
	}
	out := &Stream{Terminal: rec.Config.Tty, DetachKeys: keys}
	if o.Logs {
		if path := s.logPath(rec); path != "" {
			out.Past = past(ctx, path, rec.Config.Tty, o)
		}
	}
	if o.Stream {
		req := runtime.Attach{Ref: runtime.Ref{Container: e.id}, Stdin: o.Stdin && rec.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr}
		if out.Conn, err = s.stream(ctx, e, req); err != nil {
			return nil, err
		}
	}
	e.publish("attach")
	return out, nil
}

// stream attaches to the running process, or leaves word for the next start.
func (p *parts) stream(ctx context.Context, e *entry, req runtime.Attach) (*net.UnixConn, error) {
	e.mu.Lock()
	running := e.rec.State.running()
	if !running {
		defer e.mu.Unlock()
		if e.gone {
			return nil, fault.NotFound("No such container: %s", e.id)
		}
		theirs, ours, err := socketPair()
		if err != nil {
			return nil, err
		}
		e.pending = append(e.pending, pendingAttach{req, ours})
		return theirs, nil
	}
	e.mu.Unlock()
	return p.cfg.Runtime.Attach(ctx, req)
}

// connectPending joins the clients that came before the start to the process, which waits before its exec.
func (l *launcher) connectPending(ctx context.Context, e *entry) {
	for _, p := range e.takePending() {
		conn, err := l.cfg.Runtime.Attach(ctx, p.req)
		if err != nil {
			p.conn.Close()
			continue
		}
		go pump(p.conn, conn, p.req.Stdin)
	}
}

// pump copies between the client's end and the process's, both directions, until the output ends or the client goes.
func pump(client, process *net.UnixConn, stdin bool) {
	go func() {
		io.Copy(process, client)
		if hungUp(client) || !stdin { // detached: the process's stdin stays as it is
			process.Close()
			return
		}
		process.CloseWrite()
	}()
	io.Copy(client, process)
	process.Close()
	client.Close()
}

// hungUp tells a closed peer from one that ended only its writing.
func hungUp(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 0); err == nil {
			gone = p[0].Revents&unix.POLLHUP != 0
		}
	})
	return gone
}

func socketPair() (a, b *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "attach")
		defer f.Close()
		c, e := net.FileConn(f)
		if e != nil {
			err = e
			return nil
		}
		return c.(*net.UnixConn)
	}
	a, b = conn(fds[0]), conn(fds[1])
	return a, b, err
}

// past streams what the log has, in the attach format.
func past(ctx context.Context, path string, tty bool, o AttachOptions) io.Reader {
	r, w := io.Pipe()
	go func() {
		err := logs.Read(ctx, path, logs.Options{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1}, func(x logs.Entry) error {
			if !tty {
				header := [8]byte{1}
				if x.Stream == "stderr" {
					header[0] = 2
				}
				binary.BigEndian.PutUint32(header[4:], uint32(len(x.Line)))
				if _, err := w.Write(header[:]); err != nil {
					return err
				}
			}
			_, err := w.Write(x.Line)
			return err
		})
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		w.CloseWithError(err)
	}()
	return r
}

// ParseDetachKeys reads "ctrl-p,ctrl-q" or "a,ctrl-c"; "" is Docker's default, ctrl-p ctrl-q.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte{16, 17}, nil
	}
	var out []byte
	for key := range strings.SplitSeq(s, ",") {
		if rest, ok := strings.CutPrefix(key, "ctrl-"); ok && len(rest) == 1 {
			c := rest[0]
			switch {
			case c >= 'a' && c <= 'z':
				out = append(out, c-'a'+1)
				continue
			case strings.IndexByte("@[\\]^_", c) >= 0:
				out = append(out, c-'@')
				continue
			}
		}
		if len(key) != 1 {
			return nil, fault.Invalid("Invalid detach keys (%s) provided", s)
		}
		out = append(out, key[0])
	}
	return out, nil
}

// Resize sets the size of a running container's terminal, in characters.
func (s *Service) Resize(ctx context.Context, ref string, width, height uint16) error {
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	if !e.snapshot().State.running() {
		// The stock client resizes right after the start, which may not be through: wait for it.
		e.mu.Lock()
		starting := e.starting()
		e.mu.Unlock()
		if starting && e.lock(ctx) == nil {
			e.unlock()
		}
		if !e.snapshot().State.running() {
			return fault.Conflict("container %s is not running", e.id)
		}
	}
	if err := s.cfg.Runtime.Resize(ctx, runtime.Ref{Container: e.id}, width, height); err != nil {
		return fmt.Errorf("cannot resize the terminal of container %s: %w", refName(ref), err)
	}
	e.publish("resize", "height", fmt.Sprint(height), "width", fmt.Sprint(width))
	return nil
}
