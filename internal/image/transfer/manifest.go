package transfer

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/image"
	"tare/internal/image/compress"
	"tare/internal/image/registry"
)

// maxConfig is the longest config that is read, in bytes.
const maxConfig = 8 << 20

// document is an index or a manifest.
type document struct {
	MediaType string               `json:"mediaType"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    ocispec.Descriptor   `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == registry.DockerManifestList
}

// parse decodes what the registry or the store calls d.
func parse(data []byte, d ocispec.Descriptor) (*document, error) {
	var doc document
	if err := image.Dense(data); err != nil {
		return nil, fault.Invalid("manifest %s: %w", d.Digest, err)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fault.Invalid("cannot read manifest %s: %w", d.Digest, err)
	}
	if isIndex(d.MediaType) {
		for _, m := range doc.Manifests {
			if err := sound(m); err != nil {
				return nil, err
			}
		}
		return &doc, nil
	}
	switch d.MediaType {
	case ocispec.MediaTypeImageManifest, registry.DockerManifest:
	default:
		return nil, fault.Invalid("manifest %s has media type %q, which is not supported", d.Digest, d.MediaType)
	}
	switch doc.Config.MediaType {
	case ocispec.MediaTypeImageConfig, registry.DockerConfig:
	default:
		return nil, fault.Invalid("manifest %s is not of a container image: its config has media type %q", d.Digest, doc.Config.MediaType)
	}
	if err := sound(doc.Config); err != nil {
		return nil, err
	}
	if doc.Config.Size > maxConfig {
		return nil, fault.Invalid("config %s has %d bytes, more than %d", doc.Config.Digest, doc.Config.Size, maxConfig)
	}
	if len(doc.Layers) > image.MaxLayers {
		return nil, fault.Invalid("manifest %s has %d layers, more than %d", d.Digest, len(doc.Layers), image.MaxLayers)
	}
	for _, l := range doc.Layers {
		if err := sound(l); err != nil {
			return nil, err
		}
		if l.MediaType == registry.DockerForeignLayer || strings.Contains(l.MediaType, ".nondistributable.") || len(l.URLs) > 0 {
			return nil, fault.Invalid("layer %s is a foreign layer (%s), to be fetched from outside the registry, which is not supported", l.Digest, l.MediaType)
		}
		if _, err := compress.FormOf(l.MediaType); err != nil {
			return nil, err
		}
	}
	return &doc, nil
}

// parseAny decodes a manifest of any kind, such as an attestation, to push it as it is.
func parseAny(data []byte, d ocispec.Descriptor) (*document, error) {
	var doc document
	if err := image.Dense(data); err != nil {
		return nil, fault.Invalid("manifest %s: %w", d.Digest, err)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fault.Invalid("cannot read manifest %s: %w", d.Digest, err)
	}
	for _, part := range doc.parts() {
		if err := sound(part); err != nil {
			return nil, err
		}
	}
	return &doc, nil
}

// parts are a manifest's blobs; some kinds have no config.
func (d *document) parts() []ocispec.Descriptor {
	if d.Config.Digest == "" {
		return d.Layers
	}
	return append(d.Layers[:len(d.Layers):len(d.Layers)], d.Config)
}

// sound checks what paths and buffers are made from.
func sound(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil || d.Digest.Algorithm() != digest.SHA256 && d.Digest.Algorithm() != digest.SHA512 {
		return fault.Invalid("manifest refers to invalid digest %q", string(d.Digest))
	}
	if d.Size < 0 {
		return fault.Invalid("manifest says that %s has %d bytes", d.Digest, d.Size)
	}
	return nil
}

// isManifest tells manifests and indexes from blobs.
func isManifest(mediaType string) bool {
	return isIndex(mediaType) || mediaType == ocispec.MediaTypeImageManifest || mediaType == registry.DockerManifest
}
