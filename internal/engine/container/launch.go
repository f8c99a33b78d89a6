package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"tare/internal/base/fault"
	"tare/internal/base/trace"
	"tare/internal/engine/spec"
	tarenetwork "tare/internal/network"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// launcher starts containers.
type launcher struct {
	*parts
	index   *index
	monitor *monitor
}

// start runs a container that does not run; the caller holds e.op. What was made is undone on error, and the record tells why.
func (l *launcher) start(ctx context.Context, e *entry) error {
	defer e.change(func(*record) { e.begun = false })
	if err := e.settle(ctx); err != nil {
		return err
	}
	trace.Step(ctx, "engine", "start", "container", e.id)
	r := newRun()
	rec := e.change(func(rec *record) { e.run = r })
	l.cfg.Images.Hold(runningHolder(e.id), digest.Digest(rec.Image))
	pid, joined, err := l.launch(ctx, e, rec, r)
	if err != nil {
		l.failed(e, r, err)
		return err
	}
	e.mu.Lock()
	r.started = true
	early := r.early
	e.rec.State.Status, e.rec.State.Pid = container.StateRunning, pid
	if joined != nil {
		e.rec.Joined, e.rec.Ports = joined.Endpoints, joined.Ports
	}
	e.mu.Unlock()
	l.tellVolumes(rec, "mount")
	trace.Step(ctx, "engine", "event", "start", e.id)
	e.publish("start")
	if early != nil {
		l.monitor.exited(e, *early)
	}
	return nil
}

// launch does the steps up to the exec: bundle, then namespaces beside addresses, then interfaces, files, streams, record, exec.
func (l *launcher) launch(ctx context.Context, e *entry, rec record, r *run) (pid int, joined *tarenetwork.Joined, err error) {
	lower, err := l.lower(e, rec)
	if err != nil {
		return 0, nil, err
	}
	trace.Step(ctx, "engine", "spec", "container", rec.ID)
	s, err := l.buildSpec(rec, lower)
	if err != nil {
		return 0, nil, err
	}
	process := *s.Process
	r.process = &process
	if err := l.writeBundle(rec, s); err != nil {
		return 0, nil, err
	}
	create, err := l.createRequest(rec, lower)
	if err != nil {
		return 0, nil, err
	}
	join := l.joinRequest(rec)
	defer func() {
		if err != nil {
			l.cfg.Runtime.Delete(context.Background(), rec.ID)
			if join != nil {
				l.networks.Leave(context.Background(), rec.ID)
			}
		}
	}()

	var steps errgroup.Group
	if join != nil {
		beside := trace.Beside(ctx)
		steps.Go(func() error {
			_, err := l.networks.Prepare(beside, *join)
			return err
		})
	}
	pid, createErr := l.cfg.Runtime.Create(trace.Beside(ctx), create)
	if err := errors.Join(createErr, steps.Wait()); err != nil {
		if createErr != nil {
			return 0, nil, execFault(createErr)
		}
		return 0, nil, fmt.Errorf("failed to set up container networking: %w", err)
	}
	if join != nil {
		join.Pid = pid
		if joined, err = l.networks.Join(ctx, *join); err != nil {
			return 0, nil, fmt.Errorf("failed to set up container networking: %w", err)
		}
		if err := l.writeNetworkFiles(rec.ID, joined); err != nil {
			return 0, nil, err
		}
	}
	l.connectPending(ctx, e)

	saved := e.change(func(rec *record) {
		rec.State.StartedAt, rec.State.FinishedAt = time.Now().UTC(), time.Time{}
		rec.State.ExitCode, rec.State.Error, rec.State.OOMKilled, rec.State.ByHand = 0, "", false, false
		rec.State.Health = nil
		if spec.HasHealthcheck(rec.Config) {
			rec.State.Health = &container.Health{Status: container.Starting}
		}
	})
	// On the disk it runs from here on, so that an engine killed after the exec knows what the container got.
	saved.State.Status, saved.State.Pid = container.StateRunning, pid
	if joined != nil {
		saved.Joined, saved.Ports = joined.Endpoints, joined.Ports
	}
	trace.Step(ctx, "engine", "record", "container", rec.ID)
	if err := l.save(saved); err != nil {
		return 0, nil, err
	}
	if err := l.cfg.Runtime.Start(ctx, rec.ID); err != nil {
		return 0, nil, execFault(err)
	}
	return pid, joined, nil
}

// failed records a start that did not come about.
func (l *launcher) failed(e *entry, r *run, cause error) {
	code := 128
	var x *client.ExecError
	if errors.As(cause, &x) {
		code = x.Code
	}
	e.mu.Lock()
	e.rec.State.Pid, e.rec.State.ExitCode, e.rec.State.Error, e.rec.State.Health = 0, code, cause.Error(), nil
	e.rec.Joined, e.rec.Ports = nil, nil
	if e.rec.State.FinishedAt.IsZero() && e.rec.State.Status != container.StateCreated {
		e.rec.State.FinishedAt = time.Now().UTC()
	}
	if e.rec.State.Status == container.StateCreated {
		e.rec.State.StartedAt = time.Time{}
	} else {
		e.rec.State.Status = container.StateExited
	}
	rec := e.rec
	e.mu.Unlock()
	l.cfg.Images.Release(runningHolder(e.id))
	e.dropPending()
	l.save(rec)
	close(r.exited)
	close(r.settled)
}

// createFault words a failed create as Docker does.
func createFault(err error) error {
	return fmt.Errorf("failed to create task for container: %w", err)
}

// execFault words a failed exec so that the stock client finds "executable file not found", "no such file or
// directory" and "permission denied", from which it makes exit codes 127 and 126.
func execFault(err error) error {
	var x *client.ExecError
	if !errors.As(err, &x) {
		return createFault(err)
	}
	return fmt.Errorf("failed to create task for container: %w", fault.Invalid("%s: unknown%w", ExecMessage(x), silent{x}))
}

// ExecMessage says in Docker's words why a program could not be executed.
func ExecMessage(x *client.ExecError) string {
	switch {
	case errors.Is(x.Err, syscall.ENOENT) && !strings.Contains(x.Program, "/"):
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", x.Program)
	case errors.Is(x.Err, syscall.ENOENT):
		return fmt.Sprintf("exec: %q: stat %s: no such file or directory", x.Program, x.Program)
	case errors.Is(x.Err, syscall.EACCES):
		return fmt.Sprintf("exec: %q: permission denied", x.Program)
	}
	return fmt.Sprintf("exec: %q: %s", x.Program, x.Err)
}

// silent keeps an error in the chain without showing it.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// lower returns the image's folders, which don't change while the container holds the image.
func (l *launcher) lower(e *entry, rec record) ([]string, error) {
	e.mu.Lock()
	lower := e.lower
	e.mu.Unlock()
	if lower != nil {
		return lower, nil
	}
	img, err := l.cfg.Images.Get(rec.Image)
	if err != nil {
		return nil, err
	}
	if lower, err = l.cfg.Images.Lower(img); err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.lower = lower
	e.mu.Unlock()
	return lower, nil
}

// logPath is where a container's log lies, "" with the driver none.
func (p *parts) logPath(rec record) string {
	switch rec.HostConfig.LogConfig.Type {
	case "none":
		return ""
	case "local":
		return filepath.Join(p.dir(rec.ID), "container.log")
	}
	return filepath.Join(p.dir(rec.ID), rec.ID+"-json.log")
}

func (l *launcher) createRequest(rec record, lower []string) (runtime.Create, error) {
	log, err := spec.Log(rec.HostConfig.LogConfig, l.logPath(rec))
	if err != nil {
		return runtime.Create{}, err
	}
	subject := spec.LogSubject{FullID: rec.ID, Name: rec.Name, ImageFullID: rec.Image, Config: rec.Config}
	if log.Attrs, err = spec.LogAttributes(rec.HostConfig.LogConfig, subject); err != nil {
		return runtime.Create{}, err
	}
	dir, size := l.dir(rec.ID), rec.HostConfig.ConsoleSize
	var foreign *runtime.Foreign
	if f, ok := l.cfg.Runtimes[rec.HostConfig.Runtime]; ok {
		foreign = &f
	} else if !spec.OwnRuntime(rec.HostConfig.Runtime) { // it was configured when the container was created
		return runtime.Create{}, fault.Invalid("unknown or invalid runtime name: %s", rec.HostConfig.Runtime)
	}
	return runtime.Create{
		ID: rec.ID, Bundle: dir, Runtime: foreign,
		Rootfs: &runtime.Overlay{Lower: lower, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Volatile: rec.HostConfig.AutoRemove},
		Stdio: runtime.Stdio{
			Terminal: rec.Config.Tty, OpenStdin: rec.Config.OpenStdin, StdinOnce: rec.Config.StdinOnce,
			Height: uint16(size[0]), Width: uint16(size[1]), Log: log,
		},
	}, nil
}

// joinRequest is nil for a container that shares another's network.
func (l *launcher) joinRequest(rec record) *tarenetwork.Join {
	h := rec.HostConfig
	if h.NetworkMode.IsContainer() {
		return nil
	}
	return &tarenetwork.Join{
		Container: rec.ID, Name: rec.Name, Hostname: rec.hostname(), Domainname: rec.Config.Domainname, Endpoints: rec.endpoints(),
		Ports: h.PortBindings, PublishAll: h.PublishAllPorts, Exposed: rec.Config.ExposedPorts,
		DNS: h.DNS, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions, ExtraHosts: h.ExtraHosts, Links: linkNames(l.index.links(h)),
	}
}

func (l *launcher) writeBundle(rec record, s any) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	dir := l.dir(rec.ID)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		return err
	}
	if rec.HostConfig.NetworkMode.IsContainer() {
		return nil
	}
	if err := writeInPlace(filepath.Join(dir, "hostname"), []byte(rec.hostname()+"\n")); err != nil {
		return err
	}
	for _, name := range []string{"hosts", "resolv.conf"} { // they are mounted at create, and written when addresses are known
		if err := writeInPlace(filepath.Join(dir, name), nil); err != nil {
			return err
		}
	}
	return nil
}

// writeInPlace keeps the inode, which is mounted in the container. The container can change only the content.
func writeInPlace(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// writeNetworkFiles writes what the container has mounted at /etc/hosts and /etc/resolv.conf.
func (p *parts) writeNetworkFiles(id string, j *tarenetwork.Joined) error {
	dir := p.dir(id)
	if err := writeInPlace(filepath.Join(dir, "hosts"), j.Hosts); err != nil {
		return err
	}
	return writeInPlace(filepath.Join(dir, "resolv.conf"), j.ResolvConf)
}
