package transfer

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/progress"
)

// flights are the layers under way, by the digest of their blobs.
type flights struct {
	mu     sync.Mutex // guards all below, and the flights
	active map[digest.Digest]*flight
}

// flight is one piece of work that several callers wait for.
type flight struct {
	done   chan struct{}
	cancel context.CancelFunc
	err    error // valid after done
	sinks  map[*progress.Sink]struct{}
	last   progress.Update
}

// do runs work for key, or joins the run that is under way. The work's context ends when every
// caller's has. A caller that joined does the work itself if the other run failed: it may have other rights.
func (f *flights) do(ctx context.Context, key digest.Digest, sink progress.Sink, work func(context.Context, progress.Sink) error) error {
	for {
		fl, joined := f.join(ctx, key, &sink, work)
		select {
		case <-fl.done:
			if fl.err == nil || !joined {
				return fl.err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		case <-ctx.Done():
			if f.leave(fl, &sink) {
				<-fl.done // nobody else wants it: what it holds is free when we return
			}
			return context.Cause(ctx)
		}
	}
}

func (f *flights) join(ctx context.Context, key digest.Digest, sink *progress.Sink, work func(context.Context, progress.Sink) error) (fl *flight, joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.active[key]; fl != nil && len(fl.sinks) > 0 {
		fl.sinks[sink] = struct{}{}
		if fl.last.Action != "" {
			sink.Report(fl.last)
		}
		return fl, true
	}
	workCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl = &flight{done: make(chan struct{}), cancel: cancel, sinks: map[*progress.Sink]struct{}{sink: {}}}
	if f.active == nil {
		f.active = map[digest.Digest]*flight{}
	}
	f.active[key] = fl
	go func() {
		err := work(workCtx, func(u progress.Update) { f.report(fl, u) })
		f.mu.Lock()
		fl.err = err
		if f.active[key] == fl {
			delete(f.active, key)
		}
		f.mu.Unlock()
		cancel()
		close(fl.done)
	}()
	return fl, false
}

// leave takes a caller out; true if it was the last, which cancels the work.
func (f *flights) leave(fl *flight, sink *progress.Sink) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(fl.sinks, sink)
	if len(fl.sinks) > 0 {
		return false
	}
	fl.cancel()
	return true
}

// flying tells whether somebody is at work on key.
func (f *flights) flying(key digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.active[key] != nil
}

func (f *flights) report(fl *flight, u progress.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.last = u
	for s := range fl.sinks {
		s.Report(u)
	}
}

// stopped tells whether err only says that somebody gave up.
func stopped(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
