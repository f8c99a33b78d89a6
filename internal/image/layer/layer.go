// Package layer keeps unpacked layers, addressed by diffID (the digest of the
// uncompressed tar; image-spec, config.md). A layer folder is in overlay form:
// a whiteout is a 0/0 character device, an opaque folder carries the xattr
// trusted.overlay.opaque=y. Layers do not depend on their parents, so all layers
// of an image unpack at once.
//
//	chain      layers on top of each other, given as diffIDs, bottom first
//	implied    a folder that a tar has entries in but no entry for; it is made 0755, 0:0
//	fix        a generated folder on top of a chain whose implied folders would hide the
//	           mode or owner that a lower layer gives them
//
// On disk: layers/<hex>/fs is the tree, layers/<hex>/layer.json the record
// (sizes, compressed forms known). A layer that is being made lies under a
// temporary name and is renamed when whole; what a crash left is swept by Open. Layers are
// not synced when they are made: one that a power cut may have torn is removed by the
// next Open (package settle), and the image store unpacks it again from its blob.
//
// Extract and WriteTar are the same machinery for any folder: they serve cp, export and ADD.
// Both work on file descriptors and single names only, so neither a tar nor a
// process that changes the folder meanwhile can lead them outside it.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/image/settle"
)

// Layer describes a stored layer.
type Layer struct {
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"` // bytes of file content when unpacked
	// Blob is the compressed form in the blob store, "" if there is none yet.
	Blob      digest.Digest `json:"blob,omitempty"`
	BlobSize  int64         `json:"blobSize,omitempty"`
	MediaType string        `json:"mediaType,omitempty"` // of Blob
	// Since: files here that have this time or a later one have another in the tar (see Times); zero: none do.
	Since time.Time `json:"since,omitzero"`
}

// record is layer.json.
type record struct {
	Layer
	Implied []string `json:"implied,omitempty"` // folders without an entry of their own; "" is the root
}

// Store is the layers of one data root. Its methods are safe for concurrent use, by one process.
type Store struct {
	dir   string
	marks *settle.Marks

	mu     sync.Mutex // guards all below
	known  map[digest.Digest]record
	busy   map[digest.Digest]chan struct{} // being unpacked
	fresh  map[digest.Digest]time.Time
	chains map[string][]string     // Chain's answers, by key of the chain
	disk   map[digest.Digest]int64 // Disk's answers
}

// Names in the store's folder that are no layers.
const (
	fixDir   = "fix"
	emptyDir = "empty"
	markDir  = "unsettled"
)

// Open uses (and makes) dir and removes what a crash left.
func Open(dir string) (*Store, error) {
	s := &Store{
		dir:    dir,
		known:  map[digest.Digest]record{},
		busy:   map[digest.Digest]chan struct{}{},
		fresh:  map[digest.Digest]time.Time{},
		chains: map[string][]string{},
		disk:   map[digest.Digest]int64{},
	}
	for _, d := range []string{dir, filepath.Join(dir, fixDir), filepath.Join(dir, emptyDir)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
		if err := files.Sweep(d); err != nil {
			return nil, err
		}
	}
	spread(dir)
	marks, suspects, err := settle.Open(filepath.Join(dir, markDir))
	if err != nil {
		return nil, err
	}
	s.marks = marks
	for _, hex := range suspects {
		d := digest.NewDigestFromEncoded(digest.SHA256, hex)
		if d.Validate() != nil {
			err = marks.Clear(hex)
		} else {
			err = s.Remove(d)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, s.load()
}

// spread asks ext4 to put every layer into a block group of its own (EXT4_TOPDIR_FL, chattr(1) +T). Layers that are
// unpacked at once then don't wait for each other's bitmaps, and one that comes soon after another was removed does
// not search through inodes that ext4 won't reuse for five seconds, which makes it ten times slower. Other
// file systems have no such flag, and no such need.
func spread(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	const topDir = 0x00020000
	flags, err := unix.IoctlGetInt(int(d.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
	}
}

// Close stops background work; the store must not be used afterwards.
func (s *Store) Close() { s.marks.Close() }

// load reads all records. A folder without a good one is no layer, and is removed.
func (s *Store) load() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if d.Validate() != nil {
			continue
		}
		if err := files.Sweep(filepath.Join(s.dir, e.Name())); err != nil {
			return err
		}
		var r record
		err := files.ReadJSON(s.recordPath(d), &r)
		if err != nil || r.DiffID != d {
			if err := s.Remove(d); err != nil {
				return err
			}
			continue
		}
		s.known[d] = r
	}
	return nil
}

func (s *Store) path(d digest.Digest) string { return filepath.Join(s.dir, d.Encoded()) }

func (s *Store) recordPath(d digest.Digest) string { return filepath.Join(s.path(d), "layer.json") }

// valid guards every path made of a diffID.
func valid(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fault.Invalid("invalid diffID %q: %w", string(d), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fault.Invalid("invalid diffID %q: only sha256 is supported", string(d))
	}
	return nil
}

func (s *Store) get(diffID digest.Digest) (record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.known[diffID]
	return r, ok
}

// Get returns a layer's record, NotFound if it is not there.
func (s *Store) Get(diffID digest.Digest) (Layer, error) {
	r, ok := s.get(diffID)
	if !ok {
		return Layer{}, fault.NotFound("layer %s not found", diffID)
	}
	return r.Layer, nil
}

// Dir is the folder to use as an overlay lower layer; Chain gives those of a whole image.
func (s *Store) Dir(diffID digest.Digest) string { return filepath.Join(s.path(diffID), "fs") }

// Record stores what became known of a layer, such as its compressed form.
func (s *Store) Record(l Layer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.known[l.DiffID]
	if !ok {
		return fault.NotFound("layer %s not found", l.DiffID)
	}
	if r.Layer == l {
		return nil
	}
	r.Layer = l
	if err := files.WriteJSON(s.recordPath(l.DiffID), r, files.Fast); err != nil {
		return err
	}
	s.known[l.DiffID] = r
	return nil
}

// publish renames a finished folder (fs inside it) into place. If the layer is there by now, the folder is removed.
func (s *Store) publish(tmp string, r record) (Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh[r.DiffID] = time.Now()
	if old, ok := s.known[r.DiffID]; ok {
		return old.Layer, removeAll(tmp)
	}
	if err := files.WriteJSON(filepath.Join(tmp, "layer.json"), r, files.Fast); err != nil {
		return Layer{}, err
	}
	if err := s.marks.Mark(r.DiffID.Encoded()); err != nil {
		return Layer{}, err
	}
	if err := os.Rename(tmp, s.path(r.DiffID)); err != nil {
		return Layer{}, err
	}
	s.known[r.DiffID] = r
	return r.Layer, nil
}

// Remove deletes a layer; a missing one is no error. Only gc calls it.
func (s *Store) Remove(diffID digest.Digest) error {
	_, rest, err := s.Detach(diffID, time.Time{})
	if err != nil {
		return err
	}
	return rest()
}

// Detach takes a layer away at once, unless this process made it, or found it when it was to make it, at that time (if not zero) or
// later; gone tells. rest, to be called if it is gone, deletes its files, which takes longer.
func (s *Store) Detach(diffID digest.Digest, since time.Time) (gone bool, rest func() error, err error) {
	if err := valid(diffID); err != nil {
		return false, nil, err
	}
	tmp, err := os.MkdirTemp(s.dir, files.TempPrefix+"removed-")
	if err != nil {
		return false, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.fresh[diffID]; ok && !since.IsZero() && !at.Before(since) {
		return false, nil, os.Remove(tmp)
	}
	delete(s.known, diffID)
	delete(s.fresh, diffID)
	delete(s.disk, diffID)
	clear(s.chains)
	if err := os.Rename(s.path(diffID), filepath.Join(tmp, "layer")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		os.Remove(tmp)
		return false, nil, err
	}
	if err := s.marks.Clear(diffID.Encoded()); err != nil {
		return true, nil, err
	}
	return true, func() error {
		if err := removeAll(tmp); err != nil {
			return fmt.Errorf("cannot remove layer %s: %w", diffID, err)
		}
		return nil
	}, nil
}

// Claim is Get for one who would make the layer if it weren't there: from then on Detach spares it.
func (s *Store) Claim(diffID digest.Digest) (Layer, error) {
	s.mu.Lock()
	s.fresh[diffID] = time.Now()
	s.mu.Unlock()
	return s.Get(diffID)
}

// Disk is what a layer's folder takes on the disk, in bytes as du counts them; 0 if it is not there.
func (s *Store) Disk(diffID digest.Digest) (int64, error) {
	s.mu.Lock()
	n, known := s.disk[diffID]
	s.mu.Unlock()
	if known {
		return n, nil
	}
	n, err := files.Usage(s.path(diffID))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[diffID]; ok {
		s.disk[diffID] = n
	}
	return n, nil
}

// DiskOfFixes is the same for what lies beside the layers.
func (s *Store) DiskOfFixes() (sum int64, err error) {
	for _, sub := range []string{fixDir, emptyDir, markDir} {
		n, err := files.Usage(filepath.Join(s.dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return sum, err
		}
		sum += n
	}
	return sum, nil
}

// Walk calls f for each layer.
func (s *Store) Walk(f func(Layer) error) error {
	s.mu.Lock()
	all := make([]Layer, 0, len(s.known))
	for _, r := range s.known {
		all = append(all, r.Layer)
	}
	s.mu.Unlock()
	for _, l := range all {
		if err := f(l); err != nil {
			return err
		}
	}
	return nil
}

// begin reserves the work on want. have is true if the layer is there; else the caller works, and calls done.
func (s *Store) begin(ctx context.Context, want digest.Digest) (l Layer, have bool, done func(), err error) {
	if want == "" {
		return Layer{}, false, func() {}, nil
	}
	if err := valid(want); err != nil {
		return Layer{}, false, nil, err
	}
	for {
		s.mu.Lock()
		if r, ok := s.known[want]; ok {
			s.fresh[want] = time.Now()
			s.mu.Unlock()
			return r.Layer, true, nil, nil
		}
		wait, ok := s.busy[want]
		if !ok {
			mine := make(chan struct{})
			s.busy[want] = mine
			s.mu.Unlock()
			return Layer{}, false, func() {
				s.mu.Lock()
				delete(s.busy, want)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return Layer{}, false, nil, context.Cause(ctx)
		}
	}
}

// removeAll removes a tree that may hold read-only folders; we are root, so nothing special is needed.
func removeAll(path string) error { return os.RemoveAll(path) }
