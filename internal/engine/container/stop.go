package container

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// Start runs a container. NotModified if it runs already.
func (s *Service) Start(ctx context.Context, ref string) error {
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // a client that goes away does not leave a half start
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	e.mu.Lock()
	status, removing := e.rec.State.Status, e.removing
	e.mu.Unlock()
	switch {
	case removing:
		return fault.Conflict("container is marked for removal and cannot be started")
	case status == container.StatePaused:
		return fault.Conflict("cannot start a paused container, try unpause instead")
	case status == container.StateRunning:
		return fault.NotModified("container is already running")
	}
	e.mu.Lock()
	e.cancelRestartLocked()
	e.rec.State.RestartCount, e.backoff = 0, 0
	e.mu.Unlock()
	if err := s.launch.start(ctx, e); err != nil {
		if e.snapshot().HostConfig.AutoRemove {
			e.mu.Lock()
			e.removing = true
			e.mu.Unlock()
			s.remover.remove(ctx, e, true)
		}
		return err
	}
	return nil
}

// Stop sends signal ("" is the container's own), waits timeout seconds (nil: the container's, or 10; -1: forever), then
// kills. NotModified if the container does not run.
func (s *Service) Stop(ctx context.Context, ref, sig string, timeout *int) error {
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	k := killer{s.parts}
	e.mu.Lock()
	active := e.rec.State.running() || e.starting()
	e.mu.Unlock()
	if !active {
		if e.cancelRestart() {
			rec := e.change(func(r *record) { r.State.ByHand = true })
			s.save(rec)
			return nil
		}
		return fault.NotModified("container is already stopped")
	}
	if err := k.stop(ctx, e, sig, timeout, true); err != nil {
		return fmt.Errorf("cannot stop container %s: %w", refName(ref), err)
	}
	e.publish("stop")
	return nil
}

// Restart stops a running container and starts it.
func (s *Service) Restart(ctx context.Context, ref, sig string, timeout *int) error {
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	active := e.rec.State.running() || e.starting()
	if active && e.run != nil {
		e.run.keep = true
	}
	e.mu.Unlock()
	if active {
		if err := (killer{s.parts}).stop(ctx, e, sig, timeout, false); err != nil {
			return fmt.Errorf("Cannot restart container %s: %w", refName(ref), err)
		}
		e.publish("stop")
	}
	if err := s.Start(ctx, e.id); err != nil {
		return fmt.Errorf("Cannot restart container %s: %w", refName(ref), err)
	}
	e.publish("restart")
	return nil
}

// Kill sends a signal ("" is KILL) to the container's first process.
func (s *Service) Kill(ctx context.Context, ref, sig string) error {
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	n := syscall.SIGKILL
	if sig != "" {
		if n, err = signal.ParseSignal(sig); err != nil {
			return fault.Invalid("%w", err)
		}
	}
	k := killer{s.parts}
	e.mu.Lock()
	active, restarting := e.rec.State.running(), e.rec.State.Status == container.StateRestarting && !e.starting()
	ends := n == syscall.SIGKILL || n == stopSignal(e.rec)
	if active && ends {
		e.run.noRestart, e.rec.State.ByHand = true, true
	}
	e.mu.Unlock()
	switch {
	case restarting && ends:
		e.cancelRestart()
		s.save(e.change(func(r *record) { r.State.ByHand = true }))
		return nil
	case !active:
		return fault.Conflict("cannot kill container: %s: container %s is not running", refName(ref), e.id)
	}
	if err := k.send(ctx, e, n); err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", refName(ref), err)
	}
	if ends && n == syscall.SIGKILL { // as Docker: the answer comes when it is dead
		return k.dead(ctx, e)
	}
	return nil
}

func stopSignal(r record) syscall.Signal {
	if n, err := signal.ParseSignal(r.Config.StopSignal); err == nil {
		return n
	}
	return syscall.SIGTERM
}

// killer ends containers.
type killer struct{ *parts }

// deathLimit is how long after SIGKILL the end may take before that is an error.
const deathLimit = 30 * time.Second

// started waits for a start that is under way. The caller does not hold e.op then: the start does.
func (e *entry) started(ctx context.Context) error {
	e.mu.Lock()
	starting := e.starting()
	e.mu.Unlock()
	if !starting {
		return nil
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	e.unlock()
	return nil
}

// send delivers a signal, thawing a paused container that could not die otherwise.
func (k killer) send(ctx context.Context, e *entry, n syscall.Signal) error {
	if err := k.cfg.Runtime.Signal(ctx, runtime.Ref{Container: e.id}, int(n)); err != nil {
		return err
	}
	e.publish("kill", "signal", strconv.Itoa(int(n)))
	rec := e.snapshot()
	if rec.State.Status == container.StatePaused && (n == syscall.SIGKILL || n == stopSignal(rec)) {
		if err := k.cfg.Runtime.Resume(ctx, e.id); err != nil {
			return err
		}
		e.change(func(r *record) {
			if r.State.Status == container.StatePaused {
				r.State.Status = container.StateRunning
			}
		})
	}
	return nil
}

// stop ends a run: the signal, the wait, SIGKILL. It returns when all is cleaned up. A start that is under way comes first.
func (k killer) stop(ctx context.Context, e *entry, sig string, timeout *int, byHand bool) error {
	if err := e.started(ctx); err != nil {
		return err
	}
	rec := e.snapshot()
	n := stopSignal(rec)
	if sig != "" {
		var err error
		if n, err = signal.ParseSignal(sig); err != nil {
			return fault.Invalid("%w", err)
		}
	}
	seconds := k.cfg.StopTimeout
	if seconds == 0 {
		seconds = 10
	}
	if rec.Config.StopTimeout != nil {
		seconds = *rec.Config.StopTimeout
	}
	if timeout != nil {
		seconds = *timeout
	}
	e.mu.Lock()
	r := e.run
	if !e.rec.State.running() {
		e.mu.Unlock()
		return e.settle(ctx)
	}
	r.noRestart = true
	e.rec.State.ByHand = byHand
	e.mu.Unlock()
	if err := k.send(ctx, e, n); err != nil && !gone(r, err) {
		if err := k.send(ctx, e, syscall.SIGKILL); err != nil && !gone(r, err) {
			return err
		}
	}
	var late <-chan time.Time
	if seconds >= 0 {
		timer := time.NewTimer(time.Duration(seconds) * time.Second)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-r.settled:
		return nil
	case <-r.exited:
	case <-late:
		if err := k.send(ctx, e, syscall.SIGKILL); err != nil && !gone(r, err) {
			return err
		}
	case <-ctx.Done():
		return fault.Unavailable("gave up waiting for the container's end: %w", ctx.Err())
	}
	return k.dead(ctx, e)
}

// end kills a container and waits until all is cleaned up.
func (k killer) end(ctx context.Context, e *entry) error {
	if e.cancelRestart() {
		return e.settle(ctx)
	}
	if err := e.started(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	active, r := e.rec.State.running(), e.run
	if active {
		r.noRestart, e.rec.State.ByHand = true, true
	}
	e.mu.Unlock()
	if !active {
		return e.settle(ctx)
	}
	if err := k.send(ctx, e, syscall.SIGKILL); err != nil && !gone(r, err) {
		return err
	}
	return k.dead(ctx, e)
}

// gone tells that a signal failed because the process has ended: the news of it may still be on their way.
func gone(r *run, err error) bool {
	return closed(r.exited) || errdefs.IsConflict(err) || errdefs.IsNotFound(err)
}

// dead waits for the end of a container that got SIGKILL.
func (k killer) dead(ctx context.Context, e *entry) error {
	e.mu.Lock()
	r := e.run
	e.mu.Unlock()
	timer := time.NewTimer(deathLimit)
	defer timer.Stop()
	select {
	case <-r.settled:
		return nil
	case <-timer.C:
		return fault.Internal("tried to kill container %s, but it did not end within %s", e.id, deathLimit)
	case <-ctx.Done():
		return fault.Unavailable("gave up waiting for the container's end: %w", ctx.Err())
	}
}
