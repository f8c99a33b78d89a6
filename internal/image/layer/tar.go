package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// WriteOptions say what WriteTar writes of a tree.
type WriteOptions struct {
	// Name is the entry to write, a clean path below the root whose parents are folders; "" is the root itself.
	Name string
	// As is the name it gets in the tar. With "" a folder's content is written without an entry for the folder
	// ("./" is written for a root whose attributes are not 0755 0:0).
	As string
	// Overlay: the tree is an overlay upper directory; its whiteouts and opaque marks become the layer format's.
	Overlay bool
	// Skip leaves out an entry, given by its name in the tar, with all below it; nil skips nothing.
	Skip func(name string) bool
	// Times of the entries; the zero value keeps those of the files.
	Times Times
}

// Times take out of a tar when it was made: entries modified at Since or later get the time At. A zero Since changes nothing.
type Times struct{ Since, At time.Time }

// Written is what WriteTar wrote.
type Written struct {
	Entries int64
	Bytes   int64 // of file content, each inode once
}

// WriteTar writes a folder's tree to w as a tar, and its end mark. The same tree gives the same bytes: entries
// are sorted, PAX records are used only where the old format can't say it. Owners by number, sub-second times,
// hard links by inode and xattrs are kept (overlay's own are not); sockets are left out. Nothing is followed: the
// tree may belong to a running container that changes it. A file that shrinks while it is read is filled with zeros.
func WriteTar(ctx context.Context, w io.Writer, root *os.File, o WriteOptions) (Written, error) {
	t := &tarWriter{ctx: ctx, o: o, tw: tar.NewWriter(w), inodes: map[inode]string{}, buf: make([]byte, 256<<10)}
	if err := t.top(root); err != nil {
		return t.written, err
	}
	return t.written, t.tw.Close()
}

type inode struct{ dev, ino uint64 }

type tarWriter struct {
	ctx     context.Context
	o       WriteOptions
	tw      *tar.Writer
	inodes  map[inode]string // files with several links, by the name written first
	buf     []byte
	written Written
}

// top finds the entry to start with, name by name.
func (t *tarWriter) top(root *os.File) error {
	fd, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { unix.Close(fd) }()
	dir, base := split(t.o.Name)
	if t.o.Name == "" {
		return t.content(fd, t.o.As, true)
	}
	for part := range strings.SplitSeq(dir, "/") {
		if part == "" {
			continue
		}
		next, err := openDir(fd, part)
		if err != nil {
			return &os.PathError{Op: "open", Path: t.o.Name, Err: err}
		}
		unix.Close(fd)
		fd = next
	}
	if t.o.As != "" {
		return t.entry(fd, base, t.o.As)
	}
	sub, err := openDir(fd, base)
	if err != nil {
		return &os.PathError{Op: "open", Path: t.o.Name, Err: err}
	}
	defer unix.Close(sub)
	return t.content(sub, "", true)
}

// content writes a folder (its entry too, if it is the top one) and all below it.
func (t *tarWriter) content(fd int, name string, top bool) error {
	if err := t.ctx.Err(); err != nil {
		return context.Cause(t.ctx)
	}
	if top {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		h, err := header(fd, ".", name, &st)
		if err != nil {
			return err
		}
		if name == "" {
			h.Name = "./"
		}
		plain := st.Mode&0o7777 == 0o755 && st.Uid == 0 && st.Gid == 0 && len(h.PAXRecords) == 0
		if name != "" || t.o.Name == "" && !plain {
			if err := t.write(h); err != nil {
				return err
			}
		}
	}
	if t.o.Overlay {
		if err := t.overlayMarks(fd, name); err != nil {
			return err
		}
	}
	names, err := readNames(fd, name)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := t.entry(fd, n, path.Join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

// overlayMarks writes a folder's opaque mark. A redirect can't be said in a tar.
func (t *tarWriter) overlayMarks(fd int, name string) error {
	v, err := fgetxattr(fd, opaqueXattr)
	if err != nil {
		return err
	}
	if string(v) == "y" {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(name, opaqueName), Mode: 0o600, ModTime: time.Unix(0, 0)}
		if err := t.write(h); err != nil {
			return err
		}
	}
	v, err = fgetxattr(fd, "trusted.overlay.redirect")
	if err != nil {
		return err
	}
	if v != nil {
		return fault.Internal("folder %q was renamed by overlay (trusted.overlay.redirect); mount with redirect_dir=off", name)
	}
	return nil
}

// readNames lists a folder, sorted.
func readNames(fd int, name string) ([]string, error) {
	dup, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	d := os.NewFile(uintptr(dup), name)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (t *tarWriter) entry(parent int, base, name string) error {
	if t.o.Skip != nil && t.o.Skip(name) {
		return nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) && name != t.o.As {
		return nil // removed meanwhile
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if t.o.Overlay {
		if isWhiteout(&st) {
			dir, _ := split(name)
			return t.write(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(dir, whiteoutPrefix+base), Mode: 0o600, ModTime: time.Unix(0, 0)})
		}
		if strings.HasPrefix(base, whiteoutPrefix) {
			return fault.Invalid("file %q can't be part of a layer: names that begin with %s say what a layer removes", name, whiteoutPrefix)
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.dir(parent, base, name)
	case unix.S_IFREG:
		return t.file(parent, base, name, &st)
	case unix.S_IFSOCK:
		return nil
	}
	if t.linked(name, &st) {
		return t.hardLink(name, &st)
	}
	h, err := header(parent, base, name, &st)
	if err != nil {
		return err
	}
	return t.write(h)
}

func (t *tarWriter) dir(parent int, base, name string) error {
	fd, err := openDir(parent, base)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	h, err := header(fd, ".", name, &st)
	if err != nil {
		return err
	}
	if err := t.write(h); err != nil {
		return err
	}
	return t.content(fd, name, false)
}

func (t *tarWriter) file(parent int, base, name string, st *unix.Stat_t) error {
	fd, err := retry(func() (int, error) {
		return unix.Openat(parent, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // replaced meanwhile
	}
	if t.linked(name, st) {
		return t.hardLink(name, st)
	}
	h, err := header(parent, base, name, st)
	if err != nil {
		return err
	}
	if err := t.write(h); err != nil {
		return err
	}
	t.written.Bytes += st.Size
	return t.copy(fd, name, st.Size)
}

func (t *tarWriter) copy(fd int, name string, size int64) error {
	for size > 0 {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		part := t.buf[:min(size, int64(len(t.buf)))]
		n, err := retry(func() (int, error) { return unix.Read(fd, part) })
		if err != nil {
			return &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			n = len(part)
			clear(part)
		}
		if _, err := t.tw.Write(part[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// linked tells whether the inode was written before, and remembers it if not.
func (t *tarWriter) linked(name string, st *unix.Stat_t) bool {
	if st.Nlink < 2 {
		return false
	}
	id := inode{st.Dev, st.Ino}
	if _, ok := t.inodes[id]; ok {
		return true
	}
	t.inodes[id] = name
	return false
}

func (t *tarWriter) hardLink(name string, st *unix.Stat_t) error {
	h := plainHeader(name, st)
	h.Typeflag, h.Linkname, h.Size = tar.TypeLink, t.inodes[inode{st.Dev, st.Ino}], 0
	return t.write(h)
}

func (t *tarWriter) write(h *tar.Header) error {
	if o := t.o.Times; !o.Since.IsZero() && !h.ModTime.Before(o.Since) {
		h.ModTime = o.At
	}
	if h.ModTime.Nanosecond() != 0 || len(h.PAXRecords) > 0 {
		h.Format = tar.FormatPAX
	}
	t.written.Entries++
	if err := t.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("cannot write tar entry %q: %w", h.Name, err)
	}
	return nil
}

// plainHeader is what stat tells.
func plainHeader(name string, st *unix.Stat_t) *tar.Header {
	return &tar.Header{
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
	}
}

// header describes an entry of an open folder; base "." is the folder itself.
func header(parent int, base, name string, st *unix.Stat_t) (*tar.Header, error) {
	h := plainHeader(name, st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFLNK:
		target, err := readlink(parent, base)
		if err != nil {
			return nil, err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil, fault.Internal("file %q has unknown type %o", name, st.Mode&unix.S_IFMT)
	}
	xs, err := listXattrs(fdPath(parent, base))
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: name, Err: err}
	}
	for k, v := range xs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+k] = v
	}
	return h, nil
}

// listXattrs reads all extended attributes but overlay's own. A symlink in the last place is not followed.
func listXattrs(p string) (map[string]string, error) {
	names, err := growing(func(b []byte) (int, error) { return unix.Llistxattr(p, b) })
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var m map[string]string
	for _, k := range bytes.Split(bytes.TrimRight(names, "\x00"), []byte{0}) {
		name := string(k)
		if isOverlayXattr(name) {
			continue
		}
		v, err := growing(func(b []byte) (int, error) { return unix.Lgetxattr(p, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = string(v)
	}
	return m, nil
}

// fgetxattr is nil for an attribute that is not there.
func fgetxattr(fd int, name string) ([]byte, error) {
	v, err := growing(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	return v, err
}

// growing calls f with larger buffers until the result fits; a file system without xattrs has none.
func growing(f func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := f(b)
		switch {
		case errors.Is(err, unix.ERANGE) && size < 1<<20:
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case err != nil:
			return nil, err
		default:
			return b[:n], nil
		}
	}
}
