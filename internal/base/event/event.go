// Package event carries facts upwards: a box publishes what happened, a door
// or another loop subscribes. Publishing never blocks on a slow subscriber;
// one that falls too far behind is cut off (its channel closes) and has to
// subscribe again, from the time of the last event it saw.
package event

import (
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

// history is how many past events a Bus keeps for subscribers that ask for "since".
const history = 4096

// backlog is how far a subscriber may fall behind before it is cut off.
const backlog = 8192

// Bus distributes events. The zero value is ready to use.
type Bus struct {
	mu   sync.Mutex // guards all below
	past []Event
	subs map[*Subscription]struct{}
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
	if len(b.past) >= history {
		b.past = append(b.past[:0:0], b.past[history/4:]...)
	}
	b.past = append(b.past, e)
	for s := range b.subs {
		select {
		case s.c <- e:
		default:
			delete(b.subs, s)
			close(s.c)
		}
	}
}

// Subscribe returns the kept events not before since (zero: none of them) and a
// subscription for those that follow, with no gap and no repeat between the two.
func (b *Bus) Subscribe(since time.Time) ([]Event, *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []Event
	if !since.IsZero() {
		for _, e := range b.past {
			if !e.Time.Before(since) {
				past = append(past, e)
			}
		}
	}
	s := &Subscription{c: make(chan Event, backlog), bus: b}
	s.C = s.c
	if b.subs == nil {
		b.subs = make(map[*Subscription]struct{})
	}
	b.subs[s] = struct{}{}
	return past, s
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
