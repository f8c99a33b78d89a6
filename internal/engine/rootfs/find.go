package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// errLinked says that a layer-wise answer is not possible: a symbolic link is on the way.
var errLinked = errors.New("symbolic link on the way")

// Exists tells whether a path exists in the merged tree, and whether it is a folder.
func Exists(l Layers, name string) (exists, folder bool, err error) {
	f, err := l.find(name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, errLinked) {
		v, err := Mount(l.merged())
		if err != nil {
			return false, false, err
		}
		defer v.Close()
		f, err = v.Open(name, unix.O_PATH)
		return stat(f, err)
	}
	return stat(f, err)
}

func stat(f *os.File, err error) (bool, bool, error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, false, err
	}
	return true, info.IsDir(), nil
}

// ReadFile reads a regular file of the merged tree; a missing one is fs.ErrNotExist.
func ReadFile(l Layers, name string) ([]byte, error) {
	f, err := l.find(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, errLinked) {
		v, err := Mount(l.merged())
		if err != nil {
			return nil, err
		}
		defer v.Close()
		return v.ReadFile(name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f)
}

// merged is the same tree for reading only.
func (l Layers) merged() Layers {
	if l.Upper == "" {
		return l
	}
	return Layers{Lower: append([]string{l.Upper}, l.Lower...)}
}

// find opens name in the topmost layer that has it, by overlayfs's rules
// (Documentation/filesystems/overlayfs.rst): a 0/0 character device hides what is
// below, a folder with trusted.overlay.opaque=y hides the folders below it.
func (l Layers) find(name string, flags int) (*os.File, error) {
	parts := strings.Split(relative(name), "/")
	for _, dir := range l.merged().Lower {
		hidden := false
		for i := 1; i <= len(parts); i++ {
			var st unix.Stat_t
			fd, err := openLayer(dir, path.Join(parts[:i]...), unix.O_PATH|unix.O_NOFOLLOW)
			if errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				return nil, err
			}
			if err := unix.Fstat(fd, &st); err != nil {
				unix.Close(fd)
				return nil, err
			}
			kind := st.Mode & unix.S_IFMT
			if kind == unix.S_IFCHR && st.Rdev == 0 {
				unix.Close(fd)
				return nil, fs.ErrNotExist
			}
			if kind == unix.S_IFLNK {
				unix.Close(fd)
				return nil, errLinked
			}
			if i == len(parts) {
				if flags&unix.O_PATH != 0 {
					return os.NewFile(uintptr(fd), name), nil
				}
				unix.Close(fd)
				if fd, err = openLayer(dir, relative(name), flags); err != nil {
					return nil, err
				}
				return os.NewFile(uintptr(fd), name), nil
			}
			unix.Close(fd)
			if kind != unix.S_IFDIR {
				return nil, fs.ErrNotExist
			}
			var y [1]byte
			if n, err := unix.Lgetxattr(path.Join(append([]string{dir}, parts[:i]...)...), "trusted.overlay.opaque", y[:]); err == nil && n == 1 && y[0] == 'y' {
				hidden = true
			}
		}
		if hidden {
			return nil, fs.ErrNotExist
		}
	}
	return nil, fs.ErrNotExist
}

func openLayer(dir, name string, flags int) (int, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return unix.Openat2(root, name, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}
