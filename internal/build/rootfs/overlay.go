package rootfs

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// attributes of the detached mount: nothing in it is executed by us.
const attributes = unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC

// forceOld makes tests take the way of kernels before 6.8.
var forceOld = false

// overlay mounts layers, topmost first, and returns a descriptor of the root.
func overlay(lower []string, upper, work string) (int, error) {
	if !forceOld {
		fd, err := overlayNew(lower, upper, work)
		if err != unix.EINVAL && err != unix.ENOSYS {
			return fd, err
		}
	}
	return overlayOld(lower, upper, work)
}

// opened is folders as descriptors, whose paths are short however deep the data root is.
type opened []int

func (o *opened) open(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	*o = append(*o, fd)
	return "/proc/thread-self/fd/" + strconv.Itoa(fd), nil
}

func (o *opened) close() {
	for _, fd := range *o {
		unix.Close(fd)
	}
}

// overlayNew uses the new mount API; lowerdir+ came with Linux 6.8.
func overlayNew(lower []string, upper, work string) (int, error) {
	c, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(c)
	var dirs opened
	defer dirs.close()
	for _, l := range lower {
		if l, err = dirs.open(l); err != nil {
			return -1, err
		}
		if err := unix.FsconfigSetString(c, "lowerdir+", l); err != nil {
			return -1, err
		}
	}
	if upper != "" {
		for _, o := range [][2]string{{"upperdir", upper}, {"workdir", work}} {
			dir, err := dirs.open(o[1])
			if err != nil {
				return -1, err
			}
			if err := unix.FsconfigSetString(c, o[0], dir); err != nil {
				return -1, err
			}
		}
		if err := unix.FsconfigSetFlag(c, "volatile"); err != nil {
			return -1, err
		}
	}
	for _, o := range []string{"redirect_dir", "metacopy"} {
		if err := unix.FsconfigSetString(c, o, "off"); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(c); err != nil {
		return -1, err
	}
	return unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, attributes)
}

// overlayOld mounts in a mount namespace of a thread's own, opens the root and lets the mount go: the descriptor keeps it.
func overlayOld(lower []string, upper, work string) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := func() (int, error) {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return -1, err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return -1, err
			}
			// Opened only now: an overlay takes layers of its own namespace's mounts alone.
			var dirs opened
			defer dirs.close()
			options := "redirect_dir=off,metacopy=off"
			if upper != "" {
				u, err := dirs.open(upper)
				if err != nil {
					return -1, err
				}
				w, err := dirs.open(work)
				if err != nil {
					return -1, err
				}
				options += ",volatile,upperdir=" + u + ",workdir=" + w
			}
			for i, l := range lower {
				l, err := dirs.open(l)
				if err != nil {
					return -1, err
				}
				options += []string{",lowerdir=", ":"}[min(i, 1)] + l
			}
			if len(options) >= os.Getpagesize() {
				return -1, fmt.Errorf("%d layers are too many for this kernel", len(lower))
			}
			const at = "/proc" // any folder that is always there
			if err := unix.Mount("overlay", at, "overlay", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
				return -1, err
			}
			fd, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			unix.Unmount(at, unix.MNT_DETACH)
			return fd, err
		}()
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}
