package launch

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// devNull is /dev/null of the host, checked to be it.
var devNull = sync.OnceValues(func() (int, error) {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || !isNull(&st) {
		unix.Close(fd)
		return -1, unix.ENODEV
	}
	return high(fd)
})

func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// high moves a descriptor out of the way of those that a child gets.
func high(fd int) (int, error) { return from(fd, 64) }

func from(fd, first int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, first)
	unix.Close(fd)
	return n, err
}

// stageProgram is a path that executes this program from a file that nobody can write to, and that file.
func stageProgram() (string, int, error) {
	fd, err := stageFile()
	return "/proc/self/fd/" + strconv.Itoa(fd), fd, err
}

var stageFile = sync.OnceValues(func() (int, error) {
	fd, err := readOnlyMount("/proc/self/exe")
	if err != nil {
		if fd, err = sealedCopy("/proc/self/exe"); err != nil {
			return -1, err
		}
	}
	return high(fd)
})

// readOnlyMount is a bind mount of the file that is attached nowhere, so there is no path
// at which it could be made writable. It shares the page cache with the file: it costs nothing.
func readOnlyMount(file string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, file, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// sealedCopy is for kernels before 5.12.
func sealedCopy(file string) (int, error) {
	in, err := os.Open(file)
	if err != nil {
		return -1, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate(stageName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	for left := info.Size(); left > 0 && err == nil; {
		var n int
		n, err = unix.Sendfile(fd, int(in.Fd()), nil, int(left))
		left -= int64(n)
		if n == 0 && err == nil {
			err = unix.EIO
		}
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
