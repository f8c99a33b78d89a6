package rootfs

import (
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/build/source"
)

// inode identifies a file with several names.
type inode struct{ dev, ino uint64 }

// Stat implements source.Tree.
func (r *Root) Stat(name string, follow bool) (*source.Entry, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := r.OpenAt(name, flags, 0)
	if err == unix.ENOTDIR {
		err = unix.ENOENT
	}
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return entry(fd, path.Join("/", name))
}

func entry(fd int, name string) (*source.Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	e := &source.Entry{Path: name, Name: path.Base(name), Mode: mode(st.Mode), UID: int(st.Uid), GID: int(st.Gid),
		Size: st.Size, ModTime: time.Unix(st.Mtim.Unix()), Dev: st.Rdev}
	if name == "/" {
		e.Name = ""
	}
	switch {
	case e.Mode&fs.ModeSymlink != 0:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", buf)
		if err != nil {
			return nil, &fs.PathError{Op: "readlink", Path: name, Err: err}
		}
		e.Link = string(buf[:n])
	case e.Mode&fs.ModeCharDevice != 0 && st.Rdev == 0:
		return nil, &fs.PathError{Op: "stat", Path: name, Err: unix.ENOENT} // a whiteout in a layer that stands alone
	case e.Mode.IsRegular():
		if st.Nlink > 1 {
			e.Same = inode{st.Dev, st.Ino}
		}
		e.Xattrs = xattrs(fd)
	}
	return e, nil
}

// mode turns a stat mode into Go's.
func mode(m uint32) fs.FileMode {
	out := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		out |= fs.ModeDir
	case unix.S_IFLNK:
		out |= fs.ModeSymlink
	case unix.S_IFIFO:
		out |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		out |= fs.ModeSocket
	case unix.S_IFCHR:
		out |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		out |= fs.ModeDevice
	}
	for bit, set := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			out |= set
		}
	}
	return out
}

// xattrs reads those that are copied along; a file without any is the rule.
func xattrs(fd int) map[string]string {
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	buf := make([]byte, 4096)
	n, err := unix.Listxattr(self, buf)
	if err != nil || n == 0 {
		return nil
	}
	var out map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !source.KeepXattr(name) {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Getxattr(self, name, value); err == nil {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = string(value[:n])
		}
	}
	return out
}

// List implements source.Tree.
func (r *Root) List(dir *source.Entry) ([]*source.Entry, error) {
	fd, err := r.OpenAt(dir.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir.Path, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir.Path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	out := make([]*source.Entry, 0, len(names))
	for _, n := range names {
		c, err := unix.Openat(fd, n, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path.Join(dir.Path, n), Err: err}
		}
		e, err := entry(c, path.Join(dir.Path, n))
		unix.Close(c)
		if err != nil {
			if os.IsNotExist(err) {
				continue
			}
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Open implements source.Tree.
func (r *Root) Open(e *source.Entry) (io.ReadCloser, error) {
	fd, err := r.OpenAt(e.Path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: e.Path, Err: err}
	}
	return os.NewFile(uintptr(fd), e.Path), nil
}
