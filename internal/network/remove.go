package network

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Remove deletes a network without endpoints.
func (m *Manager) Remove(ctx context.Context, ref string) error {
	m.making.Lock()
	defer m.making.Unlock()
	m.mu.Lock()
	s, err := m.find(ref)
	if err == nil {
		err = removable(s)
	}
	if err != nil {
		m.mu.Unlock()
		return err
	}
	delete(m.networks, s.ID)
	m.mu.Unlock()
	if err := m.bridges.demolish(s); err != nil {
		m.mu.Lock()
		m.networks[s.ID] = s
		m.mu.Unlock()
		return fmt.Errorf("error while removing network %s: %w", s.Name, err)
	}
	m.publish("destroy", s, "")
	return nil
}

// removable refuses built-in networks and those in use. registry.mu is held.
func removable(s *segment) error {
	if s.builtin() {
		return fault.Forbidden("%s is a pre-defined network and cannot be removed", s.Name)
	}
	if len(s.endpoints) == 0 {
		return nil
	}
	var who []string
	for _, id := range slices.Sorted(maps.Keys(s.endpoints)) {
		e := s.endpoints[id]
		who = append(who, fmt.Sprintf("name:%q id:%q", e.box.join.Name, e.settings.EndpointID[:12]))
	}
	return fault.Forbidden("error while removing network: network %s has active endpoints (%s)", s.Name, strings.Join(who, ", "))
}

// Prune removes networks that no endpoint and no name in inUse (ids or names referred to by stopped containers) uses, and
// returns their names.
func (m *Manager) Prune(ctx context.Context, f filter.Args, inUse map[string]bool) ([]string, error) {
	if err := f.Only("until", "label", "label!"); err != nil {
		return nil, err
	}
	until, err := parseUntil(f)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	var candidates []*segment
	for _, s := range m.networks {
		if removable(s) == nil && !inUse[s.ID] && !inUse[s.Name] && f.Labels(s.Labels) &&
			(until.IsZero() || s.Created.Before(until)) {
			candidates = append(candidates, s)
		}
	}
	m.mu.RUnlock()
	slices.SortFunc(candidates, func(a, b *segment) int { return strings.Compare(a.Name, b.Name) })
	removed := []string{}
	for _, s := range candidates {
		if ctx.Err() != nil {
			break
		}
		if m.Remove(ctx, s.ID) == nil { // else it came into use meanwhile
			removed = append(removed, s.Name)
		}
	}
	if m.bus != nil {
		m.bus.Publish(event.Event{Type: "network", Action: "prune", Attributes: map[string]string{"reclaimed": "0"}})
	}
	return removed, ctx.Err()
}

// parseUntil reads the filter: a duration before now, a Unix time or an RFC 3339 date.
func parseUntil(f filter.Args) (time.Time, error) {
	if !f.Has("until") {
		return time.Time{}, nil
	}
	if len(f["until"]) > 1 {
		return time.Time{}, fault.Invalid("more than one until filter specified")
	}
	v := f["until"][0]
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(s*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.Invalid("invalid filter 'until=%s'", v)
}
