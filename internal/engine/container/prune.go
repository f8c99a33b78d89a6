package container

import (
	"context"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Prune removes all containers that don't run and match (until, label) and returns ids and bytes won.
func (s *Service) Prune(ctx context.Context, f filter.Args) ([]string, uint64, error) {
	if err := f.Only("until", "label", "label!"); err != nil {
		return nil, 0, err
	}
	until, err := parseUntil(f["until"], time.Now())
	if err != nil {
		return nil, 0, err
	}
	var removed []string
	var won uint64
	for _, e := range s.index.all() {
		if ctx.Err() != nil {
			return removed, won, ctx.Err()
		}
		r := e.snapshot()
		idle := r.State.Status == container.StateExited || r.State.Status == container.StateCreated || r.State.Status == container.StateDead
		if !idle || !until.IsZero() && r.Created.After(until) || !f.Labels(r.Config.Labels) {
			continue
		}
		size, _, err := s.sizes(e, r)
		if err != nil {
			return removed, won, err
		}
		if err := s.Remove(ctx, e.id, RemoveOptions{}); err != nil {
			continue // started or removed meanwhile
		}
		removed, won = append(removed, e.id), won+uint64(size)
	}
	s.cfg.Bus.Publish(event.Event{Type: "container", Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatUint(won, 10)}})
	return removed, won, nil
}

// parseUntil reads a Go duration before now, unix seconds, or a date.
func parseUntil(values []string, now time.Time) (time.Time, error) {
	if len(values) == 0 {
		return time.Time{}, nil
	}
	if len(values) > 1 {
		return time.Time{}, fault.Invalid("more than one until filter specified")
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if sec, err := strconv.ParseFloat(v, 64); err == nil {
		return time.UnixMicro(int64(sec * 1e6)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.Invalid("invalid until filter: %q is neither a duration nor a time", v)
}
