// Package rootfs opens a stack of layers as one file tree, to read it and to write into its upper
// directory, without the host ever seeing a mount: the overlay is mounted detached and used
// through its descriptor. Every look-up is openat2 with RESOLVE_IN_ROOT, so
// that no symlink of an image leads out of it.
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is an opened tree.
type Root struct {
	fd int // -1: an empty tree
}

// Open opens layers, topmost first, and on top of them upper, which receives all that is written (with work, an empty
// directory beside it). Without upper the tree is read-only. Close has to be called.
func Open(lower []string, upper, work string) (*Root, error) {
	switch {
	case len(lower) == 0 && upper == "":
		return &Root{fd: -1}, nil
	case len(lower) == 0:
		return plain(upper)
	case len(lower) == 1 && upper == "":
		return plain(lower[0])
	}
	fd, err := overlay(lower, upper, work)
	if err != nil {
		return nil, fmt.Errorf("cannot mount %d layers: %w", len(lower), err)
	}
	return &Root{fd: fd}, nil
}

func plain(dir string) (*Root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Root{fd: fd}, nil
}

// Close lets go of the tree; a mount ends with it.
func (r *Root) Close() error {
	if r.fd < 0 {
		return nil
	}
	return unix.Close(r.fd)
}

// OpenAt opens a path inside the tree. With O_NOFOLLOW a symlink in the last part is not followed.
func (r *Root) OpenAt(name string, flags int, mode uint32) (int, error) {
	if r.fd < 0 {
		return -1, unix.ENOENT
	}
	rel := strings.TrimPrefix(path.Join("/", name), "/")
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	for {
		fd, err := unix.Openat2(r.fd, rel, &how)
		if err == unix.EINTR || err == unix.EAGAIN { // a rename somewhere raced with ".."
			continue
		}
		return fd, err
	}
}

// Exists tells whether a path leads to something, symlinks followed.
func (r *Root) Exists(name string) bool {
	fd, err := r.OpenAt(name, unix.O_PATH, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// IsDir tells whether a path leads to a folder.
func (r *Root) IsDir(name string) bool {
	fd, err := r.OpenAt(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// ReadFile reads a file of at most limit bytes; one that is missing is no error and empty.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	fd, err := r.OpenAt(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || err == unix.ENOTDIR {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: unix.EFBIG}
	}
	data := make([]byte, st.Size())
	n, err := f.ReadAt(data, 0)
	if n < len(data) {
		return nil, err
	}
	return data, nil
}

// maxLinks is how many symlinks MakeDir follows, as in the kernel.
const maxLinks = 40

// MakeDir opens a folder (O_PATH) and makes it and its parents where they are missing, through symlinks
// whose targets are missing too. made is called with every folder that was made; folders that were there keep their times.
func (r *Root) MakeDir(name string, made func(fd int) error) (int, error) {
	fd, err := r.makeDir(path.Join("/", name), made, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return fd, nil
}

func (r *Root) makeDir(name string, made func(fd int) error, links int) (int, error) {
	fd, err := r.OpenAt(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != unix.ENOENT || name == "/" {
		return fd, err
	}
	up, err := r.makeDir(path.Dir(name), made, links)
	if err != nil {
		return -1, err
	}
	defer unix.Close(up)
	base := path.Base(name)
	var st unix.Stat_t
	if err := unix.Fstat(up, &st); err != nil {
		return -1, err
	}
	err = unix.Mkdirat(up, base, 0o755)
	if err == unix.EEXIST { // a symlink to nothing
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(up, base, buf)
		if err != nil {
			return -1, unix.ENOTDIR
		}
		target := string(buf[:n])
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		return r.makeDir(target, made, links)
	}
	if err != nil {
		return -1, err
	}
	fd, err = unix.Openat(up, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = made(fd)
	if err == nil { // the parent keeps its time
		err = unix.UtimesNanoAt(up, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// FD is the descriptor of the root folder, -1 for an empty tree.
func (r *Root) FD() int { return r.fd }

// Real resolves all symlinks in a path, inside the tree; what does not exist is appended as it is.
func (r *Root) Real(name string) string {
	todo := strings.Split(strings.Trim(path.Join("/", name), "/"), "/")
	real, links := "/", 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			real = path.Dir(real)
			continue
		}
		next := path.Join(real, part)
		e, err := r.Stat(next, false)
		if err != nil || e.Link == "" || links == maxLinks {
			real = next
			continue
		}
		links++
		if path.IsAbs(e.Link) {
			real = "/"
		}
		todo = append(strings.Split(e.Link, "/"), todo...)
	}
	return real
}
