package launch

import (
	"golang.org/x/sys/unix"

	"tare/internal/runtime/lower"
	"tare/internal/runtime/plan"
)

// Two things keep /proc and /sys what the container's masks and read-only paths believe that they are, whatever the image looks like
// and whoever else writes to it:
//
//   - Nothing is mounted inside a /proc, but for a few files with numbers in them, as programs like lxcfs do
//     (CVE-2025-52881: what is written there must not be redirected).
//   - Masks are looked up from a directory that is known to be the right file system, and was not reached through a link: the name may
//     have been exchanged since it was mounted (CVE-2025-31133).
// What both executors need for it is in package lower.

func outsideProc(target int, st *plan.Step) error {
	if lower.MayCover(st) {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(target, &fs); err != nil {
		return because(err, "mount point")
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return &failure{errno: unix.EINVAL, detail: lower.InsideProc}
	}
	return nil
}

// openMasked opens a path that is to be hidden or made read-only; ENOENT and ENOTDIR say that it is not there.
func (s *stage) openMasked(path string) (int, error) {
	top, magic := lower.Trusted(s.steps, path)
	if top == "" {
		return openIn(s.root, path, unix.O_PATH, 0)
	}
	dir, err := openIn(s.root, top, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, because(err, lower.Exchanged)
	}
	defer unix.Close(dir)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return -1, because(err, lower.Exchanged)
	}
	if uint64(fs.Type) != magic {
		return -1, &failure{errno: unix.EXDEV, detail: lower.Exchanged}
	}
	return openIn(dir, path[len(top):], unix.O_PATH, 0)
}
