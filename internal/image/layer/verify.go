package layer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
)

// maxWrong is how many wrong paths of a layer are named.
const maxWrong = 10

// Verify unpacks a layer's tar once more, beside the layer, and compares the two trees: type, mode, owner, content, times, xattrs, hard links. wrong
// names what is not as the tar has it; none means that the layer is whole. replace, if there is something wrong, puts the
// new tree in the old one's place, which nobody may use then; discard, to be called in any case, removes the tree that is left over.
func Verify(ctx context.Context, s *Store, diffID digest.Digest, tar io.Reader) (wrong []string, replace func() error, discard func() error, err error) {
	nothing := func() error { return nil }
	if err := valid(diffID); err != nil {
		return nil, nothing, nothing, err
	}
	tmp, err := os.MkdirTemp(s.dir, files.TempPrefix+"verify-")
	if err != nil {
		return nil, nothing, nothing, err
	}
	discard = func() error { return removeAll(tmp) }
	r, err := fill(ctx, tar, diffID, tmp)
	if err != nil {
		discard()
		return nil, nothing, nothing, fmt.Errorf("cannot unpack layer %s: %w", diffID, err)
	}
	implied := map[string]bool{}
	for _, p := range r.Implied {
		implied[path.Clean(p)] = true
	}
	s.mu.Lock()
	since := s.known[diffID].Since
	s.mu.Unlock()
	c := &comparison{ctx: ctx, since: since, implied: implied, links: map[inode]string{}, others: map[inode]string{}}
	fresh, old := filepath.Join(tmp, "fs"), s.Dir(diffID)
	if err := c.entry(fresh, old, "."); err != nil {
		discard()
		return nil, nothing, nothing, err
	}
	replace = func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, ok := s.known[diffID]; !ok {
			return fault.NotFound("layer %s not found", diffID)
		}
		if err := s.marks.Mark(diffID.Encoded()); err != nil {
			return err
		}
		if _, err := os.Lstat(old); err != nil {
			return os.Rename(fresh, old)
		}
		delete(s.disk, diffID)
		clear(s.chains)
		rec := s.known[diffID]
		rec.Implied, rec.Size, rec.Since = r.Implied, r.Size, time.Time{}
		s.known[diffID] = rec
		if err := files.WriteJSON(s.recordPath(diffID), rec, files.Fast); err != nil {
			return err
		}
		return unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, old, unix.RENAME_EXCHANGE)
	}
	return c.wrong, replace, discard, nil
}

// comparison walks two trees that should be the same.
type comparison struct {
	ctx     context.Context
	implied map[string]bool // folders whose times nobody gave
	since   time.Time       // from here on the other tree's times are its own
	wrong   []string
	links   map[inode]string // the first name of each file with several, in the good tree
	others  map[inode]string // and in the other
}

func (c *comparison) differs(at, how string) {
	if len(c.wrong) < maxWrong {
		c.wrong = append(c.wrong, path.Join("/", at)+": "+how)
	} else if len(c.wrong) == maxWrong {
		c.wrong = append(c.wrong, "and more")
	}
}

func (c *comparison) entry(good, other, at string) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	var x, y unix.Stat_t
	if err := unix.Lstat(good, &x); err != nil {
		return &os.PathError{Op: "lstat", Path: good, Err: err}
	}
	if err := unix.Lstat(other, &y); err != nil {
		c.differs(at, "missing")
		return nil
	}
	switch {
	case x.Mode&unix.S_IFMT != y.Mode&unix.S_IFMT || x.Rdev != y.Rdev:
		c.differs(at, "another type")
		return nil
	case x.Mode != y.Mode:
		c.differs(at, "another mode")
	case x.Uid != y.Uid || x.Gid != y.Gid:
		c.differs(at, "another owner")
	case sizeOf(&x) != sizeOf(&y):
		c.differs(at, "another size")
		return nil
	case x.Mtim != y.Mtim && !c.implied[at] && (c.since.IsZero() || time.Unix(y.Mtim.Unix()).Before(c.since)):
		c.differs(at, "another time")
	}
	xs, err := allXattrs(good)
	if err != nil {
		return err
	}
	ys, err := allXattrs(other)
	if err != nil {
		return err
	}
	if !bytes.Equal(xs, ys) {
		c.differs(at, "other extended attributes")
	}
	if x.Mode&unix.S_IFMT != unix.S_IFDIR && (x.Nlink > 1 || y.Nlink > 1) {
		a, b := inode{x.Dev, x.Ino}, inode{y.Dev, y.Ino}
		first, seen := c.links[a]
		if other := c.others[b]; seen != (other != "") || first != other {
			c.differs(at, "other hard links")
		}
		if seen {
			return nil
		}
		c.links[a], c.others[b] = at, at
	}
	switch x.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.folder(good, other, at)
	case unix.S_IFLNK:
		a, err := os.Readlink(good)
		if err != nil {
			return err
		}
		if b, err := os.Readlink(other); err != nil || a != b {
			c.differs(at, "another target")
		}
	case unix.S_IFREG:
		same, err := sameContent(c.ctx, good, other)
		if err != nil {
			return err
		}
		if !same {
			c.differs(at, "other content")
		}
	}
	return nil
}

func (c *comparison) folder(good, other, at string) error {
	names, err := list(good)
	if err != nil {
		return err
	}
	there, err := list(other)
	if err != nil {
		return err
	}
	for _, n := range there {
		if _, ok := slices.BinarySearch(names, n); !ok {
			c.differs(path.Join(at, n), "not in the layer")
		}
	}
	for _, n := range names {
		if err := c.entry(filepath.Join(good, n), filepath.Join(other, n), path.Join(at, n)); err != nil {
			return err
		}
	}
	return nil
}

func list(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// allXattrs is all of them, overlay's included, in one string of bytes; sorted by name.
func allXattrs(p string) ([]byte, error) {
	raw, err := growing(func(b []byte) (int, error) { return unix.Llistxattr(p, b) })
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	names := bytes.Split(bytes.TrimRight(raw, "\x00"), []byte{0})
	slices.SortFunc(names, bytes.Compare)
	var all []byte
	for _, n := range names {
		v, err := growing(func(b []byte) (int, error) { return unix.Lgetxattr(p, string(n), b) })
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + string(n), Path: p, Err: err}
		}
		all = append(append(append(append(all, n...), 0), v...), 0)
	}
	return all, nil
}
