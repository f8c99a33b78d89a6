package copier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/build/rootfs"
	"tare/internal/build/source"
)

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// Options say how files arrive.
type Options struct {
	Dest  string    // absolute; a closing slash says "a folder"
	Owner *Owner    // nil keeps the source's
	Mode  string    // permissions in chmod(1)'s words, octal or symbolic; "" keeps the source's
	Word  string    // COPY or ADD, for messages
	Time  time.Time // of parents that are made
	Floor time.Time // no file gets an older time
	Keep  bool      // files keep their owners, Owner is that of parents alone
}

// Copy writes the selection into root.
func Copy(ctx context.Context, root *rootfs.Root, s *Selection, o Options) error {
	c := &copying{ctx: ctx, root: root, s: s, o: o, buf: make([]byte, 256<<10), linked: map[any]string{}}
	for _, i := range s.Items {
		if err := c.item(i); err != nil {
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, context.Canceled) {
				return err
			}
			return fmt.Errorf("%s failed: %w", o.Word, err)
		}
	}
	return nil
}

type copying struct {
	ctx    context.Context
	root   *rootfs.Root
	s      *Selection
	o      Options
	buf    []byte
	linked map[any]string // a file with several names → the path of the first in root
}

// item copies one source to the destination.
func (c *copying) item(i Item) error {
	dest := c.o.Dest
	folder := strings.HasSuffix(dest, "/")
	if c.s.Parents {
		return c.parents(i)
	}
	if i.Entry.IsDir() {
		return c.contents(i.Entry, dest)
	}
	name := i.Name
	if !folder && !c.root.IsDir(dest) {
		// A file of that name, or a symlink's target if the last part is one.
		name, dest = path.Base(dest), path.Dir(dest)
		if target, ok := c.follow(c.o.Dest); ok {
			name, dest = path.Base(target), path.Dir(target)
		}
	}
	return c.in(dest, func(dir int) (bool, error) {
		return false, c.entry(dir, i.Entry, name, path.Join(dest, name), "")
	})
}

// follow resolves symlinks in the last part of a destination, inside the root.
func (c *copying) follow(dest string) (string, bool) {
	followed := false
	for range 40 {
		e, err := c.root.Stat(dest, false)
		if err != nil || e.Mode&fs.ModeSymlink == 0 {
			return dest, followed
		}
		followed = true
		if path.IsAbs(e.Link) {
			dest = path.Clean(e.Link)
		} else {
			dest = path.Join(path.Dir(dest), e.Link)
		}
	}
	return dest, false
}

// in opens (and makes) a folder of the root, calls f, and sets the folder's time back unless f did: what a
// layer holds shall not depend on when it was made.
func (c *copying) in(dir string, f func(fd int) (timed bool, err error)) error {
	fd, err := c.root.MakeDir(dir, c.made)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	timed, err := f(fd)
	if err != nil || timed {
		return err
	}
	return setTime(fd, time.Unix(st.Mtim.Unix()))
}

// made finishes a parent folder that had to be made.
func (c *copying) made(fd int) error {
	if c.o.Owner != nil {
		if err := unix.Fchownat(fd, "", c.o.Owner.UID, c.o.Owner.GID, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	return setTime(fd, c.o.time(c.o.Time))
}

// contents copies what is in a folder. The destination does not become the folder: if it is made, then like any parent.
func (c *copying) contents(dir *source.Entry, dest string) error {
	if c.root.Exists(dest) && !c.root.IsDir(dest) {
		return fault.Invalid("cannot copy to non-directory: %s", dest)
	}
	return c.in(dest, func(fd int) (bool, error) {
		return false, c.children(fd, dir, path.Clean(dest), "")
	})
}

// parents copies with --parents: the item's folders are made as they are in the source.
func (c *copying) parents(i Item) error {
	at, dest := strings.TrimSuffix(i.Entry.Path, i.Name), strings.TrimSuffix(c.o.Dest, "/")
	parts := strings.Split(i.Name, "/")
	for n, part := range parts {
		at, dest = path.Join("/", at, part), dest+"/"+part
		if n == len(parts)-1 && !i.Entry.IsDir() {
			return c.in(path.Dir(dest), func(dir int) (bool, error) {
				return false, c.entry(dir, i.Entry, part, dest, part)
			})
		}
		e, err := c.s.Tree.Stat(at, true)
		if err != nil {
			return err
		}
		last := n == len(parts)-1
		if c.root.Exists(dest) {
			if last {
				return c.contents(i.Entry, dest)
			}
			continue
		}
		fd, err := c.root.MakeDir(dest, c.made)
		if err != nil {
			return err
		}
		err = c.attributes(fd, e)
		unix.Close(fd)
		if err == nil && last {
			err = c.contents(i.Entry, dest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) children(fd int, dir *source.Entry, dest, rel string) error {
	list, err := c.s.Tree.List(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		at := path.Join(rel, e.Name)
		skip, err := c.s.excluded(at)
		if err != nil {
			return err
		}
		if skip {
			continue
		}
		if err := c.entry(fd, e, e.Name, path.Join(dest, e.Name), at); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one entry as name into the folder dir, whose path in the root is that of dest.
func (c *copying) entry(dir int, e *source.Entry, name, dest, rel string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if strings.HasPrefix(name, ".wh.") {
		return fault.Invalid("cannot copy %s: names that begin with .wh. mark deleted files in layers", dest)
	}
	var old unix.Stat_t
	err := unix.Fstatat(dir, name, &old, unix.AT_SYMLINK_NOFOLLOW)
	exists := err == nil
	if err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "stat", Path: dest, Err: err}
	}
	isDir := exists && old.Mode&unix.S_IFMT == unix.S_IFDIR
	if e.IsDir() {
		return c.folder(dir, e, name, dest, rel, exists, isDir)
	}
	if isDir {
		return fault.Invalid("cannot overwrite directory %s with non-directory", dest)
	}
	if exists {
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return &fs.PathError{Op: "remove", Path: dest, Err: err}
		}
	}
	if e.Same != nil {
		if first, ok := c.linked[e.Same]; ok && c.link(first, dir, name) == nil {
			return nil
		}
		c.linked[e.Same] = dest
	}
	if err := c.file(dir, e, name); err != nil {
		return &fs.PathError{Op: "create", Path: dest, Err: err}
	}
	return nil
}

func (c *copying) folder(dir int, e *source.Entry, name, dest, rel string, exists, isDir bool) error {
	if exists && !isDir {
		return fault.Invalid("cannot copy to non-directory: %s", dest)
	}
	if !exists {
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return &fs.PathError{Op: "mkdir", Path: dest, Err: err}
		}
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dest, Err: err}
	}
	defer unix.Close(fd)
	if err := c.children(fd, e, dest, rel); err != nil {
		return err
	}
	if exists && e.Implied {
		return nil
	}
	return c.attributes(fd, e)
}

// link gives a file its further name.
func (c *copying) link(first string, dir int, name string) error {
	fd, err := c.root.OpenAt(first, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(fd, "", dir, name, unix.AT_EMPTY_PATH)
}

// file makes anything but a folder.
func (c *copying) file(dir int, e *source.Entry, name string) error {
	switch {
	case e.Mode.IsRegular():
		fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		r, err := c.s.Tree.Open(e)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := io.CopyBuffer(writer(fd), struct{ io.Reader }{r}, c.buf); err != nil {
			return err
		}
		return c.attributes(fd, e)
	case e.Mode&fs.ModeSymlink != 0:
		if err := unix.Symlinkat(e.Link, dir, name); err != nil {
			return err
		}
	case e.Mode&fs.ModeNamedPipe != 0:
		if err := unix.Mknodat(dir, name, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
	case e.Mode&fs.ModeDevice != 0 && e.Dev != 0:
		kind := uint32(unix.S_IFBLK)
		if e.Mode&fs.ModeCharDevice != 0 {
			kind = unix.S_IFCHR
		}
		if err := unix.Mknodat(dir, name, kind|0o600, int(e.Dev)); err != nil {
			return err
		}
	default:
		return fault.Invalid("files of type %s are not copied", e.Mode.Type())
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return c.attributes(fd, e)
}

// attributes sets owner, mode, xattrs and time of an open file (O_PATH will do).
func (c *copying) attributes(fd int, e *source.Entry) error {
	owner := Owner{e.UID, e.GID}
	if c.o.Owner != nil && !c.o.Keep {
		owner = *c.o.Owner
	}
	if err := unix.Fchownat(fd, "", owner.UID, owner.GID, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if e.Mode&fs.ModeSymlink == 0 {
		mode, err := chmod(bits(e.Mode), e.IsDir(), c.o.Mode)
		if err != nil {
			return err
		}
		if err := unix.Chmod(self, mode); err != nil { // after chown, which drops setuid
			return err
		}
		for k, v := range e.Xattrs {
			if err := unix.Setxattr(self, k, []byte(v), 0); err != nil && err != unix.ENOTSUP {
				return err
			}
		}
	}
	return setTime(fd, c.o.time(e.ModTime))
}

func (o Options) time(t time.Time) time.Time {
	if t.Before(o.Floor) {
		return o.Floor
	}
	return t
}

// bits is the permission part of a stat mode.
func bits(m fs.FileMode) uint32 {
	out := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		out |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		out |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		out |= unix.S_ISVTX
	}
	return out
}

// setTime sets access and modification time of an open file, a symlink's own too.
func setTime(fd int, t time.Time) error {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
}

// writer writes to a bare descriptor.
type writer int

func (w writer) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(int(w), p[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// MakeDir makes a folder and its parents, as WORKDIR does.
func MakeDir(root *rootfs.Root, dir string, owner Owner, at time.Time) error {
	c := &copying{root: root, o: Options{Owner: &owner, Time: at}}
	fd, err := root.MakeDir(dir, c.made)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
