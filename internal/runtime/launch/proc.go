package launch

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// Two things keep /proc and /sys what the container's masks and read-only paths believe that they are, whatever the image looks like
// and whoever else writes to it:
//
//   - Nothing is mounted inside a /proc, but for a few files with numbers in them, as programs like lxcfs do
//     (CVE-2025-52881: what is written there must not be redirected).
//   - Masks are looked up from a directory that is known to be the right file system, and was not reached through a link: the name may
//     have been exchanged since it was mounted (CVE-2025-31133).

// faked are the files of /proc that may be mounted over.
var faked = map[string]bool{
	"/proc/cpuinfo": true, "/proc/diskstats": true, "/proc/meminfo": true, "/proc/stat": true, "/proc/swaps": true, "/proc/uptime": true,
	"/proc/loadavg": true, "/proc/slabinfo": true, "/proc/net/dev": true, "/proc/sys/kernel/ns_last_pid": true, "/proc/sys/crypto/fips_enabled": true,
}

const (
	insideProc = "a mount point inside /proc"
	exchanged  = "something else took the place of what was mounted there"
)

// mayCover tells of a mount point that may be inside a /proc.
func mayCover(st *plan.Step) bool {
	return faked[st.Path] || st.Path == "/proc" && st.Type == "proc"
}

func outsideProc(target int, st *plan.Step) error {
	if mayCover(st) {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(target, &fs); err != nil {
		return because(err, "mount point")
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return &failure{errno: unix.EINVAL, detail: insideProc}
	}
	return nil
}

// trusted is the mount of the plan that a path lies in, if the plan mounts it, and the type of file system to be found there.
func trusted(steps []plan.Step, path string) (top string, magic uint64) {
	for _, t := range [...]struct {
		top, kind string
		magic     uint64
	}{{"/proc", "proc", unix.PROC_SUPER_MAGIC}, {"/sys", "sysfs", unix.SYSFS_MAGIC}} {
		if !strings.HasPrefix(path, t.top+"/") {
			continue
		}
		for i := range steps {
			if st := &steps[i]; st.Op == plan.OpMount && st.Type == t.kind && st.Path == t.top {
				return t.top, t.magic
			}
		}
	}
	return "", 0
}

// openMasked opens a path that is to be hidden or made read-only; ENOENT and ENOTDIR say that it is not there.
func (s *stage) openMasked(path string) (int, error) {
	top, magic := trusted(s.steps, path)
	if top == "" {
		return openIn(s.root, path, unix.O_PATH, 0)
	}
	dir, err := openIn(s.root, top, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, because(err, exchanged)
	}
	defer unix.Close(dir)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return -1, because(err, exchanged)
	}
	if uint64(fs.Type) != magic {
		return -1, &failure{errno: unix.EXDEV, detail: exchanged}
	}
	return openIn(dir, path[len(top):], unix.O_PATH, 0)
}

// statfsType is the place of statfs's f_type, and the mask for 8 bytes there.
func statfsType() (offset, mask uint64) {
	var fs unix.Statfs_t
	mask = ^uint64(0)
	if unsafe.Sizeof(fs.Type) == 4 {
		mask >>= 32
	}
	return uint64(unsafe.Offsetof(fs.Type)), mask
}
