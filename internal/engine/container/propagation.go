package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/engine/spec"
)

// checkPropagation refuses a mount that asks for a propagation which the host's mount below it does not have, and which
// therefore would be silently without effect: shared wants a shared mount, slave a shared or a slave one.
func checkPropagation(m spec.Mount) error {
	var wanted []string
	switch m.Propagation {
	case mount.PropagationShared, mount.PropagationRShared:
		wanted = []string{"shared:"}
	case mount.PropagationSlave, mount.PropagationRSlave:
		wanted = []string{"shared:", "master:"}
	default:
		return nil
	}
	at, fields, err := mountOf(m.Source)
	if err != nil {
		return fmt.Errorf("cannot find the mount that %s is on: %w", m.Source, err)
	}
	for _, f := range fields {
		for _, w := range wanted {
			if strings.HasPrefix(f, w) {
				return nil
			}
		}
	}
	if len(wanted) == 1 {
		return fault.Invalid("path %s is mounted on %s but it is not a shared mount", m.Source, at)
	}
	return fault.Invalid("path %s is mounted on %s but it is not a shared or slave mount", m.Source, at)
}

// mountOf is the mount point that path lies on, with the optional fields of its line in mountinfo (proc_pid_mountinfo(5)).
func mountOf(path string) (at string, fields []string, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return "", nil, err
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", nil, err
	}
	id := strconv.FormatUint(st.Mnt_id, 10)
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) < 7 || f[0] != id {
			continue
		}
		for i, word := range f[6:] {
			if word == "-" {
				return f[4], f[6 : 6+i], nil
			}
		}
	}
	return "", nil, fmt.Errorf("mount %s is not in /proc/self/mountinfo", id)
}
