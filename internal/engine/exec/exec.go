// Package exec is POST /containers/{id}/exec and what follows: further processes in running containers.
//
// An exec is created (a wish, in memory only), started once, and kept for
// some minutes after its exit so that its code can be asked for. Execs don't survive a restart of the engine as records; their
// processes do, and end with their container.
package exec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/trace"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/engine/rootfs"
	"tare/internal/engine/spec"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// Runtime is what execs need of the supervisor.
type Runtime interface {
	Exec(ctx context.Context, req runtime.Exec, attach *runtime.Attach) (pid int, stream *net.UnixConn, err error)
	Signal(ctx context.Context, ref runtime.Ref, sig int) error
	Resize(ctx context.Context, ref runtime.Ref, width, height uint16) error
	Collect(ctx context.Context, ref runtime.Ref) error
	ExecExits() <-chan runtime.Exit // of execs; closed at the end
}

// containers is what execs need of the container service (its Access).
type containers interface {
	Target(ref string) (*enginecontainer.Target, error)
	Publish(id, action string, more ...string)
	AddExec(id, exec string)
	RemoveExec(id, exec string)
}

// keep is how long an exec is remembered after its exit, or if it is never started.
const keep = 5 * time.Minute

// Service is the execs of one engine. An exec is forgotten some minutes after its exit, or with its container.
type Service struct {
	runtime    Runtime
	containers containers

	mu    sync.Mutex // guards all below, and the fields of command that say so
	execs map[string]*command
	swept time.Time
	done  sync.WaitGroup
}

// command is one exec.
type command struct {
	id        string
	container string
	run       time.Time // the container's start: an exec belongs to one run
	req       container.ExecCreateRequest
	keys      []byte
	process   specs.Process
	created   time.Time

	// guarded by Service.mu
	started bool
	running bool
	early   *runtime.Exit // heard of before the start returned
	pid     int
	code    *int
	ended   time.Time
	exited  chan struct{}
}

// New makes the service and begins to take exit records.
func New(rt Runtime, c containers) *Service {
	s := &Service{runtime: rt, containers: c, execs: map[string]*command{}}
	s.done.Go(func() {
		for x := range rt.ExecExits() {
			s.exited(x)
		}
	})
	return s
}

// Close waits for the end of the exit records.
func (s *Service) Close() { s.done.Wait() }

// Create records what to execute. Conflict if the container does not run.
func (s *Service) Create(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error) {
	if len(req.Cmd) == 0 {
		return "", fault.Invalid("No exec command specified")
	}
	t, err := s.containers.Target(ref)
	if err != nil {
		return "", err
	}
	keys, err := enginecontainer.ParseDetachKeys(req.DetachKeys)
	if err != nil {
		return "", err
	}
	c := &command{id: ids.New(), container: t.ID, run: t.StartedAt, req: req, keys: keys, created: time.Now(), exited: make(chan struct{})}
	trace.Step(ctx, "engine", "create", "exec", c.id)
	if c.process, err = process(t, req); err != nil {
		return "", err
	}
	s.mu.Lock()
	s.sweep()
	s.execs[c.id] = c
	s.mu.Unlock()
	s.containers.AddExec(c.container, c.id)
	trace.Step(ctx, "engine", "event", "exec_create", c.id)
	s.containers.Publish(c.container, "exec_create: "+strings.Join(req.Cmd, " "), "execID", c.id)
	return c.id, nil
}

// process is the container's own, changed as asked.
func process(t *enginecontainer.Target, req container.ExecCreateRequest) (specs.Process, error) {
	p := t.Process
	p.Args, p.Terminal, p.ConsoleSize = req.Cmd, req.Tty, nil
	if req.WorkingDir != "" {
		if !strings.HasPrefix(req.WorkingDir, "/") {
			return p, fault.Invalid("the working directory '%s' is invalid, it needs to be an absolute path", req.WorkingDir)
		}
		p.Cwd = req.WorkingDir
	}
	env := slices.Clone(p.Env)
	if req.Tty && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		env = append(env, "TERM=xterm")
	}
	if req.User != "" {
		v, err := rootfs.Process(t.Pid)
		if err != nil {
			return p, fault.Conflict("container %s is not running", t.ID)
		}
		u, err := rootfs.LookUp(v.ReadFile, req.User, nil)
		v.Close()
		if err != nil {
			return p, err
		}
		p.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups, Umask: p.User.Umask}
		if !slices.ContainsFunc(t.Config.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
			env = spec.ReplaceEnv(env, []string{"HOME=" + u.Home})
		}
	}
	p.Env = spec.ReplaceEnv(env, req.Env)
	return withCapabilities(p, t, req)
}

// withCapabilities gives a privileged exec all, and a user other than root none that outlive execve.
func withCapabilities(p specs.Process, t *enginecontainer.Target, req container.ExecCreateRequest) (specs.Process, error) {
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	caps := *p.Capabilities
	if req.Privileged || t.Privileged {
		all, err := spec.Capabilities(nil, nil, true, spec.Host{Capabilities: t.Capabilities})
		if err != nil {
			return p, err
		}
		caps.Bounding = all
	}
	caps.Effective, caps.Permitted = nil, nil
	if p.User.UID == 0 {
		caps.Effective, caps.Permitted = caps.Bounding, caps.Bounding
	}
	p.Capabilities = &caps
	return p, nil
}

func (s *Service) find(id string) (*command, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.execs[id]
	if !ok {
		return nil, fault.NotFound("No such exec instance: %s", id)
	}
	return c, nil
}

// Start runs the exec; the stream is nil with Detach. Conflict if it was started before or the container is paused.
func (s *Service) Start(ctx context.Context, id string, req container.ExecStartRequest) (*enginecontainer.Stream, error) {
	c, err := s.find(id)
	if err != nil {
		return nil, err
	}
	t, err := s.containers.Target(c.container)
	if err != nil {
		return nil, err
	}
	if !t.StartedAt.Equal(c.run) {
		return nil, fault.Conflict("container %s was restarted since exec %s was created", c.container, id)
	}
	s.mu.Lock()
	if c.started {
		ended := c.code != nil
		s.mu.Unlock()
		if ended {
			return nil, fault.Conflict("exec command %s has already run", id)
		}
		return nil, fault.Conflict("exec command %s is already running", id)
	}
	c.started = true
	s.mu.Unlock()

	if !req.Detach && c.req.Tty != req.Tty {
		// The stock client sends the same value twice; the created one decides.
		req.Tty = c.req.Tty
	}
	stdio := runtime.Stdio{Terminal: c.req.Tty, OpenStdin: c.req.AttachStdin && !req.Detach, StdinOnce: true}
	for _, size := range []*[2]uint{c.req.ConsoleSize, req.ConsoleSize} {
		if size != nil && c.req.Tty {
			stdio.Height, stdio.Width = uint16(size[0]), uint16(size[1])
		}
	}
	ref := runtime.Ref{Container: c.container, Exec: c.id}
	var attach *runtime.Attach
	if !req.Detach {
		attach = &runtime.Attach{Ref: ref, Stdin: c.req.AttachStdin, Stdout: c.req.AttachStdout, Stderr: c.req.AttachStderr}
	}
	trace.Step(ctx, "engine", "event", "exec_start", c.id)
	s.containers.Publish(c.container, "exec_start: "+strings.Join(c.req.Cmd, " "), "execID", c.id)
	pid, conn, err := s.runtime.Exec(context.WithoutCancel(ctx), runtime.Exec{Ref: ref, Process: c.process, Stdio: stdio}, attach)
	if err != nil {
		return nil, s.failed(c, err)
	}
	s.mu.Lock()
	c.pid = pid
	early := c.early
	c.running = true
	s.mu.Unlock()
	if early != nil {
		s.exited(*early)
	}
	if req.Detach {
		return nil, nil
	}
	return &enginecontainer.Stream{Conn: conn, Terminal: c.req.Tty, DetachKeys: c.keys}, nil
}

// failed records an exec that could not be executed, with the exit code that a shell gives; Inspect tells it.
func (s *Service) failed(c *command, err error) error {
	code := 126
	var x *client.ExecError
	if errors.As(err, &x) {
		code = x.Code
		err = fault.Invalid("OCI runtime exec failed: exec failed: unable to start container process: %s: unknown", enginecontainer.ExecMessage(x))
	} else {
		err = fmt.Errorf("OCI runtime exec failed: %w", err)
	}
	s.mu.Lock()
	c.code, c.ended = &code, time.Now()
	s.mu.Unlock()
	close(c.exited)
	s.containers.RemoveExec(c.container, c.id)
	s.containers.Publish(c.container, "exec_die", "execID", c.id, "exitCode", strconv.Itoa(code))
	return err
}

// exited takes an exit record, and lets the supervisor forget it.
func (s *Service) exited(x runtime.Exit) {
	s.mu.Lock()
	c, ok := s.execs[x.Ref.Exec]
	if ok && c.started && !c.running && c.code == nil {
		c.early = &x
		s.mu.Unlock()
		return
	}
	mine := ok && c.running
	if mine {
		c.running, c.code, c.ended, c.pid = false, &x.Code, x.At, 0
	}
	s.mu.Unlock()
	ctx := trace.Begin(context.Background(), "runtime", "exit", "exec", x.Ref.Exec)
	if mine {
		trace.Step(ctx, "engine", "answer", "wait", c.id)
		close(c.exited)
		s.containers.RemoveExec(c.container, c.id)
		trace.Step(ctx, "engine", "event", "exec_die", c.id)
		s.containers.Publish(c.container, "exec_die", "execID", c.id, "exitCode", strconv.Itoa(x.Code))
	}
	s.runtime.Collect(ctx, x.Ref)
}

// Lost ends the execs of container runs (by container, with the run's start) whose supervisor was killed. How they ended nobody knows: 255.
func (s *Service) Lost(runs map[string]time.Time) {
	s.mu.Lock()
	var gone []*command
	for _, c := range s.execs {
		if start, ok := runs[c.container]; ok && c.running && start.Equal(c.run) {
			gone = append(gone, c)
		}
	}
	s.mu.Unlock()
	for _, c := range gone {
		s.exited(runtime.Exit{Ref: runtime.Ref{Container: c.container, Exec: c.id}, Code: 255, At: time.Now()})
	}
}

// Inspect tells what is known of an exec.
func (s *Service) Inspect(ctx context.Context, id string) (container.ExecInspectResponse, error) {
	c, err := s.find(id)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	privileged := c.req.Privileged
	return container.ExecInspectResponse{
		ID: c.id, ContainerID: c.container, Running: c.running, ExitCode: c.code, Pid: c.pid, CanRemove: c.code != nil,
		OpenStdin: c.req.AttachStdin, OpenStdout: c.req.AttachStdout, OpenStderr: c.req.AttachStderr, DetachKeys: c.keys,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: c.req.Tty, Entrypoint: c.req.Cmd[0], Arguments: c.req.Cmd[1:], Privileged: &privileged, User: c.req.User,
		},
	}, nil
}

// Resize sets the size of a running exec's terminal, in characters.
func (s *Service) Resize(ctx context.Context, id string, width, height uint16) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	running := c.running
	s.mu.Unlock()
	if !running {
		return fault.Invalid("exec process is not started")
	}
	return s.runtime.Resize(ctx, runtime.Ref{Container: c.container, Exec: c.id}, width, height)
}

// Kill ends a running exec and waits for its exit record.
func (s *Service) Kill(ctx context.Context, id string) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	running := c.running
	s.mu.Unlock()
	if !running {
		return nil
	}
	if err := s.runtime.Signal(ctx, runtime.Ref{Container: c.container, Exec: c.id}, 9); err != nil {
		return err
	}
	_, err = s.Wait(ctx, id)
	return err
}

// Wait returns the exit code of a started exec once it has one.
func (s *Service) Wait(ctx context.Context, id string) (int, error) {
	c, err := s.find(id)
	if err != nil {
		return 0, err
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return *c.code, nil
}

// sweep forgets what is older than keep; it wants mu and does its work at most once a minute.
func (s *Service) sweep() {
	now := time.Now()
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for id, c := range s.execs {
		if c.code != nil && now.Sub(c.ended) > keep || !c.started && now.Sub(c.created) > keep {
			delete(s.execs, id)
			if !c.started {
				go s.containers.RemoveExec(c.container, id)
			}
		}
	}
}
