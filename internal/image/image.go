// Package image is the store of images: names → manifests → blobs and layers.
//
//	name        a full reference, docker.io/library/nginx:1.25
//	image       config + layers; its id is the digest of the config, as in Docker
//	manifest    what a registry serves for a name: config and compressed layers by digest
//	index       a manifest per platform
//	target      the manifest or index that a name points at
//	root        a target and the manifest chosen in it: what index.json keeps alive
//	blob        bytes by digest (package blob)
//	layer       an unpacked layer by diffID (package layer)
//	hold        a user of an image or layer, by name; what is held is not removed
//	dangling    an image without a tag
//
// DATA_ROOT/images is an OCI image layout that other tools can read: index.json
// lists the roots, once per name, annotated with org.opencontainers.image.ref.name (the full
// name). DATA_ROOT/layers has the unpacked layers. A name is set last, so a
// crash leaves garbage, never a half image.
//
// What the store knows is one immutable state in memory (the catalog). A change makes a new
// state, writes index.json, then swaps; readers wait for nobody. Lock order: Store.change, then holds.mu, then those of blobs and layers.
package image

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/image/blob"
	"tare/internal/image/layer"
)

// Config is an image's config blob.
type Config = dockerspec.DockerOCIImage

// Image is one image. It is a snapshot: later changes of names don't show in it. Nobody changes it.
type Image struct {
	ID       digest.Digest      // digest of the config blob
	Target   ocispec.Descriptor // the manifest or index that its newest name points at
	Manifest ocispec.Descriptor // the manifest of this platform
	Config   Config
	Names    []string // familiar form, "nginx:1.25"; sorted; none for a dangling image
	Digests  []string // familiar name@digest of the manifest or index as known to registries
	Size     int64    // bytes of its unpacked layers
	Created  time.Time
	Layers   []layer.Layer // bottom first
	Tagged   time.Time     // when its newest name was set
}

// Store is the images of one data root. Its methods are safe for concurrent use, by one process.
type Store struct {
	Blobs  *blob.Store
	Layers *layer.Store

	bus     *event.Bus
	parts   parts
	catalog *catalog
	holds   *holds
	garbage garbage

	change sync.Mutex // serializes changes of the catalog, and deletions
}

// Open opens DATA_ROOT's images and layers, removes what a crash left, and publishes to bus. Layers that a power cut
// took are unpacked again from their blobs.
func Open(dataRoot string, bus *event.Bus) (*Store, error) {
	if bus == nil {
		bus = &event.Bus{}
	}
	dir := filepath.Join(dataRoot, "images")
	blobs, err := blob.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open image store: %w", err)
	}
	layers, err := layer.Open(filepath.Join(dataRoot, "layers"))
	if err != nil {
		blobs.Close()
		return nil, fmt.Errorf("cannot open layer store: %w", err)
	}
	s := &Store{Blobs: blobs, Layers: layers, bus: bus, parts: parts{blobs, layers}, holds: &holds{by: map[string][]digest.Digest{}}}
	if s.catalog, err = openCatalog(dir, s.parts); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot open image store: %w", err)
	}
	s.garbage = garbage{s.parts, s.catalog, s.holds, &arrivals{}}
	return s, nil
}

// Close stops background work; the store must not be used afterwards.
func (s *Store) Close() {
	s.Blobs.Close()
	s.Layers.Close()
}

// Get finds an image by name, name@digest, id or unique id prefix. Docker's words:
// NotFound "No such image: x". An image that was removed by force while somebody holds it is found by its full
// id ("sha256:…") only, so that its containers can go on.
func (s *Store) Get(ref string) (*Image, error) {
	img, _, err := s.catalog.now().find(ref)
	return img, err
}

// find also tells whether ref is an id (or prefix of one) and not a name.
func (st *state) find(ref string) (img *Image, byID bool, err error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil {
		return nil, false, fault.Invalid("%w", err)
	}
	named, ok := parsed.(reference.Named)
	if !ok {
		d, _ := parsed.(reference.Digested)
		if img, ok := st.images[d.Digest()]; ok {
			return img, true, nil
		}
		if img, ok := st.hidden[d.Digest()]; ok {
			return img, true, nil
		}
		return nil, false, fault.NotFound("No such image: %s", ref)
	}
	if n, ok := st.names[nameKey(named)]; ok {
		if img, ok := st.images[st.roots[n.root].image]; ok {
			return img, false, nil
		}
	}
	if img := st.byPrefix(ref); img != nil {
		return img, true, nil
	}
	return nil, false, fault.NotFound("No such image: %s", reference.FamiliarString(reference.TagNameOnly(named)))
}

// nameKey is the full name to look up: with tag and digest, the digest decides; with neither, the tag is latest.
func nameKey(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		if c, err := reference.WithDigest(reference.TrimNamed(named), d.Digest()); err == nil {
			return c.String()
		}
	}
	return reference.TagNameOnly(named).String()
}

// List returns all images, newest first.
func (s *Store) List() []*Image { return slices.Clone(s.catalog.now().list) }

// Lower returns the overlay lower folders for an image, topmost first, ready to mount.
func (s *Store) Lower(img *Image) ([]string, error) { return s.LowerOf(img.Config.RootFS.DiffIDs) }

// LowerOf does the same for a list of diffIDs, bottom first (a build's state between steps). There is always at least one folder.
func (s *Store) LowerOf(diffIDs []digest.Digest) ([]string, error) { return s.Layers.Chain(diffIDs) }

// Announce publishes what happened to an image: Docker's action, and the name it happened to (or the id). The store itself
// announces tag, untag and delete; whoever pulls, pushes, loads, saves or imports announces that.
func (s *Store) Announce(action string, img *Image, name string) {
	attrs := map[string]string{}
	for k, v := range img.Config.Config.Labels {
		attrs[k] = v
	}
	attrs["name"] = name
	s.bus.Publish(event.Event{Type: "image", Action: action, ID: img.ID.String(), Attributes: attrs})
}

// byPrefix finds the one image whose id begins with ref.
func (st *state) byPrefix(ref string) *Image {
	prefix := strings.TrimPrefix(ref, "sha256:")
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil
	}
	var found *Image
	for id, img := range st.images {
		if strings.HasPrefix(id.Encoded(), prefix) {
			if found != nil {
				return nil // ambiguous
			}
			found = img
		}
	}
	return found
}
