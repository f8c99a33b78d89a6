// Package event carries facts upwards: a box publishes what happened, a door
// or another loop subscribes. Publishing never blocks on a slow subscriber;
// one that falls too far behind is cut off (its channel closes) and has to
// subscribe again, from the time of the last event it saw.
package event

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Event is one fact. Type, Action and Attributes use Docker's words
// (github.com/moby/moby/api/types/events), for example container/die with exitCode.
type Event struct {
	Type       string
	Action     string
	ID         string            // the object's full id, or its name where it has none
	Attributes map[string]string // never changed after Publish
	Time       time.Time
}

// history is how many past events a Bus without a journal keeps for subscribers that ask for "since".
const history = 4096

// backlog is how far a subscriber may fall behind before it is cut off.
const backlog = 8192

// Bus distributes events. The zero value is ready to use.
type Bus struct {
	mu      sync.Mutex // guards all below
	past    []Event
	journal *Journal // nil: past events are kept in memory
	failed  bool     // the journal's last write
	subs    map[*Subscription]struct{}
}

// Subscription receives events in order of publication.
type Subscription struct {
	C   <-chan Event
	c   chan Event
	bus *Bus
}

// Publish records e, sets its time where it has none, and hands it to all subscribers.
func (b *Bus) Publish(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record(e)
	for s := range b.subs {
		select {
		case s.c <- e:
		default:
			delete(b.subs, s)
			close(s.c)
		}
	}
}

// Keep makes the bus write its events to j from now on, and answer for the past out of it.
func (b *Bus) Keep(j *Journal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.journal = j
	for _, e := range b.past {
		b.record(e)
	}
	b.past = nil
}

// record keeps e for later subscribers. Events that the journal can't take, as on a full disk, are told to those who listen now only.
func (b *Bus) record(e Event) {
	if b.journal != nil {
		err := b.journal.write(e)
		if err != nil && !b.failed {
			slog.Warn("events are lost for later readers", "journal", b.journal.path, "error", err)
		}
		b.failed = err != nil
		return
	}
	if len(b.past) >= history {
		b.past = append(b.past[:0:0], b.past[history/4:]...)
	}
	b.past = append(b.past, e)
}

// Replay is Subscribe with the events not before since first; with no gap and no repeat between the two.
func (b *Bus) Replay(since time.Time) ([]Event, *Subscription, error) {
	b.mu.Lock()
	sub := b.subscribe()
	past := slices.Clone(b.past)
	var kept span
	var done func()
	var err error
	if b.journal != nil {
		kept, done, err = b.journal.until()
	}
	b.mu.Unlock()
	if err != nil {
		sub.Close()
		return nil, nil, err
	}
	if done != nil {
		defer done()
		if past, err = kept.since(since); err != nil {
			sub.Close()
			return nil, nil, err
		}
		return past, sub, nil
	}
	return slices.DeleteFunc(past, func(e Event) bool { return e.Time.Before(since) }), sub, nil
}

// Subscribe receives the events from now on.
func (b *Bus) Subscribe() *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subscribe()
}

func (b *Bus) subscribe() *Subscription {
	s := &Subscription{c: make(chan Event, backlog), bus: b}
	s.C = s.c
	if b.subs == nil {
		b.subs = make(map[*Subscription]struct{})
	}
	b.subs[s] = struct{}{}
	return s
}

// Close ends the subscription; C is closed. It may be called more than once.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	if _, ok := s.bus.subs[s]; ok {
		delete(s.bus.subs, s)
		close(s.c)
	}
}
