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
	p, err := plan.Compile(s, nil, host)
	if err != nil {
		return 1, err
	}
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
	return 0, goAndReport(child)
}

func goAndReport(child *launch.Process) error {
	if err := child.Go(); err != nil {
		return err
	}
	m, err := child.Next()
	if err != nil {
		return err
	}
	return m.Err
}
