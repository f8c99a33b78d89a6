package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/hub/audit"
	"tare/internal/hub/notify"
	"tare/internal/hub/retention"
)

// Garbage is a blob link that no manifest of its repository refers to, and that nobody pinned; a blob without a link;
// an upload that nobody goes on with. It is looked for while the registry serves, in repositories that changed.
// Nobody waits for more than the removal of a few files: manifests are read without any lock, and each link is looked at
// again under the lock before it goes. A manifest that is pushed meanwhile pins its blobs first.

// collectForever looks for garbage until ctx ends.
func (h *Hub) collectForever(ctx context.Context) {
	t := time.NewTicker(h.config.GC.Interval.Std())
	defer t.Stop()
	for {
		if err := h.Collect(ctx); err != nil && ctx.Err() == nil {
			h.log.Error("garbage collection failed and will be repeated", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Collect removes garbage, once, after what the retention rules take.
func (h *Hub) Collect(ctx context.Context) error {
	h.collecting.Lock()
	defer h.collecting.Unlock()
	began := time.Now()
	if err := h.retain(ctx); err != nil {
		return err
	}
	var freed int64
	var links, blobs int
	for _, name := range h.index.takeDirty() {
		n, b, f, later, err := h.collectRepository(ctx, name)
		if later || err != nil {
			h.index.markDirty(name)
		}
		if err != nil {
			return err
		}
		links, blobs, freed = links+n, blobs+b, freed+f
	}
	if began.Sub(h.orphansAt) > time.Hour {
		b, f, err := h.collectOrphans(ctx)
		if err != nil {
			return err
		}
		h.orphansAt = began
		blobs, freed = blobs+b, freed+f
	}
	h.pins.expire()
	if err := h.sweep(h.config.GC.Uploads.Std()); err != nil {
		return err
	}
	h.meters.garbage.Add(int64(links), "link")
	h.meters.garbage.Add(int64(blobs), "blob")
	h.meters.freed.Add(freed)
	if links+blobs > 0 {
		h.log.Info("garbage collected", "links", links, "blobs", blobs, "bytes", freed, "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// digestsIn lists a folder of records by algorithm, with the time of each.
func digestsIn(dir string) (map[digest.Digest]time.Time, error) {
	all := map[digest.Digest]time.Time{}
	for _, alg := range []string{"sha256", "sha512"} {
		entries, err := os.ReadDir(filepath.Join(dir, alg))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if d, err := parseDigest(alg + ":" + e.Name()); err == nil {
				if info, err := e.Info(); err == nil {
					all[d] = info.ModTime()
				}
			}
		}
	}
	return all, nil
}

// references are the blobs that a repository's manifests name.
func (s *shelf) references(ctx context.Context, name string) (map[digest.Digest]bool, error) {
	manifests, err := digestsIn(filepath.Join(s.repository(name), "_manifests"))
	if err != nil {
		return nil, err
	}
	refs := map[digest.Digest]bool{}
	for d := range manifests {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec, data, err := s.stored(name, d)
		if err != nil {
			if !exists(s.manifestLink(name, d)) {
				continue // it has gone since
			}
			return nil, fmt.Errorf("manifest %s of %s: %w", d, name, err) // what it refers to isn't known: nothing of the repository may go
		}
		m, err := parseManifest(data, rec.MediaType)
		if err != nil {
			return nil, err
		}
		for _, b := range m.blobs() {
			refs[b] = true
		}
	}
	return refs, nil
}

// collectRepository removes links; later tells that there are some whose time has not come.
func (h *Hub) collectRepository(ctx context.Context, name string) (links, blobs int, freed int64, later bool, err error) {
	looked := time.Now()
	refs, err := h.references(ctx, name)
	if err != nil {
		return
	}
	have, err := digestsIn(filepath.Join(h.repository(name), "_blobs"))
	if err != nil {
		return
	}
	for d, linked := range have {
		if refs[d] {
			continue
		}
		if !h.pins.free(name, d, looked, linked) {
			later = true
			continue
		}
		gone, n, dropErr := h.collectLink(name, d, looked, linked)
		if dropErr != nil {
			err = dropErr
			return
		}
		if gone {
			links++
			freed += n
			if n > 0 {
				blobs++
			}
		}
	}
	expected, err := digestsIn(filepath.Join(h.repository(name), "_upstream"))
	if err != nil {
		return
	}
	for d, noted := range expected {
		if !refs[d] && looked.Sub(noted) > time.Minute {
			os.Remove(h.upstreamLink(name, d))
		}
	}
	h.removeEmpty(name)
	return
}

// collectLink looks again, under the lock, and removes.
func (h *Hub) collectLink(name string, d digest.Digest, looked, linked time.Time) (gone bool, freed int64, err error) {
	h.links.Lock()
	defer h.links.Unlock()
	if !h.pins.free(name, d, looked, linked) {
		return false, 0, nil
	}
	// No sync: a link that comes back after a power cut is garbage once more, and without its blob it is nothing.
	if err := os.Remove(h.blobLink(name, d)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, 0, err
	}
	h.index.remove(d, name, false)
	freed, err = h.dropUnlinked(d)
	return true, freed, err
}

// removeEmpty removes the folders of a repository that has nothing left and did not change for the grace time.
func (h *Hub) removeEmpty(name string) {
	h.links.Lock()
	defer h.links.Unlock()
	dir := h.repository(name)
	for _, sub := range []string{"_manifests", "_blobs"} {
		if info, err := os.Stat(filepath.Join(dir, sub)); err == nil && time.Since(info.ModTime()) < h.config.GC.Grace.Std() {
			return
		}
	}
	for _, sub := range []string{"_tags", "_referrers", "_upstream", "_manifests", "_blobs"} {
		for _, alg := range []string{"sha256", "sha512", ""} {
			if err := os.Remove(filepath.Join(dir, sub, alg)); err != nil && alg == "" && !errors.Is(err, fs.ErrNotExist) {
				return
			}
		}
	}
	for dir != filepath.Join(h.root, "repositories") && os.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
}

// collectOrphans removes blobs without any link: a registry that was killed between the two leaves such.
func (h *Hub) collectOrphans(ctx context.Context) (blobs int, freed int64, err error) {
	var orphans []digest.Digest
	err = h.blobs.Walk(func(d digest.Digest, size int64) error {
		if !h.index.used(d) {
			orphans = append(orphans, d)
		}
		return ctx.Err()
	})
	if err != nil {
		return 0, 0, err
	}
	for _, d := range orphans {
		h.links.Lock()
		n, dropErr := h.dropUnlinked(d)
		h.links.Unlock()
		if dropErr != nil {
			return blobs, freed, dropErr
		}
		if n > 0 {
			blobs++
			freed += n
		}
	}
	return blobs, freed, nil
}

// retain carries out the retention rules.
func (h *Hub) retain(ctx context.Context) error {
	if len(h.config.Retention) == 0 {
		return nil
	}
	for _, name := range h.index.names() {
		if err := ctx.Err(); err != nil {
			return err
		}
		state, err := h.state(name)
		if err != nil {
			return err
		}
		steps := retention.Plan(state, h.config.Retention, time.Now(), func(tag string) bool { return h.immutable(name, tag) })
		for _, s := range steps {
			if err := h.carryOut(name, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// state is a repository as the rules see it.
func (s *shelf) state(name string) (retention.Repository, error) {
	r := retention.Repository{Name: name}
	tags, err := s.tagsOf(name)
	if err != nil {
		return r, err
	}
	for _, t := range tags {
		info, err := os.Stat(s.tagLink(name, t))
		if err != nil {
			continue
		}
		if d, err := s.tagged(name, t); err == nil {
			r.Tags = append(r.Tags, retention.Tag{Name: t, Digest: d.String(), Set: info.ModTime()})
		}
	}
	manifests, err := digestsIn(filepath.Join(s.repository(name), "_manifests"))
	if err != nil {
		return r, err
	}
	for d, at := range manifests {
		rec, data, err := s.stored(name, d)
		if err != nil {
			continue
		}
		m := retention.Manifest{Digest: d.String(), Pushed: rec.Pushed, Pulled: at}
		if rec.Pushed.IsZero() {
			m.Pushed = at
		}
		if parsed, err := parseManifest(data, rec.MediaType); err == nil {
			for _, p := range parsed.Manifests {
				m.Parts = append(m.Parts, p.Digest.String())
			}
			if parsed.Subject != nil {
				m.Of = parsed.Subject.Digest.String()
			}
		}
		r.Manifests = append(r.Manifests, m)
	}
	return r, nil
}

// carryOut removes what a rule takes, if it is still as it was.
func (h *Hub) carryOut(name string, s retention.Step) error {
	h.links.Lock()
	defer h.links.Unlock()
	d, err := parseDigest(s.Digest)
	if err != nil {
		return err
	}
	e := audit.Entry{Actor: "retention", Action: "delete", Object: "manifest", Repository: name, Digest: s.Digest, Reason: s.Reason}
	if s.Tag != "" {
		if now, err := h.tagged(name, s.Tag); err != nil || now != d {
			return nil
		}
		e.Object, e.Tag = "tag", s.Tag
		if err := h.unlink(h.tagLink(name, s.Tag)); err != nil {
			return err
		}
	} else {
		tags, err := h.tagsFor(name, d)
		if err != nil || len(tags) > 0 {
			return err
		}
		freed, err := h.dropManifest(name, d, nil)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		h.meters.freed.Add(freed)
	}
	h.meters.garbage.Add(1, e.Object)
	h.log.Info("retention", "repository", name, "tag", s.Tag, "digest", s.Digest, "reason", s.Reason)
	if err := h.audit.Write(e); err != nil {
		h.log.Error("cannot write audit log", "error", err)
	}
	return h.hooks.Send(notify.Event{Action: "delete", Target: notify.Target{Repository: name, Tag: s.Tag, Digest: s.Digest},
		Actor: notify.Actor{Name: "retention"}, Source: notify.Source{Addr: h.config.Listen}})
}
