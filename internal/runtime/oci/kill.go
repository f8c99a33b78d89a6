package oci

import (
	"errors"
	"flag"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup"
)

func kill(g *global, fs *flag.FlagSet, args []string) (int, error) {
	all := fs.Bool("all", false, "to every process of the container")
	fs.BoolVar(all, "a", false, "short for --all")
	if err := parse(fs, args, 1, 2); err != nil {
		return 1, err
	}
	name := fs.Arg(1)
	if name == "" {
		name = "SIGTERM"
	}
	sig, err := parseSignal(name)
	if err != nil {
		return 1, err
	}
	r, dir, err := g.load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	if *all {
		return 0, r.signalAll(sig)
	}
	if r.Status == specs.StateStopped {
		return 1, fault.Conflict("container not running")
	}
	if sig == unix.SIGKILL && !r.ownPids(dir) {
		// Nobody else ends them when their init is gone.
		return 0, r.signalAll(sig)
	}
	if err := r.signalInit(sig); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return 1, fault.Conflict("container not running")
		}
		return 1, fault.Internal("cannot signal container %s: %w", r.ID, err)
	}
	return 0, nil
}

// ownPids tells whether the container made a pid namespace: its processes end with its init.
func (r *record) ownPids(dir string) bool {
	s, err := r.spec(dir)
	if err != nil || s.Linux == nil {
		return true
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			return n.Path == ""
		}
	}
	return false
}

func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fault.Invalid("unknown signal %q", s)
}

// signalAll signals everything in the container's cgroup.
func (r *record) signalAll(sig unix.Signal) error {
	group, err := cgroup.Open(r.Cgroup)
	if err != nil {
		return err
	}
	pids, err := group.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		// A pid that ends and is used again between these two lines is not a
		// worry: the descriptor is checked to be in the group still.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if still, err := group.Pids(); err == nil && contains(still, pid) {
			_ = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
		unix.Close(fd)
	}
	return nil
}

func contains(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}
