package image

import (
	"context"
	"strconv"
	"strings"
	"time"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Prune removes unused images (dangling ones only unless the filter says dangling=false) and returns the bytes won.
// What no name and no hold reaches goes as well. Filters: dangling, until (a time or a duration back from now), label, label!.
func (s *Store) Prune(f filter.Args) ([]Removed, int64, error) {
	if err := f.Only("dangling", "until", "label", "label!"); err != nil {
		return nil, 0, err
	}
	dangling, err := f.Bool("dangling", true)
	if err != nil {
		return nil, 0, err
	}
	until, err := untilOf(f, time.Now())
	if err != nil {
		return nil, 0, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	before, err := s.parts.usage()
	if err != nil {
		return nil, 0, err
	}
	var all []Removed
	for _, img := range s.List() {
		switch {
		case dangling && len(img.Names) > 0,
			len(s.Holders(img.ID)) > 0,
			!until.IsZero() && !img.Created.Before(until),
			!f.Labels(img.Config.Config.Labels):
			continue
		}
		done, err := remove(s, img.ID.String(), true)
		all = append(all, done...)
		if err != nil {
			return all, 0, err
		}
	}
	// What nobody reaches any more goes as well, and what was left of pulls that nobody goes on with.
	if _, err := s.garbage.sweep(context.Background()); err != nil {
		return all, 0, err
	}
	parts := int64(0)
	if !dangling {
		if parts, err = s.Blobs.DropParts(); err != nil {
			return all, 0, err
		}
	}
	after, err := s.parts.usage()
	won := before - after + parts
	s.bus.Publish(event.Event{Type: "image", Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatInt(won, 10)}})
	return all, won, err
}

// untilOf reads the until filter: a duration, seconds since 1970, or a date in one of Docker's forms.
func untilOf(f filter.Args, now time.Time) (time.Time, error) {
	if !f.Has("until") {
		return time.Time{}, nil
	}
	if len(f["until"]) > 1 {
		return time.Time{}, fault.Invalid("more than one until filter specified")
	}
	v := f["until"][0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, v, time.Local); err == nil {
			return t, nil
		}
	}
	sec, frac, _ := strings.Cut(v, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, fault.Invalid("invalid until filter %q: want a duration such as 24h or a time", v)
	}
	ns, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, fault.Invalid("invalid until filter %q: want a duration such as 24h or a time", v)
	}
	return time.Unix(n, ns), nil
}
