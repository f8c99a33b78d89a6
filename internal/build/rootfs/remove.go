package rootfs

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// parent opens the folder that a path is in, following no symlink at all.
func (r *Root) parent(name string) (fd int, base string, err error) {
	dir := strings.TrimPrefix(path.Dir(path.Join("/", name)), "/")
	if dir == "" {
		dir = "."
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	fd, err = unix.Openat2(r.fd, dir, &how)
	return fd, path.Base(name), err
}

// RemoveEmpty removes an empty folder or empty regular file and tells whether it did. Symlinks are not followed.
func (r *Root) RemoveEmpty(name string) bool {
	fd, base, err := r.parent(name)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.Unlinkat(fd, base, unix.AT_REMOVEDIR) == nil
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0:
		return unix.Unlinkat(fd, base, 0) == nil
	}
	return false
}

// SameAttributes tells whether a folder has the mode and owner here that it has in the other tree, and does not
// hide what is below it there.
func (r *Root) SameAttributes(other *Root, name string) bool {
	fd, base, err := r.parent(name)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	d, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(d)
	var here unix.Stat_t
	if unix.Fstat(d, &here) != nil {
		return false
	}
	var value [8]byte
	if n, err := unix.Fgetxattr(d, "trusted.overlay.opaque", value[:]); err == nil && n > 0 && value[0] == 'y' {
		return false
	}
	o, err := other.OpenAt(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer unix.Close(o)
	var there unix.Stat_t
	return unix.Fstat(o, &there) == nil && here.Mode == there.Mode && here.Uid == there.Uid && here.Gid == there.Gid
}
