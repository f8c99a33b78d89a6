// Package layer keeps unpacked layers, addressed by diffID (the digest of the
// uncompressed tar; image-spec, config.md). A layer folder is in overlay form:
// a whiteout is a 0/0 character device, an opaque folder carries the xattr
// trusted.overlay.opaque=y. Layers do not depend on their parents, so all layers
// of an image unpack at once.
//
// On disk: layers/<hex>/fs is the tree, layers/<hex>/layer.json the record
// (sizes, compressed forms known). A layer that is being made lies under a
// temporary name and is renamed when whole; what a crash left is swept by Open.
package layer

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
)

// Layer describes a stored layer.
type Layer struct {
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"` // bytes of file content when unpacked
	// Blob is the compressed form in the blob store, "" if there is none yet.
	Blob      digest.Digest `json:"blob,omitempty"`
	BlobSize  int64         `json:"blobSize,omitempty"`
	MediaType string        `json:"mediaType,omitempty"` // of Blob
}

// Store is the layers of one data root.
type Store struct{}

// Open uses (and makes) dir.
func Open(dir string) (*Store, error) { return nil, fault.Unsupported("") }

// Get returns a layer's record, NotFound if it is not there.
func (s *Store) Get(diffID digest.Digest) (Layer, error) { return Layer{}, fault.Unsupported("") }

// Dir is the folder to use as an overlay lower layer.
func (s *Store) Dir(diffID digest.Digest) string { return "" }

// Unpack reads an uncompressed tar to its end, writes the tree and verifies the
// digest, all in one pass. No entry can leave the layer's folder: a tar that tries is Invalid and
// leaves nothing. If two callers unpack one diffID, the second waits and shares the result.
// want may be "" when the diffID is not known (import).
func (s *Store) Unpack(ctx context.Context, tar io.Reader, want digest.Digest) (Layer, error) {
	return Layer{}, fault.Unsupported("")
}

// Adopt turns an upper directory into a layer: it writes the directory's
// deterministic tar to w, computes the diffID and moves the directory into the store
// (rename, same file system). Mode, owner, mtime, xattrs, hard links are kept; entries are sorted.
func (s *Store) Adopt(ctx context.Context, upper string, w io.Writer) (Layer, error) {
	return Layer{}, fault.Unsupported("")
}

// Record stores what became known of a layer, such as its compressed form.
func (s *Store) Record(l Layer) error { return fault.Unsupported("") }

// Remove deletes a layer; only gc calls it.
func (s *Store) Remove(diffID digest.Digest) error { return fault.Unsupported("") }

// Walk calls f for each layer.
func (s *Store) Walk(f func(Layer) error) error { return fault.Unsupported("") }
