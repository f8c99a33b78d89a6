// Package execute runs the programs of RUN steps: a process with an overlay root, in the default
// sandbox, with a network. It is no container: it has no record, no name and no log, and what a killed engine
// left of it is ended at the next start (Recover), by its id's prefix.
package execute

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sync/errgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/trace"
	tarenetwork "tare/internal/network"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// Prefix starts the id of every build step's process.
const Prefix = "build-"

// Runtime is what steps need of the supervisor.
type Runtime interface {
	Create(ctx context.Context, req runtime.Create) (pid int, err error)
	Start(ctx context.Context, id string) error
	Attach(ctx context.Context, req runtime.Attach) (*net.UnixConn, error) // output in Docker's multiplexed frames
	Signal(ctx context.Context, ref runtime.Ref, sig int) error
	Delete(ctx context.Context, id string) error
	State(ctx context.Context, id string) (runtime.State, error)
	List(ctx context.Context) ([]runtime.State, error)
}

// Networks is what steps need of the network box.
type Networks interface {
	Prepare(ctx context.Context, j tarenetwork.Join) (*tarenetwork.Joined, error)
	Join(ctx context.Context, j tarenetwork.Join) (*tarenetwork.Joined, error)
	Leave(ctx context.Context, container string) error
}

// Executor runs steps. Safe for concurrent use.
type Executor struct {
	Runtime      Runtime
	Networks     Networks
	CgroupParent string // "/tare/<instance>"
}

// Process is one step's program.
type Process struct {
	Dir      string // an empty folder of the step's own, for the bundle
	Root     runtime.Overlay
	Args     []string
	Env      []string
	Cwd      string
	User     specs.User
	Network  string       // "", "host", "none" or a network's name
	DNS      []netip.Addr // none: the network's
	Hosts    []string     // "name:address"
	Mounts   []specs.Mount
	ShmSize  int64 // bytes, 0: 64 MiB
	Insecure bool  // all capabilities and devices, no seccomp, nothing masked
	Rlimits  []specs.POSIXRlimit
	Limits   *specs.LinuxResources // nil: none
}

// Run runs p to its end, hands its output (stdout and stderr as they come) to out and returns its exit code.
// When ctx ends the program is killed. Nothing of it is left when Run returns.
func (e *Executor) Run(ctx context.Context, p Process, out io.Writer) (code int, err error) {
	id := Prefix + ids.New()
	if err := e.writeBundle(id, p); err != nil {
		return 0, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if ended := e.end(end, id); ended != nil && err == nil {
			err = fmt.Errorf("cannot remove a build step's process: %w", ended)
		}
		e.Networks.Leave(end, id)
	}()
	join := e.join(id, p)
	var steps errgroup.Group
	beside := trace.Beside(ctx)
	steps.Go(func() error {
		if _, err := e.Networks.Prepare(beside, join); err != nil {
			return fmt.Errorf("failed to set up container networking: %w", err)
		}
		return nil
	})
	pid, err := e.Runtime.Create(trace.Beside(ctx), runtime.Create{ID: id, Bundle: p.Dir, Rootfs: &p.Root, Stdio: runtime.Stdio{Log: runtime.Log{Driver: "none"}}})
	if err != nil {
		steps.Wait()
		return 0, execFault(err)
	}
	if err := steps.Wait(); err != nil {
		return 0, err
	}
	join.Pid = pid
	joined, err := e.Networks.Join(ctx, join)
	if err != nil {
		return 0, fmt.Errorf("failed to set up container networking: %w", err)
	}
	for name, data := range map[string][]byte{"resolv.conf": joined.ResolvConf, "hosts": joined.Hosts} {
		if err := os.WriteFile(filepath.Join(p.Dir, name), data, 0o644); err != nil {
			return 0, err
		}
	}
	ref := runtime.Ref{Container: id}
	stream, err := e.Runtime.Attach(ctx, runtime.Attach{Ref: ref, Stdout: true, Stderr: true})
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() {
		e.Runtime.Signal(context.WithoutCancel(ctx), ref, int(syscall.SIGKILL))
		stream.Close()
	})
	defer stop()
	if err := e.Runtime.Start(ctx, id); err != nil {
		return 0, execFault(err)
	}
	err = demux(stream, out)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("lost the output of a build step: %w", err)
	}
	exit, err := e.exit(ctx, id)
	if err != nil {
		return 0, err
	}
	trace.Step(ctx, "runtime", "exit", "container", id)
	return exit.Code, nil
}

// exit waits until the process, whose output has ended, is known to have.
func (e *Executor) exit(ctx context.Context, id string) (*runtime.Exit, error) {
	pause := 500 * time.Microsecond
	for {
		s, err := e.Runtime.State(ctx, id)
		if err != nil {
			return nil, err
		}
		if s.Status == runtime.Stopped {
			if s.Exit == nil {
				return nil, fault.Internal("the exit code of a build step is not known")
			}
			return s.Exit, nil
		}
		// Only a process that closed its output and lives on comes here more than once.
		select {
		case <-time.After(pause):
			pause = min(2*pause, 100*time.Millisecond)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// end kills what may still run and lets the supervisor forget it.
func (e *Executor) end(ctx context.Context, id string) error {
	s, err := e.Runtime.State(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.Status != runtime.Stopped && s.Status != runtime.Created {
		if err := e.Runtime.Signal(ctx, runtime.Ref{Container: id}, int(syscall.SIGKILL)); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			return err
		}
		if _, err := e.exit(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if err := e.Runtime.Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// Recover ends what a killed engine left running.
func (e *Executor) Recover(ctx context.Context) error {
	all, err := e.Runtime.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range all {
		if strings.HasPrefix(s.ID, Prefix) {
			errs = append(errs, e.end(ctx, s.ID), e.Networks.Leave(ctx, s.ID))
		}
	}
	return errors.Join(errs...)
}

func (e *Executor) join(id string, p Process) tarenetwork.Join {
	name := p.Network
	if name == "" || name == "default" {
		name = "bridge"
	}
	short := Prefix + ids.Short(strings.TrimPrefix(id, Prefix))
	return tarenetwork.Join{Container: id, Name: short, Hostname: hostname, DNS: p.DNS, ExtraHosts: p.Hosts,
		Endpoints: map[string]*network.EndpointSettings{name: {}}}
}

// demux copies Docker's frames to out until the end.
func demux(r io.Reader, out io.Writer) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := io.CopyN(out, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}

// execFault says in Docker's words why a program could not be executed.
func execFault(err error) error {
	var x *client.ExecError
	if !errors.As(err, &x) {
		return fmt.Errorf("failed to create task for container: %w", err)
	}
	why := x.Err.Error()
	switch {
	case errors.Is(x.Err, syscall.ENOENT) && !strings.Contains(x.Program, "/"):
		why = "executable file not found in $PATH"
	case errors.Is(x.Err, syscall.ENOENT):
		why = "stat " + x.Program + ": no such file or directory"
	case errors.Is(x.Err, syscall.EACCES):
		why = "permission denied"
	}
	return fault.Invalid("failed to create task for container: exec: %q: %s: unknown", x.Program, why)
}

func (e *Executor) writeBundle(id string, p Process) error {
	s, err := e.spec(id, p)
	if err != nil {
		return err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"config.json": data, "hosts": nil, "resolv.conf": nil} {
		if err := os.WriteFile(filepath.Join(p.Dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// MountPoints lists where a step's root has mounts on it: their places may have to be made, and then don't belong to the result.
func MountPoints(p Process) ([]string, error) {
	s, err := (&Executor{}).spec(Prefix, p)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range s.Mounts {
		out = append(out, filepath.Clean(m.Destination))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
