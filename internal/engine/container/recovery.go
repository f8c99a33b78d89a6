package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"

	"tare/internal/base/files"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup/unit"
)

// Open makes the service from what is on the disk and what the supervisor runs:
// running containers go on, exits that nobody saw get their code and time,
// half-made containers and what belongs to none are removed, images and volumes are held again, restart policies
// are applied last.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	p := &parts{cfg: cfg, root: filepath.Join(cfg.DataRoot, "containers"), host: probeHost()}
	p.host.Runtimes = cfg.Runtimes
	p.host.Systemd = unit.IsSlice(cfg.CgroupParent)
	if err := os.MkdirAll(p.root, 0o710); err != nil {
		return nil, err
	}
	s := &Service{parts: p, index: newIndex()}
	s.monitor = &monitor{parts: p, index: s.index}
	s.monitor.ctx, s.monitor.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.launch = &launcher{parts: p, index: s.index, monitor: s.monitor}
	s.remover = &remover{parts: p, index: s.index, killer: killer{p}.end}
	s.monitor.launch, s.monitor.remover = s.launch, s.remover

	r := recovery{Service: s}
	if err := r.read(); err != nil {
		return nil, err
	}
	live, err := r.reconcile(ctx)
	if err != nil {
		return nil, err
	}
	if p.networks, err = cfg.OpenNetworks(ctx, live); err != nil {
		return nil, err
	}
	for _, f := range r.then {
		f()
	}
	exits := cfg.Runtime.Exits()
	s.monitor.work.Go(func() { s.monitor.watch(exits) })
	r.restart()
	return s, nil
}

// Close ends the service's own work; containers go on. The runtime has to be closed first: its Exits end the monitor.
func (s *Service) Close() {
	s.monitor.stop()
	for _, e := range s.index.all() {
		e.mu.Lock()
		if e.restart != nil {
			e.restart.Stop()
		}
		e.mu.Unlock()
	}
	s.monitor.work.Wait()
	s.remover.background.Wait()
}

// recovery is one Open under way.
type recovery struct {
	*Service
	then []func()        // when the networks are there
	due  map[*entry]bool // to be restarted by their policy
}

// read loads the records; a folder without one is half-made, one with a damaged record is left alone.
func (r *recovery) read() error {
	if err := files.Sweep(r.root); err != nil {
		return err
	}
	entries, err := os.ReadDir(r.root)
	if err != nil {
		return err
	}
	for _, d := range entries {
		if err := files.Sweep(filepath.Join(r.root, d.Name())); err != nil {
			return err
		}
		var rec record
		err := files.ReadJSON(filepath.Join(r.root, d.Name(), recordName), &rec)
		if errors.Is(err, fs.ErrNotExist) {
			unmountShm(filepath.Join(r.root, d.Name(), "shm"))
			if err := os.RemoveAll(filepath.Join(r.root, d.Name())); err != nil {
				return fmt.Errorf("cannot remove the half-made container %s: %w", d.Name(), err)
			}
			continue
		}
		if err == nil && (rec.ID != d.Name() || rec.Config == nil || rec.HostConfig == nil) {
			err = errors.New("the record is of another container or incomplete")
		}
		if err != nil { // as Docker: one damaged record keeps the others from nothing; its files stay for whoever can mend it
			slog.Error("cannot load a container", "folder", filepath.Join(r.root, d.Name()), "error", err)
			continue
		}
		if err := r.index.reserve(rec.Name, rec.ID); err != nil { // a rename that crashed half-way cannot do this: one record, one name
			return err
		}
		r.cfg.Images.Hold(holder(rec.ID), digest.Digest(rec.Image))
		for _, m := range rec.Mounts {
			if m.Point.Type == mount.TypeVolume {
				r.cfg.Volumes.Hold(m.Point.Name, rec.ID) // one that is gone shows at the start
			}
		}
		r.index.add(newEntry(rec, r.cfg.Bus))
	}
	return nil
}

// reconcile compares the records with the supervisor and returns the sandboxes that live.
func (r *recovery) reconcile(ctx context.Context) (map[string]int, error) {
	old := r.groups() // before asking: what is made meanwhile is not in it
	states, err := r.cfg.Runtime.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the supervisor for its containers: %w", err)
	}
	r.orphans(old, states)
	known := map[string]runtime.State{}
	for _, st := range states {
		if _, err := r.index.find(st.ID); err != nil { // removed while its end was cleaned up
			r.forget(st.ID)
			continue
		}
		known[st.ID] = st
	}
	r.due = map[*entry]bool{}
	live := map[string]int{}
	for _, e := range r.index.all() {
		st, ok := known[e.id]
		switch {
		case ok && (st.Status == runtime.Running || st.Status == runtime.Paused):
			r.adopt(e, st)
			if !e.rec.HostConfig.NetworkMode.IsContainer() {
				live[e.id] = st.Pid
			}
		case ok && st.Status == runtime.Stopped && st.Exit != nil && e.rec.State.running():
			r.adopt(e, st)
			exit := *st.Exit
			r.then = append(r.then, func() { r.monitor.exited(e, exit) })
		default:
			if ok { // created and never started, or an end that is recorded already
				r.forget(e.id)
			}
			r.stopped(e, ok && st.Status == runtime.Created)
		}
	}
	return live, nil
}

func (r *recovery) forget(id string) {
	r.then = append(r.then, func() { r.cfg.Runtime.Delete(context.Background(), id) })
}

// adopt takes over a container that runs, or whose end has to be reported.
func (r *recovery) adopt(e *entry, st runtime.State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.run = newRun()
	e.run.started = true
	s := &e.rec.State
	switch paused := s.Status == container.StatePaused; {
	case st.Status == runtime.Paused && paused:
	case st.Status == runtime.Paused: // frozen for work that did not come to its end
		r.then = append(r.then, func() {
			if err := r.cfg.Runtime.Resume(context.Background(), e.id); err != nil {
				slog.Error("cannot let a frozen container go on", "container", e.id, "error", err)
			}
		})
		fallthrough
	default:
		s.Status = container.StateRunning
	}
	s.Pid = st.Pid
	if s.StartedAt.IsZero() && !st.StartedAt.IsZero() {
		s.StartedAt = st.StartedAt.UTC()
	}
	e.run.noRestart = s.ByHand
	r.cfg.Images.Hold(runningHolder(e.id), digest.Digest(e.rec.Image))
}

// stopped puts a container to rest that the supervisor does not run; halfway says that its start had begun and
// its program was not executed yet.
func (r *recovery) stopped(e *entry, halfway bool) {
	e.mu.Lock()
	s := &e.rec.State
	changed, remove := true, false
	switch {
	case halfway && s.running():
		s.Status, s.StartedAt, s.Health = container.StateCreated, time.Time{}, nil
		remove = true
	case s.running(): // the host went down, or the supervisor was killed: how it ended is not known
		s.Status, s.ExitCode, s.FinishedAt = container.StateExited, 255, time.Now().UTC()
		s.Error = lostMessage
		r.due[e] = wantsRestart(e.rec)
	case s.Status == container.StateRestarting:
		s.Status = container.StateExited
		r.due[e] = true
	case s.Status == container.StateExited:
		changed = false
		// As Docker at its start: always means always, the others look at how it ended.
		r.due[e] = wantsRestart(e.rec)
	default:
		changed = false
	}
	s.Pid = 0
	e.rec.Joined, e.rec.Ports = nil, nil
	rec := e.rec
	e.mu.Unlock()
	if rec.HostConfig.IpcMode.IsShareable() {
		unmountShm(filepath.Join(r.dir(e.id), "shm"))
	}
	if changed {
		r.save(rec)
	}
	if rec.HostConfig.AutoRemove && (remove || rec.State.Status == container.StateExited) {
		r.due[e] = false
		r.then = append(r.then, func() { r.remover.auto(r.monitor.ctx, e) })
	}
}

// restart applies the restart policies.
func (r *recovery) restart() {
	for e, due := range r.due {
		if !due {
			continue
		}
		e.mu.Lock()
		e.rec.State.Status = container.StateRestarting
		e.mu.Unlock()
		r.monitor.work.Go(func() { r.monitor.restartNow(e) })
	}
}
