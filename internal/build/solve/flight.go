package solve

import (
	"context"

	"tare/internal/build/cache"
)

// flight is the work for one key. It is cancelled when nobody waits for it any more.
type flight struct {
	waiters int // guarded by Solver.mu
	cancel  context.CancelFunc
	log     *Log
	done    chan struct{} // closed when rec and err are set
	rec     cache.Record
	err     error
}

// fly joins the flight of that name or starts it with do. It returns when the flight has landed,
// or at once when ctx ends and others still wait; if nobody does, after do has cleaned up.
func (s *Solver) fly(ctx context.Context, name string, log *Log, do func(context.Context, *Log) (cache.Record, error)) (rec cache.Record, shared bool, err error) {
	s.mu.Lock()
	f := s.flights[name]
	if f == nil {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{cancel: cancel, log: NewLog(), done: make(chan struct{})}
		s.flights[name] = f
		go func() {
			f.rec, f.err = do(own, f.log)
			f.log.Close()
			s.mu.Lock()
			if s.flights[name] == f {
				delete(s.flights, name)
			}
			s.mu.Unlock()
			cancel()
			close(f.done)
		}()
	} else {
		shared = true
	}
	f.waiters++
	s.mu.Unlock()

	copied := make(chan struct{})
	go func() {
		defer close(copied)
		f.log.Follow(ctx, func(text []byte) { log.Write(text) })
	}()
	select {
	case <-f.done:
		<-copied
		return f.rec, shared, f.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last && s.flights[name] == f {
		delete(s.flights, name)
	}
	s.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
	<-copied
	return cache.Record{}, shared, ctx.Err()
}
