package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/image/layer"
)

// state is all the store knows at one time. It does not change once it is in use.
type state struct {
	roots map[rootKey]*root
	names map[string]name // by full name

	// derived
	images map[digest.Digest]*Image
	hidden map[digest.Digest]*Image // removed by force, but held
	list   []*Image
}

// rootKey is a root's identity: one index may stand for several images, one per platform that was pulled.
type rootKey struct{ target, manifest digest.Digest }

type root struct {
	target   ocispec.Descriptor
	manifest ocispec.Descriptor
	image    digest.Digest
	config   *Config
	layers   []ocispec.Descriptor // as the manifest has them
	removed  bool                 // by force; kept for those who hold the image
	since    time.Time
}

func (r *root) key() rootKey { return rootKey{r.target.Digest, r.manifest.Digest} }

// blobs are all blobs that a root keeps, index and manifest included.
func (r *root) blobs() []digest.Digest {
	all := []digest.Digest{r.target.Digest, r.manifest.Digest, r.image}
	for _, l := range r.layers {
		all = append(all, l.Digest)
	}
	return all
}

// name is a tag, or a name@digest that a registry knows.
type name struct {
	ref   reference.Named
	root  rootKey
	since time.Time
}

func (n name) tag() bool { _, ok := n.ref.(reference.Tagged); return ok }

func newState() *state {
	return &state{roots: map[rootKey]*root{}, names: map[string]name{}}
}

func (st *state) clone() *state {
	return &state{roots: maps.Clone(st.roots), names: maps.Clone(st.names)}
}

// update changes the state: f works on a copy, which is tidied, written and then used.
// The caller holds s.change.
func (s *Store) update(f func(*state) error) error {
	next := s.state.Load().clone()
	if err := f(next); err != nil {
		return err
	}
	next.tidy()
	s.derive(next)
	if err := s.writeIndex(next); err != nil {
		return err
	}
	s.state.Store(next)
	return nil
}

// tidy drops roots that nothing needs: an image keeps those with names, or if it has none, the newest one.
func (st *state) tidy() {
	named := map[rootKey]bool{}
	for _, n := range st.names {
		named[n.root] = true
	}
	best := map[digest.Digest]*root{}
	for k, r := range st.roots {
		b := best[r.image]
		if b == nil || named[k] && !named[b.key()] || named[k] == named[b.key()] && r.since.After(b.since) {
			best[r.image] = r
		}
	}
	for k, r := range st.roots {
		if !named[k] && best[r.image] != r {
			delete(st.roots, k)
		}
	}
}

// derive makes the images that the roots and names describe.
func (s *Store) derive(st *state) {
	st.images, st.hidden, st.list = map[digest.Digest]*Image{}, map[digest.Digest]*Image{}, nil
	chosen := map[digest.Digest]time.Time{}
	for _, k := range slices.SortedFunc(maps.Keys(st.roots), compareKeys) {
		r := st.roots[k]
		if r.removed {
			st.hidden[r.image] = s.makeImage(r)
			continue
		}
		if _, ok := st.images[r.image]; !ok {
			st.images[r.image] = s.makeImage(r)
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

func compareKeys(a, b rootKey) int {
	if c := strings.Compare(string(a.target), string(b.target)); c != 0 {
		return c
	}
	return strings.Compare(string(a.manifest), string(b.manifest))
}

// makeImage describes a root's image. A layer that somebody took away shows without a size; Lower will tell.
func (s *Store) makeImage(r *root) *Image {
	img := &Image{ID: r.image, Target: r.target, Manifest: r.manifest, Config: *r.config}
	if r.config.Created != nil {
		img.Created = *r.config.Created
	}
	for _, d := range r.config.RootFS.DiffIDs {
		l, err := s.Layers.Get(d)
		if err != nil {
			l = layer.Layer{DiffID: d}
		}
		img.Layers = append(img.Layers, l)
		img.Size += l.Size
	}
	return img
}

// Media types besides OCI's.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
}

// resolve reads what a target needs. chosen is the manifest to take of an index, "" leaves the choice here: the target's
// own platform, else this host's, else the one that is in the store.
func (s *Store) resolve(target ocispec.Descriptor, chosen digest.Digest) (*root, error) {
	r := &root{target: clean(target), since: time.Now()}
	manifest := r.target
	if isIndex(target.MediaType) {
		var idx ocispec.Index
		if err := s.readJSON(target.Digest, &idx); err != nil {
			return nil, err
		}
		var err error
		if manifest, err = s.choose(idx.Manifests, target.Platform, chosen); err != nil {
			return nil, fault.Invalid("index %s: %w", target.Digest, err)
		}
	}
	r.manifest = manifest
	var m ocispec.Manifest
	if err := s.readJSON(manifest.Digest, &m); err != nil {
		return nil, err
	}
	if manifest.MediaType != ocispec.MediaTypeImageManifest && manifest.MediaType != dockerManifest {
		return nil, fault.Invalid("manifest %s has media type %q, which is not an image's", manifest.Digest, manifest.MediaType)
	}
	r.image, r.layers, r.config = m.Config.Digest, m.Layers, &Config{}
	if err := s.readJSON(m.Config.Digest, r.config); err != nil {
		return nil, err
	}
	if len(r.config.RootFS.DiffIDs) != len(r.layers) {
		return nil, fault.Invalid("manifest %s has %d layers, its config %d", manifest.Digest, len(r.layers), len(r.config.RootFS.DiffIDs))
	}
	return r, nil
}

// clean is a descriptor without what a place it came from noted in it.
func clean(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func (s *Store) readJSON(d digest.Digest, v any) error {
	data, err := s.Blobs.Bytes(d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fault.Invalid("cannot read blob %s: %w", d, err)
	}
	return nil
}

func (s *Store) choose(entries []ocispec.Descriptor, want *ocispec.Platform, chosen digest.Digest) (ocispec.Descriptor, error) {
	if want == nil {
		want = &ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	}
	best, rank := ocispec.Descriptor{}, 0
	for _, e := range entries {
		if isIndex(e.MediaType) || e.Platform != nil && e.Platform.OS == "unknown" {
			continue // attestations
		}
		have := s.whole(e.Digest)
		score := 0
		switch {
		case chosen != "":
			if e.Digest == chosen {
				score = 4
			}
		case have && e.Platform != nil && e.Platform.OS == want.OS && e.Platform.Architecture == want.Architecture:
			score = 2
			if want.Variant == e.Platform.Variant {
				score = 3
			}
		case have:
			score = 1
		}
		if score > rank {
			best, rank = e, score
		}
	}
	if rank == 0 {
		return best, errNoPlatform
	}
	return clean(best), nil
}

// whole tells whether a manifest and its config are in the store.
func (s *Store) whole(d digest.Digest) bool {
	var m ocispec.Manifest
	if s.readJSON(d, &m) != nil {
		return false
	}
	_, err := s.Blobs.Size(m.Config.Digest)
	return err == nil
}

// Annotations of index.json's entries.
const (
	annotationManifest = "tare.manifest" // the chosen manifest of an index
	annotationSince    = "tare.since"    // when the name was set, or the image came
	annotationRemoved  = "tare.removed"  // removed by force, kept for holders
)

// entry is a line of index.json.
type entry struct {
	target   ocispec.Descriptor
	manifest digest.Digest // "" if the target is the manifest
	name     string        // full, "" for none
	since    time.Time
	removed  bool
}

func readIndex(path string) ([]entry, error) {
	var idx ocispec.Index
	err := files.ReadJSON(path, &idx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, d := range idx.Manifests {
		e := entry{
			target:   clean(d),
			manifest: digest.Digest(d.Annotations[annotationManifest]),
			name:     d.Annotations[ocispec.AnnotationRefName],
			removed:  d.Annotations[annotationRemoved] != "",
		}
		e.since, _ = time.Parse(time.RFC3339Nano, d.Annotations[annotationSince])
		all = append(all, e)
	}
	return all, nil
}

// writeIndex makes the state durable.
func (s *Store) writeIndex(st *state) error {
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
	return files.WriteJSON(filepath.Join(s.dir, ocispec.ImageIndexFile), idx, files.Synced)
}

// layersOf lists the records of an image's layers; those that are gone are left out.
func (s *Store) layersOf(r *root) []layer.Layer {
	var all []layer.Layer
	for _, d := range r.config.RootFS.DiffIDs {
		if l, err := s.Layers.Get(d); err == nil {
			all = append(all, l)
		}
	}
	return all
}
