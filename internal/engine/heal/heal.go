// Package heal restarts containers that became unhealthy, if their label "autoheal" is "true": the label that people give
// them for helpers which do this from outside.
package heal

import (
	"context"
	"log/slog"
	"sync"

	"tare/internal/base/event"
)

// Label is what a container has that wants to be restarted when it becomes unhealthy; its value is "true".
const Label = "autoheal"

// containers is what it needs of the container service.
type containers interface {
	Restart(ctx context.Context, ref, signal string, timeout *int) error
}

// Service restarts the containers of one engine.
type Service struct {
	containers containers
	stop       context.CancelFunc
	done       sync.WaitGroup

	mu   sync.Mutex
	busy map[string]bool // containers that are being restarted
}

// New begins to watch the bus.
func New(c containers, bus *event.Bus) *Service {
	ctx, stop := context.WithCancel(context.Background())
	s := &Service{containers: c, stop: stop, busy: map[string]bool{}}
	sub := bus.Subscribe()
	s.done.Go(func() { s.watch(ctx, bus, sub) })
	return s
}

// Close ends watching, and waits for restarts that are under way.
func (s *Service) Close() {
	s.stop()
	s.done.Wait()
}

func (s *Service) watch(ctx context.Context, bus *event.Bus, sub *event.Subscription) {
	defer func() { sub.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-sub.C:
			if !ok { // fell behind: the next probe that fails is told again only after a recovery, so nothing is looked up here
				sub = bus.Subscribe()
				continue
			}
			if e.Type == "container" && e.Action == "health_status: unhealthy" && e.Attributes[Label] == "true" && s.take(e.ID) {
				s.done.Go(func() { s.restart(ctx, e) })
			}
		}
	}
}

// take makes sure that a container is restarted once at a time.
func (s *Service) take(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		return false
	}
	s.busy[id] = true
	return true
}

func (s *Service) restart(ctx context.Context, e event.Event) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, e.ID)
	}()
	slog.Info("restarting an unhealthy container", "container", e.Attributes["name"], "id", e.ID)
	if err := s.containers.Restart(ctx, e.ID, "", nil); err != nil && ctx.Err() == nil {
		slog.Error("cannot restart an unhealthy container", "container", e.Attributes["name"], "id", e.ID, "error", err)
	}
}
