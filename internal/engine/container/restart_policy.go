package container

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/container"
)

// Back-off between restarts, as in Docker: from 100 ms doubling to a minute, from the start again after a run of 10 s.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
	goodRun      = 10 * time.Second
)

// nextBackoff is the wait before the next restart, after a run that lasted ran and a wait of last before it.
func nextBackoff(last, ran time.Duration) time.Duration {
	if ran >= goodRun || last == 0 {
		return firstBackoff
	}
	return min(last*2, maxBackoff)
}

// wantsRestart decides after an exit that no person asked for.
func wantsRestart(r record) bool {
	p := r.HostConfig.RestartPolicy
	switch p.Name {
	case container.RestartPolicyAlways:
		return true
	case container.RestartPolicyUnlessStopped:
		return !r.State.ByHand
	case container.RestartPolicyOnFailure:
		return r.State.ExitCode != 0 && (p.MaximumRetryCount == 0 || r.State.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// scheduleRestart starts the container again after wait, unless a person or the end of the engine comes first.
func (m *monitor) scheduleRestart(e *entry, wait time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rec.State.Status != container.StateRestarting || m.ctx.Err() != nil {
		return
	}
	e.restart = time.AfterFunc(wait, func() { m.work.Go(func() { m.restartNow(e) }) })
}

func (m *monitor) restartNow(e *entry) {
	if m.ctx.Err() != nil || e.lock(m.ctx) != nil {
		return
	}
	defer e.unlock()
	e.mu.Lock()
	if e.rec.State.Status != container.StateRestarting {
		e.mu.Unlock()
		return
	}
	e.restart, e.begun = nil, true
	e.rec.State.RestartCount++
	e.mu.Unlock()
	if err := m.launch.start(context.WithoutCancel(m.ctx), e); err != nil {
		e.publish("die", "exitCode", "128", "error", err.Error())
	}
}
