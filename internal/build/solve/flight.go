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

// pin is how a flight pins its record until all who waited have done so themselves.
func pin(name string) string { return "flight " + name }

// fly joins the flight of that name or starts it with do, which pins its record with pin(name). It returns when the
// flight has landed, with the record pinned for build, or at once when ctx ends and others still wait; if nobody
// does, after do has cleaned up.
func (s *Solver) fly(ctx context.Context, name, build string, log *Log, do func(context.Context, *Log) (cache.Record, error)) (cache.Record, error) {
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
	}
	f.waiters++
	s.mu.Unlock()

	copied := make(chan struct{})
	go func() {
		defer close(copied)
		f.log.Follow(ctx, func(text []byte) { log.Write(text) })
	}()
	var err error
	select {
	case <-f.done:
		if err = f.err; err == nil {
			s.cache.Pin(f.rec.Key, build)
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last && s.flights[name] == f { // nobody joins a flight that is being cancelled
		delete(s.flights, name)
	}
	s.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
		s.cache.Unpin(pin(name))
	}
	<-copied
	if err != nil {
		return cache.Record{}, err
	}
	return f.rec, nil
}
