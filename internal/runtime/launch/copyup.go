package launch

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// tmpfs mounts one that has the mode of what it hides.
func tmpfs(s *stage, st *plan.Step) error {
	var have unix.Stat_t
	fd, err := openIn(s.root, st.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return s.mount(st)
	}
	err = unix.Fstat(fd, &have)
	unix.Close(fd)
	if err != nil {
		return because(err, "mount point")
	}
	with := *st
	if with.Data != "" {
		with.Data += ","
	}
	with.Data += "mode=" + strconv.FormatUint(uint64(have.Mode&0o7777), 8)
	return s.mount(&with)
}

// copyUp mounts a tmpfs that starts with a copy of the directory that it covers. It is filled before
// it is attached: nobody sees it half full, and its read-only option comes last.
func copyUp(root int, st *plan.Step) error {
	target, err := ensureDir(root, st.Path)
	if err != nil {
		return because(err, "mount point")
	}
	defer unix.Close(target)
	if err := outsideProc(target, st); err != nil {
		return err
	}
	source, err := openIn(root, st.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return because(err, "mount point")
	}
	defer unix.Close(source)
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return because(err, "fsopen")
	}
	defer unix.Close(fs)
	var stat unix.Stat_t
	if err := unix.Fstat(source, &stat); err != nil {
		return err
	}
	mode := false
	for word := range strings.SplitSeq(st.Data, ",") {
		if word == "" {
			continue
		}
		key, value, has := strings.Cut(word, "=")
		mode = mode || key == "mode"
		if has {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return because(err, kernelSays(fs, word))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return because(err, kernelSays(fs, "tmpfs"))
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return because(err, "fsmount")
	}
	defer unix.Close(tree)
	top, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = copyDir(source, top)
	if err == nil && !mode {
		if err = unix.Fchown(top, int(stat.Uid), int(stat.Gid)); err == nil {
			err = unix.Fchmod(top, stat.Mode&0o7777)
		}
	}
	unix.Close(top)
	if err != nil {
		return because(err, "copying")
	}
	if set := attributes(st.Flags); set != 0 {
		attr := unix.MountAttr{Attr_set: set}
		if set&unix.MOUNT_ATTR__ATIME != 0 {
			attr.Attr_clr = unix.MOUNT_ATTR__ATIME
		}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return because(err, "attributes")
		}
	}
	if err := unix.MoveMount(tree, "", target, "", moveByFD); err != nil {
		return err
	}
	return afterMount(tree, st)
}

// attributes are mount(2)'s flags in mount_setattr(2)'s words.
func attributes(flags uint64) (set uint64) {
	for _, a := range [...][2]uint64{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY}, {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID}, {unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC}, {unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME}, {unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME},
		{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME}, {unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	} {
		if flags&a[0] != 0 {
			set |= a[1]
		}
	}
	return set
}

// copyDir copies what is in from, an open directory, into to. Links are copied, never followed.
func copyDir(from, to int) error {
	names, err := entries(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(from, to, name); err != nil {
			return because(err, name)
		}
	}
	return nil
}

// entries reads a directory's names.
func entries(dir int) (names []string, err error) {
	if _, err := unix.Seek(dir, 0, 0); err != nil {
		return nil, err
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(dir, buf)
		if err != nil || n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func copyEntry(from, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	fd := -1 // the copy, where it can be open
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err = unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		var src int
		if src, err = unix.Openat(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(src)
		if fd, err = unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
		if err = copyDir(src, fd); err != nil {
			return err
		}
		copyAttributes(src, fd)
	case unix.S_IFREG:
		var src int
		if src, err = unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(src)
		if fd, err = unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600); err != nil {
			return err
		}
		defer unix.Close(fd)
		if err = copyBytes(src, fd); err != nil {
			return err
		}
		copyAttributes(src, fd)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(from, name, buf); err != nil {
			return err
		}
		err = unix.Symlinkat(string(buf[:n]), to, name)
	default:
		err = unix.Mknodat(to, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyBytes(from, to int) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(from, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for b := buf[:n]; len(b) > 0; {
			m, err := unix.Write(to, b)
			if err != nil {
				return err
			}
			b = b[m:]
		}
	}
}

// copyAttributes copies what a tmpfs can hold of the extended attributes.
func copyAttributes(from, to int) {
	size, err := unix.Flistxattr(from, nil)
	if err != nil || size == 0 {
		return
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(from, list); err != nil {
		return
	}
	for name := range strings.SplitSeq(string(list[:size]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Fgetxattr(from, name, value); err == nil {
			_ = unix.Fsetxattr(to, name, value[:n], 0)
		}
	}
}
