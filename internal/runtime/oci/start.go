package oci

import (
	"flag"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
)

func start(g *global, fs *flag.FlagSet, args []string) (int, error) {
	if err := parse(fs, args, 1, 1); err != nil {
		return 1, err
	}
	r, dir, err := g.load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	switch r.Status {
	case specs.StateCreated:
	case specs.StateStopped:
		return 1, fault.Conflict("cannot start a container that has stopped")
	default:
		return 1, fault.Conflict("cannot start an already running container")
	}
	s, err := r.spec(dir)
	if err != nil {
		return 1, err
	}
	host, err := launch.Host()
	if err != nil {
		return 1, err
	}
	p, err := plan.CompileWith(s, nil, host, r.Options)
	if err != nil {
		return 1, err
	}
	pidfd, err := unix.PidfdOpen(r.Pid, 0)
	if err != nil || !alive(r.Pid, r.StartTime) {
		return 1, fault.Conflict("cannot start a container that has stopped")
	}
	defer unix.Close(pidfd)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 1, fault.Internal("cannot make a socket: %w", err)
	}
	if err := atSocket(dir, func(a unix.Sockaddr) error { return unix.Connect(fd, a) }); err != nil {
		unix.Close(fd)
		return 1, fault.Conflict("container %s does not wait for start: %w", r.ID, err)
	}
	child := launch.Resume(p, fd)
	defer child.Close()
	// From here on the container counts as started, even if this process dies.
	_ = os.Remove(filepath.Join(dir, socketFile))
	if err := g.started(child, pidfd, s, r); err != nil {
		g.abandon(s, r, dir, pidfd)
		return 1, err
	}
	return 0, nil
}

// started says go, and is back once the program runs and the hooks for that have run.
func (g *global) started(child *launch.Process, pidfd int, s *specs.Spec, r *record) error {
	if err := child.Go(); err != nil {
		return err
	}
	if _, err := g.follow(child, pidfd, s, r, specs.StateCreated); err != nil {
		return err
	}
	if s.Hooks != nil {
		return g.runHooks("poststart", s.Hooks.Poststart, r.state(specs.StateRunning))
	}
	return nil
}

// abandon destroys a container that could not be started (runtime.md, "Lifecycle", steps 7 to 9). One
// whose program could not be executed ends by itself, and is left for delete: the caller may ask for that at once.
func (g *global) abandon(s *specs.Spec, r *record, dir string, pidfd int) {
	byItself := s.Hooks == nil || len(s.Hooks.StartContainer)+len(s.Hooks.Poststart) == 0
	if !byItself {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(killLimit.Milliseconds()))
	if byItself {
		return
	}
	if err := g.delete(r, dir); err != nil {
		g.warn("%v", err)
	}
}
