package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	enginecontainer "tare/internal/engine/container"
	"tare/internal/engine/rootfs"
)

// Changes lists what differs from the image, by path: what the upper folder has that the image has not is added, what both
// have is changed (a folder only if its own attributes differ or a name came or went in it), whiteouts are deletions.
func Changes(ctx context.Context, c *enginecontainer.Files) ([]container.FilesystemChange, error) {
	image, err := rootfs.Mount(rootfs.Layers{Lower: c.Lower})
	if err != nil {
		return nil, fmt.Errorf("cannot open the image of container %s: %w", c.Name, err)
	}
	defer image.Close()
	below, err := image.Open("/", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer below.Close()
	above, err := os.Open(c.Upper)
	if err != nil {
		return nil, err
	}
	defer above.Close()
	w := &comparison{ctx: ctx, ours: placeholders(c.Mounts)}
	if err := w.folder(above, below, "/"); err != nil {
		return nil, fmt.Errorf("cannot compare container %s with its image: %w", c.Name, err)
	}
	slices.SortFunc(w.out, func(a, b container.FilesystemChange) int { return strings.Compare(a.Path, b.Path) })
	return w.out, nil
}

// placeholders are the names that the engine makes in every container for something to be mounted on.
func placeholders(mounts []container.MountPoint) map[string]bool {
	out := map[string]bool{}
	add := func(name string) {
		for p := path.Clean("/" + name); p != "/"; p = path.Dir(p) {
			out[p] = true
		}
	}
	for _, p := range []string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"} {
		add(p)
	}
	for _, m := range mounts {
		add(m.Destination)
	}
	return out
}

type comparison struct {
	ctx  context.Context
	ours map[string]bool
	out  []container.FilesystemChange
}

func (w *comparison) add(kind container.ChangeType, name string) {
	w.out = append(w.out, container.FilesystemChange{Kind: kind, Path: name})
}

// folder compares the entries of above with those of below, which is nil where the image has no such folder.
func (w *comparison) folder(above, below *os.File, name string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	names, err := above.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	said := name == "/" // Docker never lists the root
	for _, n := range names {
		kind, listed, err := w.entry(above, below, n, path.Join(name, n))
		if err != nil {
			return err
		}
		if listed && kind != container.ChangeModify && !said {
			said = true
			if !slices.ContainsFunc(w.out, func(c container.FilesystemChange) bool { return c.Path == name }) {
				w.add(container.ChangeModify, name)
			}
		}
	}
	return nil
}

// entry compares one name.
func (w *comparison) entry(above, below *os.File, base, name string) (kind container.ChangeType, listed bool, err error) {
	var up, down unix.Stat_t
	if err := unix.Fstatat(int(above.Fd()), base, &up, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return 0, false, nil // removed meanwhile
		}
		return 0, false, err
	}
	was := below != nil && unix.Fstatat(int(below.Fd()), base, &down, unix.AT_SYMLINK_NOFOLLOW) == nil
	if up.Mode&unix.S_IFMT == unix.S_IFCHR && up.Rdev == 0 {
		if was {
			w.add(container.ChangeDelete, name)
		}
		return container.ChangeDelete, was, nil
	}
	folder := up.Mode&unix.S_IFMT == unix.S_IFDIR
	kind = container.ChangeAdd
	if was {
		kind = container.ChangeModify
	}
	at := len(w.out)
	if folder {
		sub, err := openFolder(above, base)
		if err != nil {
			return 0, false, err
		}
		defer sub.Close()
		var under *os.File
		if was && down.Mode&unix.S_IFMT == unix.S_IFDIR {
			if under, err = openFolder(below, base); err != nil {
				return 0, false, err
			}
			defer under.Close()
		}
		opaque := under != nil && isOpaque(sub)
		if err := w.folder(sub, under, name); err != nil {
			return 0, false, err
		}
		if opaque {
			if err := w.hidden(sub, under, name); err != nil {
				return 0, false, err
			}
		}
	}
	said := slices.ContainsFunc(w.out[at:], func(c container.FilesystemChange) bool { return c.Path == name })
	switch {
	case w.ours[name] && len(w.out) == at && (folder || up.Size == 0):
		return kind, false, nil // made by the engine, and nothing in it
	case said:
		// its parent's rule named it already, as changed; what is new stays new
		for i := range w.out[at:] {
			if w.out[at+i].Path == name {
				w.out[at+i].Kind = kind
			}
		}
	case folder && was && down.Mode == up.Mode && down.Uid == up.Uid && down.Gid == up.Gid && down.Mtim == up.Mtim:
		return kind, false, nil
	default:
		w.add(kind, name)
	}
	return kind, true, nil
}

// hidden lists what an opaque folder hides of the image's.
func (w *comparison) hidden(above, below *os.File, name string) error {
	if _, err := below.Seek(0, 0); err != nil {
		return err
	}
	names, err := below.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		var st unix.Stat_t
		if errors.Is(unix.Fstatat(int(above.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT) {
			w.add(container.ChangeDelete, path.Join(name, n))
		}
	}
	return nil
}

func openFolder(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func isOpaque(f *os.File) bool {
	var y [2]byte
	n, err := unix.Fgetxattr(int(f.Fd()), "trusted.overlay.opaque", y[:])
	return err == nil && n == 1 && y[0] == 'y'
}
