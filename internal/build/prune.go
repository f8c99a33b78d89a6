package build

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/opencontainers/go-digest"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/base/filter"
	"tare/internal/build/cache"
)

// Cache lists the cache's records, oldest first.
func (s *Service) Cache() ([]build.CacheRecord, error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	list := s.cache.List()
	out := make([]build.CacheRecord, 0, len(list))
	for _, r := range list {
		out = append(out, v.describe(r))
	}
	if r, ok := s.contextRecord(); ok {
		out = append(out, r)
	}
	return out, nil
}

// contextRecord describes what is kept of build contexts, as one record.
func (s *Service) contextRecord() (build.CacheRecord, bool) {
	size, used := s.contents.Usage()
	return build.CacheRecord{ID: "contexts", Type: "source.local", Description: "files of build contexts", Size: size,
		CreatedAt: used, LastUsedAt: &used}, size > 0
}

// view is what records are described by.
type view struct {
	mounts string
	images map[digest.Digest]bool  // layers that images have; removing their records frees nothing
	disk   map[digest.Digest]int64 // what layers take, in bytes; a layer that was counted is not counted again
}

func (s *Service) view() (view, error) {
	disk, err := s.cfg.Images.Disk()
	v := view{mounts: s.mounts(), images: map[digest.Digest]bool{}, disk: disk.Layers}
	for _, img := range s.cfg.Images.List() {
		for _, l := range img.Layers {
			v.images[l.DiffID] = true
		}
	}
	return v, err
}

func (v view) describe(r cache.Status) build.CacheRecord {
	last := r.Used
	out := build.CacheRecord{ID: r.Key, Parents: r.Parents, Type: "regular", Description: r.About, InUse: r.InUse,
		Shared: r.Layer != "" && v.images[r.Layer], CreatedAt: r.Created, LastUsedAt: &last, UsageCount: r.Uses}
	if r.Layer != "" {
		out.Size = v.disk[r.Layer]
		delete(v.disk, r.Layer)
	}
	switch r.Kind {
	case "mount":
		out.Type = "exec.cachemount"
		out.Size, _ = files.Usage(filepath.Join(v.mounts, r.Key)) // none before its first use
	case "image":
		out.Type = "internal"
	}
	return out
}

// Prune removes the records that match and no build uses; without all, those stay that images share and that
// are internal. It returns their ids and the bytes won.
func (s *Service) Prune(ctx context.Context, all bool, f filter.Args) ([]string, int64, error) {
	if err := f.Only("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"); err != nil {
		return nil, 0, err
	}
	match, err := matcher(f)
	if err != nil {
		return nil, 0, err
	}
	s.settle(ctx)
	v, err := s.view()
	if err != nil {
		return nil, 0, err
	}
	var ids []string
	var won int64
	var layers []digest.Digest
	for _, r := range s.cache.List() {
		if err := ctx.Err(); err != nil {
			return ids, won, err
		}
		d := v.describe(r)
		if d.InUse || !all && (d.Shared || d.Type == "internal") || !match(d) || !s.cache.Remove(r.Key) {
			continue
		}
		if r.Kind == "mount" {
			if err := os.RemoveAll(filepath.Join(s.mounts(), r.Key)); err != nil {
				return ids, won, err
			}
		}
		ids = append(ids, d.ID)
		if !d.Shared {
			won += d.Size
		}
		if r.Layer != "" {
			layers = append(layers, r.Layer)
		}
	}
	if all && len(f) == 0 {
		if err := s.forgetAll(); err != nil {
			return ids, won, err
		}
	}
	if r, ok := s.contextRecord(); ok && match(r) {
		if n := s.contents.Shrink(0); n > 0 {
			ids, won = append(ids, r.ID), won+n
		}
	}
	// Now, not after the sweep's grace: the space is what the caller wants.
	if err := s.cfg.Images.Discard(layers...); err != nil {
		return ids, won, err
	}
	if s.cfg.Bus != nil {
		s.cfg.Bus.Publish(event.Event{Type: "builder", Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatInt(won, 10)}})
	}
	return ids, won, nil
}

// matcher turns the filters into a test.
func matcher(f filter.Args) (func(build.CacheRecord) bool, error) {
	cut := time.Now()
	for _, key := range []string{"until", "unused-for"} {
		for _, v := range f[key] {
			t, err := moment(v)
			if err != nil {
				return nil, err
			}
			if t.Before(cut) {
				cut = t
			}
		}
	}
	flags := map[string]bool{}
	for _, key := range []string{"inuse", "shared", "private"} {
		if f.Has(key) {
			on, err := f.Bool(key, true)
			if err != nil {
				return nil, err
			}
			flags[key] = on
		}
	}
	return func(r build.CacheRecord) bool {
		for key, got := range map[string]bool{"inuse": r.InUse, "shared": r.Shared, "private": !r.Shared} {
			if want, ok := flags[key]; ok && want != got {
				return false
			}
		}
		return r.LastUsedAt.Before(cut) &&
			f.Match("id", func(v string) bool { return strings.HasPrefix(r.ID, v) }) &&
			f.Match("type", func(v string) bool { return r.Type == v }) &&
			f.Match("description", func(v string) bool { return strings.Contains(r.Description, v) }) &&
			f.Match("parent", func(v string) bool {
				for _, p := range r.Parents {
					if strings.HasPrefix(p, v) {
						return true
					}
				}
				return false
			})
	}, nil
}

// moment reads a duration before now, a Unix time or a date.
func moment(v string) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.Invalid("invalid filter 'until=%s': no duration and no time", v)
}
