package image

import (
	"errors"
	"io/fs"
	"maps"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/files"
)

// state is all the store knows at one time. It does not change once it is in use.
type state struct {
	roots map[rootKey]*root
	names map[string]name // by full name
	// referrers are manifests that say something of another one (distribution-spec 1.1): signatures, statements, bills of materials; by the digest of
	// what they are about. They stay as long as that is an image's target or manifest.
	referrers map[digest.Digest][]ocispec.Descriptor

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
	conf     ocispec.Descriptor   // of the config
	attached []ocispec.Descriptor // attestations and referrers: their manifests, each with its blobs after it
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
	for _, a := range r.attached {
		all = append(all, a.Digest)
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
	return &state{roots: map[rootKey]*root{}, names: map[string]name{}, referrers: map[digest.Digest][]ocispec.Descriptor{}}
}

func (st *state) clone() *state {
	return &state{roots: maps.Clone(st.roots), names: maps.Clone(st.names), referrers: maps.Clone(st.referrers)}
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
	about := map[digest.Digest]bool{}
	for k := range st.roots {
		about[k.target], about[k.manifest] = true, true
	}
	for d := range st.referrers {
		if !about[d] {
			delete(st.referrers, d)
		}
	}
}

func compareKeys(a, b rootKey) int {
	if c := strings.Compare(string(a.target), string(b.target)); c != 0 {
		return c
	}
	return strings.Compare(string(a.manifest), string(b.manifest))
}

// Annotations of index.json's entries.
const (
	annotationManifest = "tare.manifest" // the chosen manifest of an index
	annotationSince    = "tare.since"    // when the name was set, or the image came
	annotationRemoved  = "tare.removed"  // removed by force, kept for holders
	annotationSubject  = "tare.subject"  // what a referrer is about
)

// entry is a line of index.json.
type entry struct {
	target   ocispec.Descriptor
	manifest digest.Digest // "" if the target is the manifest
	name     string        // full, "" for none
	since    time.Time
	removed  bool
	subject  digest.Digest // "" for what is no referrer
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
			subject:  digest.Digest(d.Annotations[annotationSubject]),
		}
		e.since, _ = time.Parse(time.RFC3339Nano, d.Annotations[annotationSince])
		all = append(all, e)
	}
	return all, nil
}
