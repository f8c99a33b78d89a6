// Package image is the store of images: names → manifests → blobs and layers.
//
//	name        a full reference, docker.io/library/nginx:1.25
//	image       config + layers; its id is the digest of the config, as in Docker
//	manifest    what a registry serves for a name: config and compressed layers by digest
//	index       a manifest per platform
//	blob        bytes by digest (package blob)
//	layer       an unpacked layer by diffID (package layer)
//	hold        a user of an image or layer, by name; what is held is not removed
//
// DATA_ROOT/images is an OCI image layout that other tools can read: index.json
// lists the manifests, annotated with org.opencontainers.image.ref.name (the full
// name). DATA_ROOT/layers has the unpacked layers. A name is set last, so a
// crash leaves garbage, never a half image.
package image

import (
	"context"
	"io"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
	"tare/internal/image/blob"
	"tare/internal/image/layer"
)

// Config is an image's config blob.
type Config = dockerspec.DockerOCIImage

// Image is one image of this host's platform. It is a snapshot: later changes of names don't show in it.
type Image struct {
	ID       digest.Digest      // digest of the config blob
	Target   ocispec.Descriptor // the manifest or index that its names point at
	Manifest ocispec.Descriptor // the manifest of this platform
	Config   Config
	Names    []string // familiar form, "nginx:1.25"; sorted; none for a dangling image
	Digests  []string // familiar name@digest of the manifest or index as known to registries
	Size     int64    // bytes of its unpacked layers
	Created  time.Time
	Layers   []layer.Layer // bottom first
	Tagged   time.Time     // when its newest name was set
}

// Store is the images of one data root.
type Store struct {
	Blobs  *blob.Store
	Layers *layer.Store
}

// Open opens DATA_ROOT's images and layers, removes what a crash left, and publishes to bus.
func Open(dataRoot string, bus *event.Bus) (*Store, error) { return nil, fault.Unsupported("") }

// Get finds an image by name, name@digest, id or unique id prefix. Docker's words:
// NotFound "No such image: x".
func (s *Store) Get(ref string) (*Image, error) { return nil, fault.Unsupported("") }

// List returns all images, newest first.
func (s *Store) List() []*Image { return nil }

// Lower returns the overlay lower folders for an image, topmost first, ready to mount.
func (s *Store) Lower(img *Image) ([]string, error) { return nil, fault.Unsupported("") }

// LowerOf does the same for a list of diffIDs, bottom first (a build's state between steps).
func (s *Store) LowerOf(diffIDs []digest.Digest) ([]string, error) {
	return nil, fault.Unsupported("")
}

// Hold records holder (such as "container 4f…" or "build step k…") as a user of
// what it names: image ids or diffIDs. A second call with the same holder replaces the first. Holds live in
// memory; their owners take them again at start, before Sweep.
func (s *Store) Hold(holder string, ids ...digest.Digest) {}

// Release ends all that holder holds.
func (s *Store) Release(holder string) {}

// Holders lists who holds an image.
func (s *Store) Holders(id digest.Digest) []string { return nil }

// Tag lets name point at the image that ref names; the name's former image may become dangling.
func (s *Store) Tag(ref string, name reference.NamedTagged) error { return fault.Unsupported("") }

// Put makes an image from a config and layers that are already stored, compressed blobs included
// (see Commit), writes its manifest and sets names.
func (s *Store) Put(config *Config, layers []layer.Layer, names ...reference.NamedTagged) (*Image, error) {
	return nil, fault.Unsupported("")
}

// PutManifest makes the manifest or index d, whose blobs are stored and layers unpacked,
// known, records name@digest if name has a digest or came from a registry, and points name at it.
// Pull ends with it.
func (s *Store) PutManifest(d ocispec.Descriptor, name reference.Named) (*Image, error) {
	return nil, fault.Unsupported("")
}

// Commit turns an upper directory into a stored layer with its compressed blob (gzip, reproducible). The
// directory is consumed.
func (s *Store) Commit(ctx context.Context, upper string) (layer.Layer, error) {
	return layer.Layer{}, fault.Unsupported("")
}

// CommitTar does the same for an uncompressed tar stream.
func (s *Store) CommitTar(ctx context.Context, tar io.Reader) (layer.Layer, error) {
	return layer.Layer{}, fault.Unsupported("")
}

// Removed is one line of what a removal did.
type Removed struct {
	Untagged string // familiar name
	Deleted  string // image id or diffID with "sha256:"
}

// Remove removes a name, or with an id the whole image, by Docker's rules: an id with several names, or held by a
// running container, wants force; a held image keeps its data ("container stopped" holds too, Conflict without force).
func (s *Store) Remove(ref string, force, pruneParents bool) ([]Removed, error) {
	return nil, fault.Unsupported("")
}

// Prune removes unused images (dangling ones only unless the filter says dangling=false) and returns the bytes won.
func (s *Store) Prune(f filter.Args) ([]Removed, int64, error) { return nil, 0, fault.Unsupported("") }

// Sweep deletes blobs and layers that no name and no hold reaches. It runs beside pulls and builds.
func (s *Store) Sweep(ctx context.Context) (bytes int64, err error) {
	return 0, fault.Unsupported("")
}
