package launch

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/lower"
	"tare/internal/runtime/plan"
)

const sourceMissing = lower.SourceMissing

const moveByFD = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH

// bindRoot makes a mount of a directory on itself, which pivot_root wants.
func (s *stage) bindRoot(path string) error {
	return s.setRoot(path, path, unix.AT_RECURSIVE)
}

func (s *stage) setRoot(source, path string, flags uint) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return err
	}
	return s.placeRoot(tree, path)
}

// placeRoot attaches a detached tree; its descriptor is the root from here on.
func (s *stage) placeRoot(tree int, path string) error {
	if err := unshareParent(path); err != nil {
		return because(err, "making the mount below private")
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return because(err, "attaching")
	}
	s.root = tree
	return nil
}

// unshareParent makes the mount that holds path private: pivot_root refuses a shared one. Only
// the root of a mount can be changed, so it looks upwards for that.
func unshareParent(path string) error {
	for {
		err := unix.Mount("", path, "", unix.MS_PRIVATE, "")
		if err != unix.EINVAL || path == "/" {
			return err
		}
		path, _ = split(path)
	}
}

func (s *stage) mount(st *plan.Step) error {
	var target int
	var err error
	switch st.Type {
	case "proc", "sysfs":
		// These are trusted by what comes later; a symlink could put them elsewhere.
		if target, err = ensureDir(s.root, st.Path); err == nil {
			unix.Close(target)
			target, err = openIn(s.root, st.Path, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		}
	default:
		target, err = ensureDir(s.root, st.Path)
	}
	if err != nil {
		return because(err, "mount point")
	}
	if err = outsideProc(target, st); err == nil {
		err = unix.Mount(st.Source, fdPath(target), st.Type, uintptr(st.Flags), st.Data)
	}
	unix.Close(target)
	if err != nil || st.Prop|st.RecSet|st.RecClear == 0 {
		return err
	}
	top, err := openIn(s.root, st.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return because(err, "mount point")
	}
	defer unix.Close(top)
	return afterMount(top, st)
}

// afterMount gives the mount at top what mount(2) does not take.
func afterMount(top int, st *plan.Step) error {
	if st.RecSet|st.RecClear != 0 {
		if err := unix.MountSetattr(top, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: st.RecSet, Attr_clr: st.RecClear}); err != nil {
			return because(err, "attributes")
		}
	}
	if st.Prop == 0 {
		return nil
	}
	return because(propagate(top, st.Prop), "propagation")
}

// remount changes a mount that is there.
func remount(root int, st *plan.Step) error {
	fd, err := openIn(root, st.Path, unix.O_PATH, 0)
	if err != nil {
		return because(err, "mount point")
	}
	defer unix.Close(fd)
	if st.Type != "" {
		err = unix.Mount("", fdPath(fd), "", uintptr(st.Flags), st.Data)
	} else if st.Set|st.Clear != 0 {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: st.Set, Attr_clr: st.Clear})
	}
	if err != nil {
		return err
	}
	return afterMount(fd, st)
}

// hostDevice binds the host's node on one that it makes, an empty file.
func hostDevice(root int, st *plan.Step) error {
	defer unix.Close(int(st.FD))
	target, err := ensureFile(root, st.Path)
	if err != nil {
		return because(err, "mount point")
	}
	defer unix.Close(target)
	if err := outsideProc(target, st); err != nil {
		return err
	}
	return unix.MoveMount(int(st.FD), "", target, "", moveByFD)
}

func propagate(fd int, prop uint64) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if prop&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &unix.MountAttr{Propagation: prop &^ unix.MS_REC})
}

// openSource copies the mount of a bind's source. What is below it may have been written by containers, so no link there leads out of it.
func openSource(st *plan.Step, flags uint) (int, error) {
	if st.Data == "" {
		return unix.OpenTree(unix.AT_FDCWD, st.Source, flags)
	}
	top, err := unix.Open(st.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(top)
	below, err := openIn(top, st.Data, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(below)
	return unix.OpenTree(below, "", flags|unix.AT_EMPTY_PATH)
}

func (s *stage) bind(st *plan.Step) error {
	tree, err := int(st.FD), error(nil) // what the parent made ready
	if tree == 0 {
		tree, err = openTree(st)
	}
	if err != nil {
		if err == unix.ENOENT {
			return &failure{errno: unix.ENOENT, detail: sourceMissing}
		}
		return because(err, "source")
	}
	defer unix.Close(tree)
	var stat unix.Stat_t
	if err := unix.Fstat(tree, &stat); err != nil {
		return because(err, "source")
	}
	open := ensureFile
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		open = ensureDir
	}
	target, err := open(s.root, st.Path)
	if err != nil {
		return because(err, "mount point")
	}
	defer unix.Close(target)
	if err := outsideProc(target, st); err != nil {
		return err
	}
	if st.RecSet|st.RecClear != 0 {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: st.RecSet, Attr_clr: st.RecClear}); err != nil {
			return because(err, "attributes")
		}
	}
	if st.Set|st.Clear != 0 {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: st.Set, Attr_clr: st.Clear}); err != nil {
			return because(err, "attributes")
		}
	}
	if err := unix.MoveMount(tree, "", target, "", moveByFD); err != nil {
		return err
	}
	if st.Prop != 0 {
		return because(propagate(tree, st.Prop), "propagation")
	}
	return nil
}

// mask hides a path: a file behind the container's own /dev/null, a directory behind an empty one.
// The host's /dev/null won't do: its mode and owner could be changed through the mount.
func (s *stage) mask(path string) error {
	fd, err := s.openMasked(path)
	if err != nil {
		return ignoreMissing(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.Mount("tmpfs", fdPath(fd), "tmpfs", unix.MS_RDONLY, "")
	}
	null, err := openIn(s.root, "/dev/null", unix.O_PATH, 0)
	if err != nil {
		return because(err, "/dev/null")
	}
	defer unix.Close(null)
	if err := unix.Fstat(null, &st); err != nil {
		return because(err, "/dev/null")
	}
	if !isNull(&st) {
		return &failure{errno: unix.ENODEV, detail: "/dev/null of the container is something else"}
	}
	return unix.Mount(fdPath(null), fdPath(fd), "", unix.MS_BIND, "")
}

func ignoreMissing(err error) error {
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	return err
}

func (s *stage) readonly(path string) error {
	fd, err := s.openMasked(path)
	if err != nil {
		return ignoreMissing(err)
	}
	defer unix.Close(fd)
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", fd, "", moveByFD)
}

func setAttr(root int, st *plan.Step) error {
	fd := root
	if st.Path != "/" {
		var err error
		if fd, err = openIn(root, st.Path, unix.O_PATH, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: st.Set, Attr_clr: st.Clear})
}

// pivot makes the root "/" and lets go of the host's files.
func (s *stage) pivot() error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := unix.Fchdir(s.root); err != nil {
		return err
	}
	// The old root lands on top of the new one (pivot_root(2), "pivot_root(".", ".")").
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	// Unmounting must not reach the host where its mounts were kept shared.
	if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// moveRoot is pivot for a host whose root can't be pivoted away, a ramdisk: the new root goes on
// top of it. What the host has mounted elsewhere is unmounted, so that no way leads to it.
func moveRoot(root int) error {
	keep, err := os.Readlink(fdPath(root))
	if err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var others []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 {
			at := unescape(f[4])
			if at != "/" && at != keep && !strings.HasPrefix(at, keep+"/") && !strings.HasPrefix(keep, at+"/") {
				others = append(others, at)
			}
		}
	}
	for i := len(others) - 1; i >= 0; i-- {
		// What is below one that is gone is gone too.
		if err := unix.Unmount(others[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return because(err, others[i])
		}
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// unescape undoes mountinfo's octal form of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
