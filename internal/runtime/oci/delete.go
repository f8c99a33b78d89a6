package oci

import (
	"errors"
	"flag"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup"
)

// killLimit is how long delete waits for killed processes to end.
const killLimit = 10 * time.Second

func remove(g *global, fs *flag.FlagSet, args []string) (int, error) {
	force := fs.Bool("force", false, "kill it if it runs; a missing container is fine")
	fs.BoolVar(force, "f", false, "short for --force")
	if err := parse(fs, args, 1, 1); err != nil {
		return 1, err
	}
	r, dir, err := g.load(fs.Arg(0))
	if err != nil {
		if path, perr := g.dir(fs.Arg(0)); *force && perr == nil {
			// Perhaps a create that was killed before it wrote the state.
			return 0, os.RemoveAll(path)
		}
		return 1, err
	}
	// One that waits for start is not running yet.
	if r.Status != specs.StateStopped && r.Status != specs.StateCreated && !*force {
		return 1, fault.Conflict("cannot delete container %s that is not stopped: %s", r.ID, r.Status)
	}
	return 0, g.delete(r, dir)
}

// poststop runs the hooks that come last. What fails is told, and stops nothing.
func (g *global) poststop(s *specs.Spec, r *record) {
	if s == nil || s.Hooks == nil {
		return
	}
	state := r.state(specs.StateStopped)
	state.Pid = 0
	for i := range s.Hooks.Poststop {
		if err := g.runHooks("poststop", s.Hooks.Poststop[i:i+1], state); err != nil {
			g.warn("%v", err)
		}
	}
}

// delete ends what is left of the container and forgets it.
func (g *global) delete(r *record, dir string) error {
	group, err := cgroup.Open(r.Cgroup)
	if err != nil {
		return err
	}
	if r.Pid != 0 {
		if err := r.killInit(group); err != nil {
			return err
		}
	}
	// Without a pid namespace of its own the container's processes outlive its init.
	for deadline := time.Now().Add(killLimit); ; time.Sleep(time.Millisecond) {
		pids, err := group.Pids()
		if err != nil || len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fault.Unavailable("processes of container %s don't end", r.ID)
		}
		_ = group.Thaw()
		if err := r.signalAll(unix.SIGKILL); err != nil {
			break
		}
	}
	if err := group.Remove(); err != nil {
		return err
	}
	s, specErr := r.spec(dir)
	if err := os.RemoveAll(dir); err != nil {
		return fault.Internal("cannot remove the state of container %s: %w", r.ID, err)
	}
	if specErr == nil {
		g.poststop(s, r)
	}
	return nil
}

// killInit kills the init and waits until it is gone.
func (r *record) killInit(group *cgroup.Group) error {
	fd, err := unix.PidfdOpen(r.Pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if !alive(r.Pid, r.StartTime) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fault.Internal("cannot kill container %s: %w", r.ID, err)
	}
	if group.Frozen() {
		_ = group.Thaw()
	}
	deadline := time.Now().Add(killLimit)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fault.Internal("cannot wait for container %s: %w", r.ID, err)
		case time.Now().After(deadline):
			return fault.Unavailable("the init of container %s does not end", r.ID)
		}
	}
}
