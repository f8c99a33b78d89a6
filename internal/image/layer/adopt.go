package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/files"
)

// Adopt turns an upper directory into a layer: it writes the directory's
// deterministic tar to w, computes the diffID and moves the directory into the store
// (rename, same file system). Mode, owner, mtime, xattrs, hard links are kept; entries are sorted.
// Nothing may use the directory meanwhile. On an error it stays where it was.
func (s *Store) Adopt(ctx context.Context, upper string, w io.Writer) (Layer, error) {
	return s.AdoptAt(ctx, upper, w, Times{})
}

// AdoptAt does the same with other times in the tar than in the directory, which keeps its own.
func (s *Store) AdoptAt(ctx context.Context, upper string, w io.Writer, t Times) (Layer, error) {
	l, err := s.adopt(ctx, upper, w, t)
	if err != nil {
		return Layer{}, fmt.Errorf("cannot make a layer of %s: %w", upper, err)
	}
	return l, nil
}

func (s *Store) adopt(ctx context.Context, upper string, w io.Writer, t Times) (Layer, error) {
	root, err := os.Open(upper)
	if err != nil {
		return Layer{}, err
	}
	defer root.Close()
	if err := tidy(upper); err != nil {
		return Layer{}, err
	}
	h := sha256.New()
	n, err := WriteTar(ctx, io.MultiWriter(h, w), root, WriteOptions{Overlay: true, Times: t})
	if err != nil {
		return Layer{}, err
	}
	tmp, err := os.MkdirTemp(s.dir, files.TempPrefix)
	if err != nil {
		return Layer{}, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return Layer{}, err
	}
	if err := os.Rename(upper, filepath.Join(tmp, "fs")); err != nil {
		os.Remove(tmp)
		return Layer{}, err
	}
	l, err := s.publish(tmp, record{Layer: Layer{DiffID: digest.NewDigest(digest.SHA256, h), Size: n.Bytes, Since: t.Since}, Implied: impliedRoot(root)})
	if err != nil {
		os.Rename(filepath.Join(tmp, "fs"), upper)
		os.Remove(tmp)
	}
	return l, err
}

// impliedRoot says, as Unpack would, that an ordinary root has no entry in the tar.
func impliedRoot(root *os.File) []string {
	var st unix.Stat_t
	if unix.Fstat(int(root.Fd()), &st) == nil && st.Mode&0o7777 == 0o755 && st.Uid == 0 && st.Gid == 0 {
		return []string{""}
	}
	return nil
}

// tidy takes away what the tar does not have: sockets, and overlay's notes about its lower layers.
func tidy(upper string) error {
	return filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type() == fs.ModeSocket {
			return os.Remove(p)
		}
		if d.Type() != 0 && !d.IsDir() {
			return nil
		}
		names, err := growing(func(b []byte) (int, error) { return unix.Llistxattr(p, b) })
		if err != nil || !bytes.Contains(names, []byte(".overlay.")) {
			return err
		}
		for _, k := range bytes.Split(names, []byte{0}) {
			if name := string(k); isOverlayXattr(name) && name != opaqueXattr {
				if err := unix.Lremovexattr(p, name); err != nil {
					return &fs.PathError{Op: "removexattr " + name, Path: p, Err: err}
				}
			}
		}
		return nil
	})
}
