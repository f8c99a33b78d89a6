package image

import (
	"log/slog"
	"sync"
	"time"
)

// Arrive tells that images or layers are about to come: a pull, load, import, commit or build. Until done is called nothing is
// deleted that was stored, or found when it was to be stored (blob.Store.Claim), since; whoever wants more of what was there before
// holds it. What was spared so and has neither name nor hold when the last arrival is done goes then.
func (s *Store) Arrive() (done func()) {
	end := s.garbage.arrivals.begin()
	return sync.OnceFunc(func() {
		if !end() {
			return
		}
		s.change.Lock()
		defer s.change.Unlock()
		if _, err := s.garbage.unreached(); err != nil {
			slog.Warn("cannot remove what an arrival left", "error", err)
		}
	})
}

// arrivals are the pulls, loads and builds under way.
type arrivals struct {
	mu     sync.Mutex // guards all below
	began  map[*time.Time]struct{}
	spared bool // something was not deleted because of them
}

// begin notes an arrival; end is true if it was the last and something was spared because of them.
func (a *arrivals) begin() (end func() bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.began == nil {
		a.began = map[*time.Time]struct{}{}
	}
	now := time.Now()
	a.began[&now] = struct{}{}
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.began, &now)
		if len(a.began) > 0 || !a.spared {
			return false
		}
		a.spared = false
		return true
	}
}

// since is the time from which on what came is left alone.
func (a *arrivals) since() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	since := time.Now()
	for began := range a.began {
		if began.Before(since) {
			since = *began
		}
	}
	return since
}

// spare notes that something was left alone.
func (a *arrivals) spare() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spared = len(a.began) > 0
}
