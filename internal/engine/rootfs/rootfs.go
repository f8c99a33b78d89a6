// Package rootfs looks into a container's root file system from outside.
//
// A View is a file descriptor on the root: of a running container through
// /proc/<pid>/root, of any other through an overlay mount that is attached
// nowhere (fsmount(2)) and ends with the descriptor. Every path is resolved by
// openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS), so neither .. nor a symbolic
// link of the container's leads out of it.
//
// Find and ReadFile answer from the layer folders directly where no
// symbolic link is on the way, which is nearly always, without any mount.
package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Layers are the folders that make up a root: Upper ("" for none) over Lower, topmost first.
type Layers struct {
	Lower []string
	Upper string
	Work  string
}

// maxRead bounds what ReadFile reads of a container's file.
const maxRead = 4 << 20

// resolve keeps a resolution inside its root.
const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// View is an open root.
type View struct {
	root *os.File
	work string // to be emptied by Close: a volatile mount leaves a mark there that forbids the next mount
}

// Mount opens the layers as one tree; without Upper it is read-only.
func Mount(l Layers) (*View, error) {
	if l.Upper == "" && len(l.Lower) == 1 { // an overlay wants two folders at least
		f, err := os.OpenFile(l.Lower[0], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return &View{root: f}, nil
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot open overlay: %w", err)
	}
	defer unix.Close(fs)
	set := func(key, value string) {
		if err == nil {
			if err = unix.FsconfigSetString(fs, key, value); err != nil {
				err = fmt.Errorf("overlay option %s=%s: %w", key, value, err)
			}
		}
	}
	for _, d := range l.Lower {
		set("lowerdir+", d)
	}
	if l.Upper != "" {
		set("upperdir", l.Upper)
		set("workdir", l.Work)
		if err == nil { // otherwise unmounting would sync all of the upper file system
			err = unix.FsconfigSetFlag(fs, "volatile")
		}
	}
	if err != nil {
		return nil, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("cannot make the overlay of %d layers: %w", len(l.Lower), err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return nil, fmt.Errorf("cannot mount the overlay: %w", err)
	}
	return &View{root: os.NewFile(uintptr(fd), "overlay"), work: l.Work}, nil
}

// Process opens the root of a running container by the host pid of its init.
func Process(pid int) (*View, error) {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &View{root: f}, nil
}

// Close ends the view; what was changed stays in the upper folder.
func (v *View) Close() error {
	err := v.root.Close()
	if v.work == "" {
		return err
	}
	if e := os.RemoveAll(v.work); e != nil && err == nil {
		err = e
	}
	if e := os.Mkdir(v.work, 0o700); e != nil && err == nil {
		err = e
	}
	return err
}

// Open opens a path inside the root. flags are open(2)'s.
func (v *View) Open(name string, flags int) (*os.File, error) {
	return openIn(v.root, name, flags, resolve)
}

func openIn(dir *os.File, name string, flags int, how uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), relative(name), &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: how})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// MkdirAll makes a folder and its missing parents (mode 0755, owner root); symbolic links are followed inside the root.
func (v *View) MkdirAll(name string) error {
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if part == "" {
			continue
		}
		next := path.Join(at, part)
		f, err := v.Open(next, unix.O_PATH)
		if errors.Is(err, os.ErrNotExist) {
			parent, err := v.Open(at, unix.O_PATH|unix.O_DIRECTORY)
			if err != nil {
				return err
			}
			err = unix.Mkdirat(int(parent.Fd()), part, 0o755)
			parent.Close()
			if err != nil && !errors.Is(err, unix.EEXIST) {
				return &os.PathError{Op: "mkdir", Path: next, Err: err}
			}
			if f, err = v.Open(next, unix.O_PATH); err != nil { // a dangling link
				return err
			}
		} else if err != nil {
			return err
		}
		f.Close()
		at = next
	}
	f, err := v.Open(at, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return f.Close()
}

// ReadFile reads a regular file of at most 4 MiB; a missing one is fs.ErrNotExist.
func (v *View) ReadFile(name string) ([]byte, error) {
	f, err := v.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f)
}

func readRegular(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	return io.ReadAll(io.LimitReader(f, maxRead))
}

// relative is name as openat2 wants it below a root.
func relative(name string) string {
	if r := strings.TrimPrefix(path.Clean("/"+name), "/"); r != "" {
		return r
	}
	return "."
}
