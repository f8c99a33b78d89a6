package launch

import (
	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

func (s *stage) symlink(path, target string) error {
	dir, name := split(path)
	fd, err := ensureDir(s.root, dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Symlinkat(target, fd, name); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

func (s *stage) device(st *plan.Step) error {
	dir, name := split(st.Path)
	fd, err := ensureDir(s.root, dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	kind := uint32(unix.S_IFCHR)
	switch st.Type {
	case "b":
		kind = unix.S_IFBLK
	case "p":
		kind = unix.S_IFIFO
	}
	dev := unix.Mkdev(uint32(st.Num[0]), uint32(st.Num[1]))
	err = unix.Mknodat(fd, name, kind|uint32(st.Num[2]), int(dev))
	if err == unix.EEXIST {
		var have unix.Stat_t
		if err := unix.Fstatat(fd, name, &have, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if have.Mode&unix.S_IFMT != kind || (kind != unix.S_IFIFO && have.Rdev != dev) {
			return &failure{errno: unix.EEXIST, detail: "something else is there"}
		}
		return nil
	}
	if err != nil {
		return err
	}
	if st.Num[3]|st.Num[4] != 0 {
		return unix.Fchownat(fd, name, int(st.Num[3]), int(st.Num[4]), unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// devptsMagic is statfs's f_type of devpts (linux/magic.h).
const devptsMagic = 0x1cd1

// console opens a pty in the container's own devpts, so that its name means
// something inside, and makes it the controlling terminal and stdio.
func (s *stage) console(st *plan.Step) error {
	master, err := openIn(s.root, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return because(err, "/dev/pts/ptmx")
	}
	var stat unix.Stat_t
	var fs unix.Statfs_t
	if err := unix.Fstat(master, &stat); err != nil {
		return err
	}
	if err := unix.Fstatfs(master, &fs); err != nil {
		return err
	}
	if fs.Type != devptsMagic || stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != unix.Mkdev(5, 2) {
		return &failure{errno: unix.ENOTTY, detail: "/dev/pts/ptmx of the container is not a pty master"}
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return because(err, "unlock")
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return because(errno, "peer")
	}
	tty := int(slave)
	if st.Num[0]|st.Num[1] != 0 {
		if err := unix.IoctlSetWinsize(tty, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(st.Num[0]), Row: uint16(st.Num[1])}); err != nil {
			return because(err, "size")
		}
	}
	if err := unix.Fchown(tty, int(st.Num[2]), -1); err != nil {
		return because(err, "owner")
	}
	if st.Path != "" {
		if err := s.bindConsole(tty, st.Path); err != nil {
			return because(err, st.Path)
		}
	}
	for fd := range 3 {
		if err := unix.Dup3(tty, fd, 0); err != nil {
			return err
		}
	}
	unix.Close(tty)
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return because(err, "controlling terminal")
	}
	s.master = master
	return nil
}

func (s *stage) bindConsole(tty int, path string) error {
	made, err := ensureFile(s.root, path)
	if err != nil {
		return err
	}
	unix.Close(made)
	// A link of the image's would put the terminal on what it points to (CVE-2025-52565).
	target, err := openIn(s.root, path, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	tree, err := unix.OpenTree(tty, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", target, "", moveByFD)
}
