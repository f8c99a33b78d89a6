package launch

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// openIn opens a path with root as "/": a symlink, absolute or with "..", stays inside, and /proc's links to open files are not followed.
func openIn(root int, path string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve}
	for range 64 { // EAGAIN: something was renamed meanwhile, and ".." was on the way
		fd, err := unix.Openat2(root, path, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// fdPath is a name of the very file that fd is open on.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// split cuts a cleaned absolute path that is not "/".
func split(path string) (dir, name string) {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			if i == 0 {
				return "/", path[1:]
			}
			return path[:i], path[i+1:]
		}
	}
	return "/", path
}

// ensureDir opens a directory in the root and makes what is missing of it.
func ensureDir(root int, path string) (int, error) { return ensure(root, path, true, 40) }

// ensureFile opens anything at that path and makes an empty file if nothing is there.
func ensureFile(root int, path string) (int, error) { return ensure(root, path, false, 40) }

func ensure(root int, path string, dir bool, depth int) (int, error) {
	if depth == 0 {
		return -1, unix.ELOOP
	}
	flags := uint64(unix.O_PATH)
	if dir {
		flags |= unix.O_DIRECTORY
	}
	fd, err := openIn(root, path, flags, 0)
	if err != unix.ENOENT || path == "/" {
		return fd, err
	}
	parentPath, name := split(path)
	parent, err := ensure(root, parentPath, true, depth-1)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if name == "." || name == ".." || name == "" {
		return -1, unix.EINVAL
	}
	if dir {
		err = unix.Mkdirat(parent, name, 0o755)
	} else {
		var made int
		made, err = unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err == nil {
			unix.Close(made)
		}
	}
	if err == unix.EEXIST {
		// A symlink that points to nothing: make what it points to.
		buf := make([]byte, unix.PathMax)
		n, lerr := unix.Readlinkat(parent, name, buf)
		if lerr != nil || n == 0 {
			return -1, err
		}
		target := string(buf[:n])
		if target[0] != '/' {
			target = parentPath + "/" + target
		}
		return ensure(root, clean(target), dir, depth-1)
	}
	if err != nil {
		return -1, err
	}
	how := unix.OpenHow{Flags: unix.O_CLOEXEC | unix.O_NOFOLLOW | flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	return unix.Openat2(parent, name, &how)
}

// clean is path.Clean for absolute paths, without its package.
func clean(path string) string {
	var parts []string
	for len(path) > 0 {
		i := 0
		for i < len(path) && path[i] != '/' {
			i++
		}
		switch part := path[:i]; part {
		case "", ".":
		case "..":
			if len(parts) > 0 {
				parts = parts[:len(parts)-1]
			}
		default:
			parts = append(parts, part)
		}
		if i == len(path) {
			break
		}
		path = path[i+1:]
	}
	out := ""
	for _, p := range parts {
		out += "/" + p
	}
	if out == "" {
		return "/"
	}
	return out
}
