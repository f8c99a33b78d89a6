package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"golang.org/x/term"

	"tare/internal/cli/command"
)

// session joins this program's streams to a process's.
type session struct {
	env        *command.Env
	stream     client.HijackedResponse
	tty        bool // the process has a terminal: its output is raw
	stdin      bool // forward ours
	stdout     bool
	stderr     bool
	detachKeys string
	detached   atomic.Bool // the person typed the detach keys
}

// errDetached says that the person typed the detach keys. The words are Docker's.
var errDetached = errors.New("read escape sequence")

// raw puts our terminal into raw mode, if the process has one too; the returned function undoes it.
func (s *session) raw() (func(), error) {
	if !s.tty || !s.stdin || !s.env.StdinTTY() {
		return func() {}, nil
	}
	fd := int(s.env.Stdin.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("cannot set the terminal to raw mode: %w", err)
	}
	return func() { _ = term.Restore(fd, old) }, nil
}

// copy forwards until the process's output ends. Output that the process wrote is all printed when it returns.
func (s *session) copy(ctx context.Context) error {
	restore, err := s.raw()
	if err != nil {
		return err
	}
	defer restore()
	if s.stdin {
		keys, err := parseKeys(s.detachKeys)
		if err != nil {
			return err
		}
		if !s.tty {
			keys = nil
		}
		go func() {
			// The engine sees the keys too and closes the stream; seeing them here tells a detach from an end.
			_, _ = io.Copy(s.stream.Conn, &keyReader{r: s.env.Stdin, keys: keys, typed: func() { s.detached.Store(true) }})
			_ = s.stream.CloseWrite()
		}()
	}
	done := make(chan error, 1)
	go func() { done <- s.output() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		s.stream.Close()
		return ctx.Err()
	}
}

func (s *session) output() error {
	var stdout, stderr io.Writer = io.Discard, io.Discard
	if s.stdout {
		stdout = s.env.Stdout
	}
	if s.stderr {
		stderr = s.env.Stderr
	}
	var err error
	if s.tty {
		_, err = io.Copy(stdout, s.stream.Reader)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, s.stream.Reader)
	}
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe) {
		err = nil
	}
	return err
}

// followSize tells the process the size of our terminal, now and whenever it changes, until ctx ends.
func followSize(ctx context.Context, env *command.Env, resize func(ctx context.Context, width, height uint) error) {
	if !env.StdoutTTY() {
		return
	}
	set := func() {
		w, h, err := term.GetSize(int(env.Stdout.Fd()))
		if err == nil && w > 0 && h > 0 {
			_ = resize(ctx, uint(w), uint(h))
		}
	}
	set()
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		defer signal.Stop(changed)
		for {
			select {
			case <-changed:
				set()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// otherSignals is when those signals are taken that nobody sends a program that has just been started. Go
// takes them one by one, which is milliseconds for all.
const otherSignals = 50 * time.Millisecond

// forwardSignals sends every signal that this program gets to the container, until stop is called, which is at the program's end.
func forwardSignals(ctx context.Context, env *command.Env, c *client.Client, id string) (stop func()) {
	got := make(chan os.Signal, 16)
	signal.Notify(got, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGTSTP, syscall.SIGUSR1, syscall.SIGUSR2)
	others := time.AfterFunc(otherSignals, func() { signal.Notify(got) })
	env.TakeSignals()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-got:
				sig, ok := s.(syscall.Signal)
				switch {
				case !ok:
				case sig == syscall.SIGCHLD, sig == syscall.SIGPIPE, sig == syscall.SIGURG, sig == syscall.SIGWINCH,
					sig == syscall.SIGTTIN, sig == syscall.SIGTTOU:
				default:
					_, _ = c.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: fmt.Sprint(int(sig))})
				}
			case <-done:
				return
			}
		}
	}()
	return func() { others.Stop(); close(done) }
}
