package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CopyOut copies the content of a folder of the view into target, an empty folder of the host, with owners, modes, times,
// extended attributes and hard links, and gives target the folder's own owner and mode. A name that is no folder copies nothing.
func (v *View) CopyOut(name, target string) error {
	src, err := v.Open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	return CopyTree(src, target, nil)
}

// CopyTree copies the tree below src, which is open for reading, into the existing folder target. keep, if not nil, says
// for each extended attribute whether to copy it. Nothing in src is followed: links are copied as links.
func CopyTree(src *os.File, target string, keep func(attribute string) bool) error {
	dst, err := os.OpenFile(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	c := &copier{target: target, links: map[inode]string{}, keep: keep}
	if err := c.folder(src, dst, ""); err != nil {
		return fmt.Errorf("cannot copy to %s: %w", target, err)
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type copier struct {
	target string
	links  map[inode]string // files with several names → the first, relative to target
	keep   func(string) bool
}

func (c *copier) folder(src, dst *os.File, rel string) error {
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.entry(src, dst, name, filepath.Join(rel, name)); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Fchown(int(dst.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dst.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	if err := c.attributes(fdPath(src), fdPath(dst)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(dst), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func (c *copier) entry(src, dst *os.File, name, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(src.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	id := inode{st.Dev, st.Ino}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[id]; ok {
			return unix.Linkat(unix.AT_FDCWD, filepath.Join(c.target, first), int(dst.Fd()), name, 0)
		}
		c.links[id] = rel
	}
	at := int(dst.Fd())
	switch kind {
	case unix.S_IFDIR:
		return c.subfolder(src, dst, name, rel)
	case unix.S_IFREG:
		if err := copyFile(src, dst, name); err != nil {
			return err
		}
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(src.Fd()), name, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), at, name); err != nil {
			return err
		}
	case unix.S_IFSOCK:
		return nil // a socket without its process is of no use
	default:
		if err := unix.Mknodat(at, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	if err := unix.Fchownat(at, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if kind != unix.S_IFLNK {
		if err := unix.Fchmodat(at, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	if err := c.attributes(filepath.Join(fdPath(src), name), filepath.Join(fdPath(dst), name)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(at, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func (c *copier) subfolder(src, dst *os.File, name, rel string) error {
	if err := unix.Mkdirat(int(dst.Fd()), name, 0o700); err != nil {
		return err
	}
	from, err := open(src, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := open(dst, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer to.Close()
	return c.folder(from, to, rel)
}

func copyFile(src, dst *os.File, name string) error {
	from, err := open(src, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := open(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	if _, err = io.Copy(to, from); err != nil { // copy_file_range, so reflinks where the file system has them
		to.Close()
		return err
	}
	return to.Close()
}

func open(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// attributes copies extended attributes; from and to end in a name that is not followed, or are /proc/self/fd paths of folders.
func (c *copier) attributes(from, to string) error {
	list, get, set := unix.Llistxattr, unix.Lgetxattr, unix.Lsetxattr
	if !strings.Contains(strings.TrimPrefix(from, "/proc/self/fd/"), "/") {
		list, get, set = unix.Listxattr, unix.Getxattr, unix.Setxattr
	}
	n, err := list(from, nil)
	if n <= 0 || err != nil {
		if err == nil || errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		return err
	}
	buf := make([]byte, n)
	if n, err = list(from, buf); err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if c.keep != nil && !c.keep(name) || c.keep == nil && strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		size, err := get(from, name, nil)
		if err != nil {
			continue
		}
		value := make([]byte, size)
		if size, err = get(from, name, value); err != nil {
			continue
		}
		if err := set(to, name, value[:size], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}
