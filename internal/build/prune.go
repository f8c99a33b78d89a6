package build

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/base/filter"
	"tare/internal/build/cache"
)

// Cache lists the cache's records, oldest first.
func (s *Service) Cache() ([]build.CacheRecord, error) { return s.pruner.list() }

// Prune removes the records that match and no build uses; without all, those stay that images share and that
// are internal. It returns their ids and the bytes won.
func (s *Service) Prune(ctx context.Context, all bool, f filter.Args, keep Keep) ([]string, int64, error) {
	return s.pruner.prune(ctx, all, f, keep)
}

// pruner knows what builds keep on disk, and takes from it: records with their layers, cache folders, files of contexts, stories.
type pruner struct {
	root     string // DATA_ROOT/build
	limit    int64  // in bytes, as in Config
	images   Images
	bus      *event.Bus
	cache    *cache.Cache
	contexts *contexts
	mounts   *mounts
	stories  stories
	running  *running

	mu        sync.Mutex // guards collected
	collected time.Time  // when the cache was last looked after
}

func (p *pruner) list() ([]build.CacheRecord, error) {
	v, err := p.view()
	if err != nil {
		return nil, err
	}
	list := p.cache.List()
	out := make([]build.CacheRecord, 0, len(list))
	for _, r := range list {
		out = append(out, v.describe(r))
	}
	if r, ok := p.contexts.record(); ok {
		out = append(out, r)
	}
	return out, nil
}

// record describes what is kept of build contexts, as one record.
func (c *contexts) record() (build.CacheRecord, bool) {
	size, used := c.contents.Usage()
	return build.CacheRecord{ID: "contexts", Type: "source.local", Description: "files of build contexts", Size: size,
		CreatedAt: used, LastUsedAt: &used}, size > 0
}

// view is what records are described by.
type view struct {
	mounts *mounts
	images map[digest.Digest]bool  // layers that images have; removing their records frees nothing
	disk   map[digest.Digest]int64 // what layers take, in bytes; a layer that was counted is not counted again
}

func (p *pruner) view() (view, error) {
	disk, err := p.images.Disk()
	v := view{mounts: p.mounts, images: map[digest.Digest]bool{}, disk: disk.Layers}
	for _, img := range p.images.List() {
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
		out.Size, _ = files.Usage(v.mounts.path(r.Key)) // none before its first use
	case "image":
		out.Type = "internal"
	}
	return out
}

// Keep says how much of the cache stays, in bytes; the zero value keeps nothing. What was used longest ago goes first.
type Keep struct {
	Reserved int64 // so much stays whatever the others say
	Most     int64 // no more than so much stays
	Free     int64 // so much is to be free on the disk
}

// bytes is how much may stay of what is used.
func (k Keep) bytes(used int64, dir string) (int64, error) {
	keep := k.Reserved
	if k.Most > 0 {
		keep = k.Most
	}
	if k.Free > 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return 0, err
		}
		free := int64(st.Bavail) * st.Bsize
		if after := used - (k.Free - free); k.Most == 0 || after < keep {
			keep = after
		}
	}
	return max(keep, k.Reserved), nil
}

func (p *pruner) prune(ctx context.Context, all bool, f filter.Args, keep Keep) ([]string, int64, error) {
	if err := f.Only("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"); err != nil {
		return nil, 0, err
	}
	match, err := matcher(f)
	if err != nil {
		return nil, 0, err
	}
	p.running.settle(ctx)
	v, err := p.view()
	if err != nil {
		return nil, 0, err
	}
	var ids []string
	var won int64
	var layers []digest.Digest
	records := p.cache.List()
	slices.SortStableFunc(records, func(a, b cache.Status) int { return a.Used.Compare(b.Used) })
	described := make([]build.CacheRecord, len(records))
	used, _ := p.contexts.contents.Usage()
	for i, r := range slices.Backward(records) { // a layer counts with the record that was used last
		described[i] = v.describe(r)
		if !described[i].Shared {
			used += described[i].Size
		}
	}
	stay, err := keep.bytes(used, p.root)
	if err != nil {
		return nil, 0, err
	}
	if r, ok := p.contexts.record(); ok && match(r) && used > stay { // it only saves transfers: it goes first
		if n := p.contexts.contents.Shrink(max(0, r.Size-(used-stay))); n > 0 {
			ids, won = append(ids, r.ID), won+n
		}
	}
	for i, r := range records {
		if err := ctx.Err(); err != nil {
			return ids, won, err
		}
		if keep != (Keep{}) && used-won <= stay {
			break
		}
		d := described[i]
		if d.InUse || !all && (d.Shared || d.Type == "internal") || !match(d) || !p.cache.Remove(r.Key) {
			continue
		}
		if r.Kind == "mount" {
			if err := os.RemoveAll(p.mounts.path(r.Key)); err != nil {
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
	if all && len(f) == 0 && keep == (Keep{}) {
		if err := p.stories.forgetAll(); err != nil {
			return ids, won, err
		}
	}
	// Now, not after the sweep's grace: the space is what the caller wants.
	if err := p.images.Discard(layers...); err != nil {
		return ids, won, err
	}
	if p.bus != nil {
		p.bus.Publish(event.Event{Type: "builder", Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatInt(won, 10)}})
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

// How much the cache may take if the configuration does not say, in hundredths of the disk; how long a record stays unused; and how often
// that is looked after.
const (
	cacheShare    = 10
	cacheAge      = 60 * 24 * time.Hour
	collectPeriod = 10 * time.Minute
)

// collect removes what is too much or too old, at most once in a while.
func (p *pruner) collect(ctx context.Context) {
	p.mu.Lock()
	due := time.Since(p.collected) > collectPeriod
	if due {
		p.collected = time.Now()
	}
	p.mu.Unlock()
	if !due {
		return
	}
	limit := p.limit
	if limit == 0 {
		var st unix.Statfs_t
		if unix.Statfs(p.root, &st) != nil {
			return
		}
		limit = int64(st.Blocks) * st.Bsize / 100 * cacheShare
	}
	// What can't be removed now is tried again the next time.
	p.prune(ctx, true, filter.Args{"unused-for": {cacheAge.String()}}, Keep{})
	p.prune(ctx, true, nil, Keep{Most: limit})
}
