package launch

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/calls"
)

// image is a path that executes the interpreter; an error if this machine can't.
func newImage() (string, error) {
	if !calls.Supported {
		return "", unix.ENOSYS
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_MOUNT_SETATTR, ^uintptr(0), 0, 0, 0, 0, 0); errno == unix.ENOSYS {
		return "", errno // before Linux 5.12
	}
	fd, err := unix.MemfdCreate("tare-run-setup", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|mfdExec)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("tare-run-setup", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return "", err
	}
	if _, err = unix.Write(fd, calls.Image()); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err == nil {
		err = unix.Fchmod(fd, 0o500)
	}
	if err == nil {
		// Out of the way of syscall.ForkExec too, which uses the numbers after the largest that it is given.
		fd, err = from(fd, 200)
	}
	if err == nil {
		err = unix.Access("/proc/self/fd/"+strconv.Itoa(fd), unix.X_OK)
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), err
}

const mfdExec = 0x10 // MFD_EXEC, linux/memfd.h

// memory is a file in memory with these parts, each on a page of its own.
func memory(name string, parts ...[]byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	at := int64(0)
	for _, b := range parts {
		for off := 0; off < len(b); {
			n, err := unix.Pwrite(fd, b[off:], at+int64(off))
			if err != nil {
				unix.Close(fd)
				return -1, err
			}
			off += n
		}
		at = pages(at + int64(len(b)))
	}
	return fd, nil
}

func pages(n int64) int64 {
	size := int64(os.Getpagesize())
	return (n + size - 1) / size * size
}
