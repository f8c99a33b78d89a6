package launch

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// Everything here concerns the calling thread only: raw system calls, not Go's
// wrappers that change all threads of the process.

func rlimit(st *plan.Step) error {
	want := unix.Rlimit{Cur: st.Num[1], Max: st.Num[2]}
	resource := int(st.Num[0])
	// Setrlimit, not prlimit by number: the syscall package must learn that its own change of RLIMIT_NOFILE is not to be undone at exec.
	err := unix.Setrlimit(resource, &want)
	if err != unix.EPERM || st.Flags == 0 {
		return err
	}
	var have unix.Rlimit
	if err := unix.Getrlimit(resource, &have); err != nil {
		return err
	}
	want.Max = min(want.Max, have.Max)
	want.Cur = min(want.Cur, want.Max)
	return unix.Setrlimit(resource, &want)
}

// stdioOwner lets the program open /dev/stdout and its like anew. What can't change its owner stays as it is.
func stdioOwner(uid int) error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			if err == unix.EBADF {
				continue
			}
			return err
		}
		if int(st.Uid) == uid || isNull(&st) {
			continue
		}
		switch kind := st.Mode & unix.S_IFMT; kind {
		case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFSOCK:
		default:
			continue // a regular file of the caller's stays his
		}
		switch err := unix.Fchown(fd, uid, -1); err {
		case nil, unix.EINVAL, unix.EPERM, unix.EROFS:
		default:
			return err
		}
	}
	return nil
}

func bounding(keep uint64) error {
	for c := range uintptr(64) {
		have, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c, 0)
		if errno != 0 {
			return nil // past the last one that this kernel knows
		}
		if have == 0 || keep&(1<<c) != 0 {
			continue
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); errno != 0 {
			return errno
		}
	}
	return nil
}

// user changes the ids and keeps the permitted capabilities over that; OpCapabilities sets them right.
func user(ids []uint64) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	groups := make([]uint32, 0, len(ids))
	for _, g := range ids[2:] {
		groups = append(groups, uint32(g))
	}
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return because(errno, "setgroups")
	}
	uid, gid := uintptr(ids[0]), uintptr(ids[1])
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return because(errno, "setgid")
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return because(errno, "setuid")
	}
	// Changing the uid may have set it to what fs.suid_dumpable says.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	return nil
}

// capabilities sets the four sets, without what this process does not have itself.
func capabilities(want []uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	have := uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
	var bound uint64
	for c := range uintptr(64) {
		set, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c, 0)
		if errno != 0 {
			break
		}
		bound |= uint64(set) << c
	}
	permitted := want[1] & have
	effective := want[0] & permitted
	inheritable := want[2] & have & bound
	for i := range data {
		shift := 32 * i
		data[i] = unix.CapUserData{Effective: uint32(effective >> shift), Permitted: uint32(permitted >> shift), Inheritable: uint32(inheritable >> shift)}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return because(err, "capset")
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return because(err, "ambient")
	}
	for c := range uintptr(64) {
		if want[3]&permitted&inheritable&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return because(err, "ambient")
		}
	}
	return nil
}

// installFilter installs the filter. One with a listener tells first which descriptor that will be, for no
// system call is sure to work afterwards until the listener's owner has it; then it waits until that is so.
func installFilter(sync int, st *plan.Step) error {
	code := []byte(st.Data)
	prog := unix.SockFprog{Len: uint16(len(code) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	listens := st.Flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
	if listens {
		fd, err := unix.FcntlInt(uintptr(sync), unix.F_DUPFD_CLOEXEC, 0) // the lowest that is free
		if err != nil {
			return because(err, "listener")
		}
		unix.Close(fd)
		if err := report(sync, saysNotify, uint32(fd)); err != nil {
			return because(err, "listener")
		}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(st.Flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	if listens && hearWord(sync) != hearsOn {
		unix.Exit(1)
	}
	return nil
}
