package layer

import (
	"archive/tar"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Names of the layer format (image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
	paxXattr       = "SCHILY.xattr."
)

// writer is the side of an extraction that does the system calls, in the tar's order.
type writer struct {
	tree *tree
	base string
	o    ExtractOptions
	err  error

	file   *file // being filled
	late   map[string]*late
	order  []string // keys of late in order of arrival
	kept   int      // bytes that late holds, as maxFolders counts them
	rooted bool     // the root had an entry
}

// file is an open file whose content is arriving.
type file struct {
	fd     int
	header *tar.Header
	name   string
	sparse bool
	pos    int64
}

// late is what a folder gets at the end: entries made in it would change its
// times, and would inherit its default ACL.
type late struct {
	times  [2]unix.Timespec
	xattrs map[string]string
}

func (w *writer) run(x *extraction) {
	stop := func(err error) {
		w.err = err
		close(x.failed)
	}
	for o := range x.ops {
		if w.err == nil {
			if err := w.apply(o); err != nil {
				stop(err)
			}
		}
		if o.data != nil {
			x.bufs <- o.data[:bufSize]
		}
	}
	if w.file != nil {
		unix.Close(w.file.fd)
		w.file = nil
	}
	if w.err == nil && !x.parseFailed {
		if err := w.finish(); err != nil {
			stop(err)
		}
	}
	for {
		select {
		case b := <-x.bufs:
			bufPool.Put(b)
		default:
			return
		}
	}
}

func (w *writer) apply(o op) error {
	name := o.name
	if o.header == nil {
		name = w.file.name
	} else if err := w.begin(o); err != nil {
		return entryError(name, err)
	}
	if w.file == nil {
		return nil
	}
	if err := w.file.write(o.data); err != nil {
		return entryError(name, err)
	}
	if o.last {
		f := w.file
		w.file = nil
		if err := w.seal(f); err != nil {
			return entryError(name, err)
		}
	}
	return nil
}

// begin makes the entry; for a file it leaves it open in w.file.
func (w *writer) begin(o op) error {
	h := o.header
	full := path.Join(w.base, o.name)
	if o.name == "" {
		return w.rootEntry(h)
	}
	dir, base := split(full)
	if w.o.Layer && strings.Contains("/"+dir+"/", "/"+whiteoutPrefix) {
		return fault.Invalid("a folder named like a whiteout")
	}
	parent, err := w.tree.folder(dir, true)
	if err != nil {
		return err
	}
	if w.o.Layer && strings.HasPrefix(base, whiteoutPrefix) {
		return w.whiteout(parent, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return w.makeDir(parent, base, full, h)
	case tar.TypeLink:
		return w.makeLink(dir, base, h)
	case tar.TypeSymlink:
		return w.makeSymlink(parent, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return w.makeNode(parent, base, h)
	}
	return w.makeFile(parent, base, o)
}

// rootEntry is "./": a layer's sets the root's attributes, any other's is about a folder that is not the tar's.
func (w *writer) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return fault.Invalid("the root is not a directory")
	}
	if !w.o.Layer {
		return nil
	}
	w.rooted = true
	if err := w.own(w.tree.root.fd, h); err != nil {
		return err
	}
	return w.postpone("", h)
}

func (w *writer) whiteout(parent *folder, base string) error {
	if base == opaqueName {
		return unix.Fsetxattr(parent.fd, opaqueXattr, []byte("y"), 0)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil // aufs's own bookkeeping
	}
	hidden := base[len(whiteoutPrefix):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return fault.Invalid("a whiteout of nothing")
	}
	err := unix.Mknodat(parent.fd, hidden, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// A whiteout is about lower layers: this layer's own entry stays, and as a folder hides what it covers.
	var st unix.Stat_t
	if err := unix.Fstatat(parent.fd, hidden, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return setOpaque(parent.fd, hidden)
	}
	return nil
}

// clear makes room for a new entry after EEXIST.
func (w *writer) clear(parent *folder, base string, dirEntry bool) (wasWhiteout bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	real := path.Join(parent.real, base)
	switch {
	case w.o.NoOverwriteDirNonDir && isDir && !dirEntry:
		return false, fault.Invalid("cannot overwrite directory %q with non-directory %q", "/"+real, base)
	case w.o.NoOverwriteDirNonDir && !isDir && dirEntry:
		return false, fault.Invalid("cannot overwrite non-directory %q with directory %q", "/"+real, base)
	}
	return isWhiteout(&st), w.tree.remove(parent, base)
}

func (w *writer) makeDir(parent *folder, base, full string, h *tar.Header) error {
	err := unix.Mkdirat(parent.fd, base, 0o700)
	opaque := false
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = nil
		} else {
			if opaque, err = w.clear(parent, base, true); err != nil {
				return err
			}
			err = unix.Mkdirat(parent.fd, base, 0o700)
		}
	}
	if err != nil {
		return err
	}
	links := 0
	f, err := w.tree.child(parent, base, false, &links)
	if err != nil {
		return err
	}
	if opaque && w.o.Layer {
		if err := unix.Fsetxattr(f.fd, opaqueXattr, []byte("y"), 0); err != nil {
			return err
		}
	}
	if err := w.own(f.fd, h); err != nil {
		return err
	}
	delete(w.tree.implied, f.real)
	return w.postpone(f.real, h)
}

// own sets owner, then mode: chown(2) clears the setuid bits.
func (w *writer) own(fd int, h *tar.Header) error {
	uid, gid := w.owner(h)
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, uint32(h.Mode)&0o7777)
}

func (w *writer) owner(h *tar.Header) (uid, gid int) {
	if w.o.Owner != nil {
		return w.o.Owner.UID, w.o.Owner.GID
	}
	return h.Uid, h.Gid
}

func (w *writer) postpone(real string, h *tar.Header) error {
	l := &late{times: times(h), xattrs: xattrs(h)}
	w.kept += l.size()
	if old, ok := w.late[real]; ok {
		w.kept -= old.size()
	} else {
		w.order = append(w.order, real)
		w.kept += len(real)
	}
	w.late[real] = l
	if w.kept+w.tree.named > maxFolders {
		return fault.Invalid("the tar has too many folders: their names and attributes take more than %d bytes", maxFolders)
	}
	return nil
}

func (l *late) size() int {
	n := 64
	for k, v := range l.xattrs {
		n += len(k) + len(v)
	}
	return n
}

func (w *writer) makeFile(parent *folder, base string, o op) error {
	open := func() (int, error) {
		return retry(func() (int, error) {
			return unix.Openat(parent.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
	}
	fd, err := open()
	if errors.Is(err, unix.EEXIST) {
		if _, err = w.clear(parent, base, false); err != nil {
			return err
		}
		fd, err = open()
	}
	if err != nil {
		return err
	}
	w.file = &file{fd: fd, header: o.header, name: o.name, sparse: isSparse(o.header)}
	return nil
}

const holeSize = 4 << 10

func (f *file) write(b []byte) error {
	for len(b) > 0 {
		part := b
		if f.sparse {
			part = b[:min(len(b), holeSize)]
			if allZero(part) {
				b = b[len(part):]
				f.pos += int64(len(part))
				continue
			}
		}
		n, err := unix.Pwrite(f.fd, part, f.pos)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
		f.pos += int64(n)
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// seal gives a complete file its attributes and closes it.
func (w *writer) seal(f *file) (err error) {
	defer func() {
		if cerr := unix.Close(f.fd); err == nil && cerr != nil && cerr != unix.EINTR {
			err = cerr
		}
	}()
	if f.sparse {
		if err := unix.Ftruncate(f.fd, f.header.Size); err != nil {
			return err
		}
	}
	if err := w.own(f.fd, f.header); err != nil {
		return err
	}
	for k, v := range xattrs(f.header) {
		if err := ignoreUnsupported(unix.Fsetxattr(f.fd, k, []byte(v), 0)); err != nil {
			return err
		}
	}
	ts := times(f.header)
	return futimens(f.fd, &ts)
}

func (w *writer) makeSymlink(parent *folder, base string, h *tar.Header) error {
	err := unix.Symlinkat(h.Linkname, parent.fd, base)
	if errors.Is(err, unix.EEXIST) {
		if _, err = w.clear(parent, base, false); err != nil {
			return err
		}
		err = unix.Symlinkat(h.Linkname, parent.fd, base)
	}
	if err != nil {
		return err
	}
	return w.attributes(parent, base, h)
}

// makeNode makes a device or fifo. A character device 0/0 is a whiteout to overlay, from a tar as from mknod.
func (w *writer) makeNode(parent *folder, base string, h *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	dev := 0
	if kind != unix.S_IFIFO {
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	mode := kind | uint32(h.Mode)&0o777
	err := unix.Mknodat(parent.fd, base, mode, dev)
	if errors.Is(err, unix.EEXIST) {
		if _, err = w.clear(parent, base, false); err != nil {
			return err
		}
		err = unix.Mknodat(parent.fd, base, mode, dev)
	}
	if err != nil {
		return err
	}
	return w.attributes(parent, base, h)
}

// attributes sets owner, mode, xattrs and times of what must not be opened for reading or writing. It works on a path-only
// descriptor: somebody who swaps the entry meanwhile gets nothing changed behind a symlink.
func (w *writer) attributes(parent *folder, base string, h *tar.Header) error {
	uid, gid := w.owner(h)
	if err := unix.Fchownat(parent.fd, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		fd, err := unix.Openat(parent.fd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = chmodNode(fd, uint32(h.Mode)&0o7777)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	for k, v := range xattrs(h) {
		if err := ignoreUnsupported(unix.Lsetxattr(fdPath(parent.fd, base), k, []byte(v), 0)); err != nil {
			return err
		}
	}
	ts := times(h)
	return unix.UtimesNanoAt(parent.fd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func chmodNode(fd int, mode uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK || st.Mode&0o7777 == mode {
		return nil
	}
	return unix.Chmod(strings.TrimSuffix(fdPath(fd, ""), "/"), mode)
}

// makeLink links to an entry of this tar, or in a folder that was there, to anything in it. A
// layer's hard link to a file of a lower layer is Invalid, as in Docker: layers don't know their parents.
func (w *writer) makeLink(dir, base string, h *tar.Header) error {
	name, ok := cleanName(h.Linkname)
	if !ok || name == "" {
		return fault.Invalid("hard link to %q leads out of the root", h.Linkname)
	}
	fromDir, from := split(path.Join(w.base, name))
	if w.o.Layer && strings.HasPrefix(from, whiteoutPrefix) {
		return fault.Invalid("hard link to whiteout %q", h.Linkname)
	}
	if _, err := w.tree.folder(fromDir, false); err != nil {
		return linkError(h, err)
	}
	to, err := w.tree.folder(dir, true)
	if err != nil {
		return err
	}
	source, err := w.tree.folder(fromDir, false) // again: it is certain to be open beside to now
	if err != nil {
		return linkError(h, err)
	}
	if source == to && from == base {
		return fault.Invalid("hard link to itself")
	}
	err = unix.Linkat(source.fd, from, to.fd, base, 0)
	if errors.Is(err, unix.EEXIST) {
		var a, b unix.Stat_t
		if unix.Fstatat(source.fd, from, &a, unix.AT_SYMLINK_NOFOLLOW) == nil && unix.Fstatat(to.fd, base, &b, unix.AT_SYMLINK_NOFOLLOW) == nil &&
			a.Dev == b.Dev && a.Ino == b.Ino {
			return nil // the same file already
		}
		if _, err = w.clear(to, base, false); err != nil {
			return err
		}
		err = unix.Linkat(source.fd, from, to.fd, base, 0)
	}
	if err != nil {
		return linkError(h, err)
	}
	return nil
}

func linkError(h *tar.Header, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		return fault.Invalid("hard link to %q, which is no file before it in this tar: %w", h.Linkname, err)
	}
	return err
}

// finish gives folders what had to wait until nothing is made in them any more.
func (w *writer) finish() error {
	for _, real := range w.order {
		l := w.late[real]
		f := w.tree.root
		if real != "" {
			dir, base := split(real)
			parent, err := w.tree.folder(dir, false)
			if err != nil {
				continue // replaced by a later entry
			}
			fd, err := openDir(parent.fd, base)
			if err != nil {
				continue
			}
			f = &folder{fd: fd, real: real}
		}
		err := l.set(f.fd)
		if f != w.tree.root {
			unix.Close(f.fd)
		}
		if err != nil {
			return entryError(real, err)
		}
	}
	return nil
}

func (l *late) set(fd int) error {
	for k, v := range l.xattrs {
		if err := ignoreUnsupported(unix.Fsetxattr(fd, k, []byte(v), 0)); err != nil {
			return err
		}
	}
	return futimens(fd, &l.times)
}

// impliedPaths is sorted.
func (w *writer) impliedPaths() []string {
	var all []string
	for p := range w.tree.implied {
		all = append(all, p)
	}
	if w.o.Layer && !w.rooted {
		all = append(all, "")
	}
	slices.Sort(all)
	return all
}

// xattrs are a header's extended attributes. Overlay's own are left out: in a
// lower layer they could redirect a name to another folder.
func xattrs(h *tar.Header) map[string]string {
	var m map[string]string
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok || isOverlayXattr(name) {
			continue
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = v
	}
	return m
}

func isOverlayXattr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// ignoreUnsupported lets a file system without a kind of extended attribute pass, as Docker does.
func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// times are access and modification time, both the entry's modification time unless it has an access time.
func times(h *tar.Header) [2]unix.Timespec {
	at := h.AccessTime
	if at.IsZero() || at.Before(h.ModTime) {
		at = h.ModTime
	}
	return [2]unix.Timespec{timespec(at), timespec(h.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
