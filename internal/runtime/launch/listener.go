package launch

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// listenerLimit is how long a child may take between telling its listener's number and having it.
const listenerLimit = 10 * time.Second

// Listener takes the seccomp listener out of a child that announced it with Notify. The child can't send
// it: its filter may hold any system call until somebody listens.
func Listener(pidfd, fd int) (*os.File, error) {
	deadline := time.Now().Add(listenerLimit)
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		n, err := unix.PidfdGetfd(pidfd, fd, 0)
		switch {
		case err == nil:
			unix.CloseOnExec(n)
			name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(n))
			if err != nil || name != "anon_inode:seccomp notify" {
				unix.Close(n)
				return nil, fault.Internal("descriptor %d of the container is no seccomp listener but %s", fd, name)
			}
			return os.NewFile(uintptr(n), "seccomp"), nil
		case err != unix.EBADF || time.Now().After(deadline):
			return nil, fault.Internal("cannot take the seccomp listener: %w", err)
		}
		time.Sleep(pause)
	}
}
