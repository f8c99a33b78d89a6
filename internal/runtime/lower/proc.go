package lower

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
	InsideProc = "a mount point inside /proc"
	Exchanged  = "something else took the place of what was mounted there"
)

// MayCover tells of a mount point that may be inside a /proc.
func MayCover(st *plan.Step) bool {
	return faked[st.Path] || st.Path == "/proc" && st.Type == "proc"
}

// Trusted is the mount of the plan that a path lies in, if the plan mounts it, and the type of file system to be found there.
func Trusted(steps []plan.Step, path string) (top string, magic uint64) {
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

// StatfsType is the place of statfs's f_type, and the mask for 8 bytes there.
func StatfsType() (offset, mask uint64) {
	var fs unix.Statfs_t
	mask = ^uint64(0)
	if unsafe.Sizeof(fs.Type) == 4 {
		mask >>= 32
	}
	return uint64(unsafe.Offsetof(fs.Type)), mask
}
