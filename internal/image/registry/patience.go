package registry

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"tare/internal/base/fault"
)

// A registry that stops sending, or sends a byte now and then, is no better than one that cut the connection.
const (
	patience = 60 * time.Second // for atLeast bytes of a blob, or for all of a small answer
	atLeast  = 64 << 10
)

// watch is a body whose request ends when less than atLeast bytes came in the client's patience.
type watch struct {
	io.ReadCloser
	timer  *time.Timer
	wait   time.Duration
	cancel context.CancelCauseFunc
	ctx    context.Context
	got    int // since the timer was set
}

func newWatch(ctx context.Context, cancel context.CancelCauseFunc, wait time.Duration, body io.ReadCloser) *watch {
	return &watch{ReadCloser: body, wait: wait, cancel: cancel, ctx: ctx, timer: time.AfterFunc(wait, func() {
		cancel(fault.Unavailable("the registry sent less than %d bytes in %s", atLeast, wait))
	})}
}

func (w *watch) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if w.got += n; w.got >= atLeast {
		w.got = 0
		w.timer.Reset(w.wait)
	}
	if err != nil && err != io.EOF && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watch) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}

// small is a small answer's body, all of which has to come within the client's patience. It closes the body; done stops the clock.
func (c *Client) small(body io.ReadCloser) (r io.Reader, done func()) {
	s := &smallBody{ReadCloser: body, wait: c.patience}
	t := time.AfterFunc(c.patience, func() {
		s.late.Store(true)
		body.Close()
	})
	return s, func() {
		t.Stop()
		body.Close()
	}
}

type smallBody struct {
	io.ReadCloser
	wait time.Duration
	late atomic.Bool
}

func (s *smallBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF && s.late.Load() {
		err = fault.Unavailable("the registry took more than %s to send a small answer", s.wait)
	}
	return n, err
}

// Hurry sets how long the client pauses between tries and how long it waits for an answer, for tests.
func (c *Client) Hurry(pause, patience time.Duration) {
	c.pause = func(int) time.Duration { return pause }
	c.patience = patience
}
