package image

import (
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/files"
)

// catalog is the state and its file, index.json.
type catalog struct {
	dir   string // DATA_ROOT/images
	parts parts
	moves moves
	state atomic.Pointer[state]
}

func openCatalog(dir string, p parts) (*catalog, error) {
	c := &catalog{dir: dir, parts: p, moves: moves{filepath.Join(dir, movesFile)}}
	return c, c.load()
}

func (c *catalog) now() *state { return c.state.Load() }

// load reads index.json. A root whose parts are gone is dropped, with a warning.
func (c *catalog) load() error {
	if err := files.Sweep(c.dir); err != nil {
		return err
	}
	if err := files.Write(filepath.Join(c.dir, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion": "1.0.0"}`+"\n"), 0o644, files.Fast); err != nil {
		return err
	}
	entries, err := readIndex(filepath.Join(c.dir, ocispec.ImageIndexFile))
	if err != nil {
		return err
	}
	next := newState()
	for _, e := range entries {
		if e.subject != "" {
			next.referrers[e.subject] = append(next.referrers[e.subject], e.target)
		}
	}
	for _, e := range entries {
		if e.subject != "" {
			continue
		}
		if err := c.restore(next, e); err != nil {
			slog.Warn("image dropped", "name", e.name, "digest", e.target.Digest, "error", err)
		}
	}
	c.derive(next)
	c.state.Store(next)
	return c.moves.catchUp(next)
}

func (c *catalog) restore(next *state, e entry) error {
	r, err := c.parts.resolve(e.target, e.manifest)
	if err != nil {
		return err
	}
	r.attached = c.parts.attached(r, next.referrers)
	if err := c.parts.mend(r); err != nil {
		return err
	}
	r.removed, r.since = e.removed, e.since
	next.roots[r.key()] = r
	if e.name == "" {
		return nil
	}
	ref, err := reference.ParseNormalizedNamed(e.name)
	if err != nil {
		return err
	}
	next.names[e.name] = name{ref: ref, root: r.key(), since: e.since}
	return nil
}

// update changes the state: f works on a copy, which is tidied, written and then used.
// The caller holds Store.change.
func (c *catalog) update(f func(*state) error) error {
	next := c.now().clone()
	if err := f(next); err != nil {
		return err
	}
	next.tidy()
	c.derive(next)
	if err := c.writeIndex(next); err != nil {
		return err
	}
	old := c.now()
	c.state.Store(next)
	if err := c.moves.add(between(old, next, time.Now())); err != nil {
		slog.Warn("cannot record how names moved; the next start does", "error", err)
	}
	return nil
}

// derive makes the images that the roots and names describe.
func (c *catalog) derive(st *state) {
	st.images, st.hidden, st.list = map[digest.Digest]*Image{}, map[digest.Digest]*Image{}, nil
	chosen := map[digest.Digest]time.Time{}
	for _, k := range slices.SortedFunc(maps.Keys(st.roots), compareKeys) {
		r := st.roots[k]
		if r.removed {
			st.hidden[r.image] = c.parts.describe(r)
			continue
		}
		if _, ok := st.images[r.image]; !ok {
			st.images[r.image] = c.parts.describe(r)
			chosen[r.image] = r.since
		}
	}
	for _, full := range slices.Sorted(maps.Keys(st.names)) {
		n := st.names[full]
		r := st.roots[n.root]
		img := st.images[r.image]
		familiar := reference.FamiliarString(n.ref)
		if !n.tag() {
			img.Digests = append(img.Digests, familiar)
			continue
		}
		img.Names = append(img.Names, familiar)
		if n.since.After(img.Tagged) {
			img.Tagged = n.since
		}
		if !n.since.Before(chosen[r.image]) || len(img.Names) == 1 {
			img.Target, img.Manifest, chosen[r.image] = r.target, r.manifest, n.since
		}
	}
	for _, img := range st.images {
		slices.Sort(img.Names)
		slices.Sort(img.Digests)
	}
	st.list = slices.SortedFunc(maps.Values(st.images), func(a, b *Image) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
}

// writeIndex makes the state durable.
func (c *catalog) writeIndex(st *state) error {
	idx := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	idx.SchemaVersion = 2
	add := func(r *root, full string, since time.Time) {
		d := r.target
		d.Annotations = map[string]string{annotationSince: since.UTC().Format(time.RFC3339Nano)}
		if full != "" {
			d.Annotations[ocispec.AnnotationRefName] = full
		}
		if r.target.Digest != r.manifest.Digest {
			d.Annotations[annotationManifest] = r.manifest.Digest.String()
		}
		if r.removed {
			d.Annotations[annotationRemoved] = "true"
		}
		idx.Manifests = append(idx.Manifests, d)
	}
	named := map[rootKey]bool{}
	for _, full := range slices.Sorted(maps.Keys(st.names)) {
		n := st.names[full]
		named[n.root] = true
		add(st.roots[n.root], full, n.since)
	}
	for _, k := range slices.SortedFunc(maps.Keys(st.roots), compareKeys) {
		if !named[k] {
			add(st.roots[k], "", st.roots[k].since)
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(st.referrers)) {
		for _, d := range st.referrers[subject] {
			d.Annotations = map[string]string{annotationSubject: subject.String()}
			idx.Manifests = append(idx.Manifests, d)
		}
	}
	return files.WriteJSON(filepath.Join(c.dir, ocispec.ImageIndexFile), idx, files.Synced)
}
