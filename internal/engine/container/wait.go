package container

import (
	"context"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
)

// Wait registers at once and delivers one response when the condition holds. After ctx's end nothing is delivered.
func (s *Service) Wait(ctx context.Context, ref string, c container.WaitCondition) (<-chan container.WaitResponse, error) {
	e, err := s.index.find(ref)
	if err != nil {
		return nil, err
	}
	w := &waiter{c: make(chan container.WaitResponse, 1)}
	switch c {
	case "", container.WaitConditionNotRunning, container.WaitConditionNextExit:
	case container.WaitConditionRemoved:
		w.removed = true
	default:
		return nil, fault.Invalid("invalid condition: %q", c)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiters[w] = struct{}{}
	active := e.rec.State.running() || e.rec.State.Status == container.StateRestarting || e.starting()
	switch {
	case e.gone:
		e.answer(ctx, true)
	case !active && c != container.WaitConditionNextExit && !w.removed:
		e.answerOne(ctx, w)
	default:
		context.AfterFunc(ctx, func() {
			e.mu.Lock()
			delete(e.waiters, w)
			e.mu.Unlock()
		})
	}
	return w.c, nil
}
