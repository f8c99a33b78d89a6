package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/image/blob"
	"tare/internal/image/compress"
	"tare/internal/image/layer"
)

// parts are what images consist of: blobs and layers, and how one is made from the other.
type parts struct {
	blobs  *blob.Store
	layers *layer.Store
}

var errNoPlatform = errors.New("no platform of the index is in the store")

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
func (p parts) resolve(target ocispec.Descriptor, chosen digest.Digest) (*root, error) {
	r := &root{target: clean(target), since: time.Now()}
	manifest := r.target
	if isIndex(target.MediaType) {
		var idx ocispec.Index
		if err := p.readJSON(target.Digest, &idx); err != nil {
			return nil, err
		}
		var err error
		if manifest, err = p.choose(idx.Manifests, target.Platform, chosen); err != nil {
			return nil, fault.Invalid("index %s: %w", target.Digest, err)
		}
	}
	r.manifest = manifest
	var m ocispec.Manifest
	if err := p.readJSON(manifest.Digest, &m); err != nil {
		return nil, err
	}
	if manifest.MediaType != ocispec.MediaTypeImageManifest && manifest.MediaType != dockerManifest {
		return nil, fault.Invalid("manifest %s has media type %q, which is not an image's", manifest.Digest, manifest.MediaType)
	}
	r.image, r.layers, r.config, r.conf = m.Config.Digest, m.Layers, &Config{}, m.Config
	if err := p.readJSON(m.Config.Digest, r.config); err != nil {
		return nil, err
	}
	if len(r.layers) > MaxLayers {
		return nil, fault.Invalid("manifest %s has %d layers, more than %d", manifest.Digest, len(r.layers), MaxLayers)
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

func (p parts) readJSON(d digest.Digest, v any) error {
	data, err := p.blobs.Bytes(d)
	if err != nil {
		return err
	}
	if err := Dense(data); err != nil {
		return fault.Invalid("blob %s: %w", d, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fault.Invalid("cannot read blob %s: %w", d, err)
	}
	return nil
}

// maxObjects is how many objects a manifest, index or config may have: "{}," is three bytes to send, and hundreds to keep.
const maxObjects = 50_000

// MaxLayers is how many layers an image may have: the kernel's overlay takes no more (fs/overlayfs/params.h).
const MaxLayers = 500

// Dense refuses JSON that would take many times its size of memory.
func Dense(data []byte) error {
	if n := bytes.Count(data, []byte("{")); n > maxObjects {
		return fault.Invalid("it has more than %d objects", maxObjects)
	}
	return nil
}

func (p parts) choose(entries []ocispec.Descriptor, want *ocispec.Platform, chosen digest.Digest) (ocispec.Descriptor, error) {
	if want == nil {
		want = &ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	}
	best, rank := ocispec.Descriptor{}, 0
	for _, e := range entries {
		if isIndex(e.MediaType) || e.Platform != nil && e.Platform.OS == "unknown" {
			continue // attestations
		}
		have := p.whole(e.Digest)
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
func (p parts) whole(d digest.Digest) bool {
	var m ocispec.Manifest
	if p.readJSON(d, &m) != nil {
		return false
	}
	_, err := p.blobs.Size(m.Config.Digest)
	return err == nil
}

// describe makes a root's image. A layer that somebody took away shows without a size; Lower will tell.
func (p parts) describe(r *root) *Image {
	img := &Image{ID: r.image, Target: r.target, Manifest: r.manifest, Config: *r.config}
	if r.config.Created != nil {
		img.Created = *r.config.Created
	}
	for _, d := range r.config.RootFS.DiffIDs {
		l, err := p.layers.Get(d)
		if err != nil {
			l = layer.Layer{DiffID: d}
		}
		img.Layers = append(img.Layers, l)
		img.Size += l.Size
	}
	return img
}

// mend unpacks layers that are not there from the blobs that are.
func (p parts) mend(r *root) error {
	for i, d := range r.config.RootFS.DiffIDs {
		if _, err := p.layers.Get(d); err == nil {
			continue
		}
		slog.Warn("layer is missing, unpacking it again", "layer", d)
		if err := p.unpackBlob(context.Background(), r.layers[i], d); err != nil {
			return err
		}
	}
	return nil
}

// unpackBlob makes the layer diffID from its compressed blob.
func (p parts) unpackBlob(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) error {
	f, err := p.blobs.Reader(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	tar, _, err := compress.Reader(ctx, f)
	if err != nil {
		return err
	}
	defer tar.Close()
	l, err := p.layers.Unpack(ctx, tar, diffID)
	if err != nil {
		return err
	}
	return p.recordBlob(l, d)
}

// recordBlob notes a layer's compressed form, unless it has one that is there.
func (p parts) recordBlob(l layer.Layer, d ocispec.Descriptor) error {
	if l.Blob != "" {
		if _, err := p.blobs.Size(l.Blob); err == nil {
			return nil
		}
	}
	l.Blob, l.BlobSize, l.MediaType = d.Digest, d.Size, d.MediaType
	return p.layers.Record(l)
}

// commit compresses what make writes, into a blob.
func (p parts) commit(ctx context.Context, make func(io.Writer) (layer.Layer, error)) (layer.Layer, error) {
	w, err := p.blobs.Writer(ctx, "")
	if err != nil {
		return layer.Layer{}, err
	}
	defer w.Close()
	z, err := compress.Writer(w)
	if err != nil {
		return layer.Layer{}, err
	}
	l, err := make(z)
	made := err == nil
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		var sealed layer.Layer
		if sealed, err = p.sealBlob(l, w); err == nil {
			return sealed, nil
		}
	}
	if made && l.Blob == "" {
		p.layers.Remove(l.DiffID) // of no use without a blob
	}
	return layer.Layer{}, err
}

// sealBlob stores the compressed form of l, unless l has one.
func (p parts) sealBlob(l layer.Layer, w *blob.Writer) (layer.Layer, error) {
	if l.Blob != "" {
		if _, err := p.blobs.Size(l.Blob); err == nil {
			return l, nil
		}
	}
	size := w.Offset()
	d, err := w.Commit(size)
	if err != nil {
		return layer.Layer{}, err
	}
	l.Blob, l.BlobSize, l.MediaType = d, size, ocispec.MediaTypeImageLayerGzip
	return l, p.layers.Record(l)
}

// layersOf lists the records of an image's layers; those that are gone are left out.
func (p parts) layersOf(r *root) []layer.Layer {
	var all []layer.Layer
	for _, d := range r.config.RootFS.DiffIDs {
		if l, err := p.layers.Get(d); err == nil {
			all = append(all, l)
		}
	}
	return all
}

func (p parts) allLayers() []layer.Layer {
	var all []layer.Layer
	p.layers.Walk(func(l layer.Layer) error {
		all = append(all, l)
		return nil
	})
	return all
}

// usage is what layers and blobs take, in bytes.
func (p parts) usage() (int64, error) {
	var n int64
	for _, l := range p.allLayers() {
		n += l.Size
	}
	err := p.blobs.Walk(func(_ digest.Digest, size int64) error {
		n += size
		return nil
	})
	return n, err
}
