package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/engine/rootfs"
)

// view is a container's root.
type view struct {
	c     *enginecontainer.Files
	root  *rootfs.View
	mount *container.MountPoint // set if root is this mount's source, because mounts could not be put in their places
}

// openView opens the root in which name can be resolved.
func openView(c *enginecontainer.Files, name string) (*view, error) {
	if c.Pid > 0 && c.Running() {
		if r, err := rootfs.Process(c.Pid); err == nil {
			return &view{c: c, root: r}, nil
		} else if c.Running() {
			return nil, fmt.Errorf("cannot open the root of container %s: %w", c.Name, err)
		}
	}
	r, err := rootfs.Mount(rootfs.Layers{Lower: c.Lower, Upper: c.Upper, Work: c.Work})
	if err != nil {
		return nil, fmt.Errorf("cannot mount the root of container %s: %w", c.Name, err)
	}
	err = attachMounts(r, c)
	if errors.Is(err, unix.EINVAL) { // a kernel that does not mount into detached trees
		if m := mountOf(c.Mounts, absolute(name)); m != nil {
			r.Close()
			if c.Subpaths[m.Destination] != "" {
				return nil, fault.Unsupported("what is below %s of container %s can be had only while it runs: a subpath of a volume is mounted there", m.Destination, c.Name)
			}
			dir, err := rootfs.Mount(rootfs.Layers{Lower: []string{m.Source}})
			if err != nil {
				return nil, fmt.Errorf("cannot open mount %s of container %s: %w", m.Destination, c.Name, err)
			}
			return &view{c: c, root: dir, mount: m}, nil
		}
		return &view{c: c, root: r}, nil
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot mount the volumes of container %s: %w", c.Name, err)
	}
	return &view{c: c, root: r}, nil
}

func (v *view) close() { v.root.Close() }

// attachMounts puts binds and volumes into the tree, outer ones first, making the places where they go. A source that is
// gone is left out: the container could not start either, but its other files can be had.
func attachMounts(r *rootfs.View, c *enginecontainer.Files) error {
	list := slices.Clone(c.Mounts)
	slices.SortStableFunc(list, func(a, b container.MountPoint) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
	for _, m := range list {
		if m.Source == "" || m.Type != mount.TypeBind && m.Type != mount.TypeVolume {
			continue
		}
		if err := attach(r, m, c.Subpaths[m.Destination]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", m.Destination, err)
		}
	}
	return nil
}

// openMount copies the mount of m's source, or what is at sub in it: no link there leads out of the source.
func openMount(m container.MountPoint, sub string) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE)
	if sub == "" {
		return unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	}
	top, err := unix.Open(m.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(top)
	below, err := unix.Openat2(top, sub, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, err
	}
	defer unix.Close(below)
	return unix.OpenTree(below, "", flags|unix.AT_EMPTY_PATH)
}

func attach(r *rootfs.View, m container.MountPoint, sub string) error {
	tree, err := openMount(m, sub)
	if err != nil {
		return &os.PathError{Op: "open", Path: path.Join(m.Source, sub), Err: err}
	}
	defer unix.Close(tree)
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = r.MkdirAll(m.Destination)
	} else {
		err = touch(r, m.Destination)
	}
	if err != nil {
		return err
	}
	at, err := r.Open(m.Destination, unix.O_PATH)
	if err != nil {
		return err
	}
	defer at.Close()
	if !m.RW {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return err
		}
	}
	return unix.MoveMount(tree, "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// touch makes an empty file for a file to be mounted on.
func touch(r *rootfs.View, name string) error {
	if f, err := r.Open(name, unix.O_PATH); err == nil {
		return f.Close()
	}
	dir, base := path.Split(path.Clean("/" + name))
	if err := r.MkdirAll(dir); err != nil {
		return err
	}
	parent, err := r.Open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer parent.Close()
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// mountOf finds the innermost bind or volume that a path lies in.
func mountOf(mounts []container.MountPoint, name string) *container.MountPoint {
	var best *container.MountPoint
	name = path.Clean(name)
	for i, m := range mounts {
		d := path.Clean("/" + m.Destination)
		if m.Type != mount.TypeBind && m.Type != mount.TypeVolume || name != d && !strings.HasPrefix(name, strings.TrimSuffix(d, "/")+"/") {
			continue
		}
		if best == nil || len(d) > len(path.Clean("/"+best.Destination)) {
			best = &mounts[i]
		}
	}
	return best
}

// inside is a container's path as the view's root knows it.
func (v *view) inside(name string) string {
	clean := path.Clean("/" + name)
	if v.mount == nil {
		return clean
	}
	rest := strings.TrimPrefix(clean, path.Clean("/"+v.mount.Destination))
	if len(rest) == len(clean) { // the folder above the mount: its top stands for it
		return "/"
	}
	return path.Clean("/" + rest)
}

// realPath is the container's path of an open file, without links.
func (v *view) realPath(f *os.File) (string, error) {
	root, err := v.root.Open("/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer root.Close()
	name, err := below(root, f)
	if err != nil {
		return "", err
	}
	if v.mount != nil {
		name = path.Join(v.mount.Destination, name)
	}
	return name, nil
}

// below computes the path of f below root from what the kernel says of both (proc(5), /proc/pid/fd).
func below(root, f *os.File) (string, error) {
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
	if err != nil {
		return "", err
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", err
	}
	rest := strings.TrimPrefix(name, strings.TrimSuffix(top, "/"))
	return path.Clean("/" + rest), nil
}

// fault gives errors about a path Docker's words and classes.
func (v *view) fault(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFound("Could not find the file %s in container %s", name, v.c.Name)
	case errors.Is(err, unix.ENOTDIR):
		return fault.Invalid("%s in container %s: not a directory", name, v.c.Name)
	case errors.Is(err, unix.ELOOP):
		return fault.Invalid("%s in container %s: too many levels of symbolic links", name, v.c.Name)
	}
	return fmt.Errorf("cannot open %s in container %s: %w", name, v.c.Name, err)
}
