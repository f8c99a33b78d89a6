package container

import (
	"context"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/trace"
	"tare/internal/runtime"
)

// monitor hears of exits, reports them, and then does what follows: leave the networks, forget the process,
// restart or remove.
type monitor struct {
	*parts
	index   *index
	launch  *launcher
	remover *remover

	work sync.WaitGroup // what follows exits, in the background
	stop context.CancelFunc
	ctx  context.Context // ends with Close: no restart begins after it
}

// watch handles exit records until the channel closes.
func (m *monitor) watch(exits <-chan runtime.Exit) {
	for x := range exits {
		if x.Ref.Exec != "" {
			continue
		}
		e, err := m.index.find(x.Ref.Container)
		if err != nil {
			continue // removed, or a build step's, which has another owner; recovery deletes what is nobody's
		}
		m.exited(e, x)
	}
}

// exited reports an exit once: state, waiters, events; all else follows in the background.
func (m *monitor) exited(e *entry, x runtime.Exit) {
	e.mu.Lock()
	r := e.run
	if r != nil && !r.started && !closed(r.exited) { // heard of before the start returned; start comes back to it
		r.early = &x
		e.mu.Unlock()
		return
	}
	if r == nil || !e.rec.State.running() || x.At.Before(e.rec.State.StartedAt.Add(-time.Second)) { // an old record once more
		e.mu.Unlock()
		return
	}
	ran := x.At.Sub(e.rec.State.StartedAt)
	s := &e.rec.State
	s.Status, s.Pid, s.ExitCode, s.OOMKilled, s.FinishedAt = container.StateExited, 0, x.Code, x.OOMKilled, x.At.UTC()
	if x.Reason != "" {
		s.Error = x.Reason
	}
	if s.Health != nil {
		h := *s.Health
		h.Status = container.Unhealthy
		s.Health = &h
	}
	again := !r.noRestart && m.ctx.Err() == nil && !e.removing && wantsRestart(e.rec)
	if again {
		s.Status = container.StateRestarting
		e.backoff = nextBackoff(e.backoff, ran)
	}
	ctx := trace.Begin(m.ctx, "runtime", "exit", "container", e.id)
	// An exit of Docker's own waiters: not-running and next-exit answer now, removed at the removal.
	e.answer(ctx, false)
	close(r.exited)
	rec, wait := e.rec, e.backoff
	e.execs = nil
	e.mu.Unlock()

	m.cfg.Images.Release(runningHolder(e.id))
	if x.OOMKilled && !r.oom {
		e.publish("oom")
	}
	trace.Step(ctx, "engine", "event", "die", e.id)
	e.publish("die", "exitCode", strconv.Itoa(x.Code), "execDuration", strconv.Itoa(int(ran.Seconds())))
	m.work.Go(func() { m.after(ctx, e, r, rec, again, wait) })
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// after is what follows an exit. It goes on when ctx ends, which is when the engine closes, except for a removal that has to wait.
func (m *monitor) after(ctx context.Context, e *entry, r *run, rec record, again bool, wait time.Duration) {
	remove := rec.HostConfig.AutoRemove && !r.keep && !again
	if !remove { // what is about to be removed needs no record of its end
		e.mu.Lock()
		e.rec.Joined, e.rec.Ports = nil, nil
		rec = e.rec
		e.mu.Unlock()
		trace.Step(ctx, "engine", "record", "container", e.id)
		m.save(rec)
	}
	always := context.WithoutCancel(ctx)
	if !rec.HostConfig.NetworkMode.IsContainer() {
		m.networks.Leave(always, rec.ID)
	}
	m.tellVolumes(rec, "unmount")
	if !remove {
		m.cfg.Runtime.Delete(always, rec.ID)
	}
	if rec.HostConfig.IpcMode.IsShareable() {
		unmountShm(filepath.Join(m.dir(rec.ID), "shm"))
	}
	close(r.settled)
	switch {
	case remove:
		m.remover.auto(ctx, e)
		m.cfg.Runtime.Delete(always, rec.ID) // after the answer: a crash before it leaves what recovery deletes
	case again:
		m.scheduleRestart(e, wait)
	}
}
