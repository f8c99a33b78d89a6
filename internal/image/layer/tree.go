package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// A tree hands out file descriptors of the folders below a root. It never
// resolves more than one name at a time, and never a symlink in the kernel, so
// there is no way out: a symlink is read and walked here, "/" being the root.
//
// Folders stay open, because a tar mostly goes on where it was. A tree is for one goroutine.
type tree struct {
	root    *folder
	layer   bool                // a layer in the making: folders take the place of whiteouts, a symlink that climbs above the root is an error
	open    map[string]*folder  // by the path that was asked for
	implied map[string]struct{} // folders made on the way, by real path
	named   int                 // bytes of all paths that were ever in implied
}

// folder is an open folder of a tree.
type folder struct {
	fd   int
	real string // path from the root without symlinks, "" for the root
}

const (
	maxOpen  = 128 // folders kept open
	maxLinks = 40  // symlinks in one path, as in the kernel
)

func newTree(root *os.File, layer bool) (*tree, error) {
	fd, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "dup", Path: root.Name(), Err: err}
	}
	return &tree{
		root:    &folder{fd: fd},
		layer:   layer,
		open:    map[string]*folder{},
		implied: map[string]struct{}{},
	}, nil
}

func (t *tree) close() {
	t.forget()
	unix.Close(t.root.fd)
}

// forget closes all folders but the root: one of them may no longer be where its path says.
func (t *tree) forget() {
	for p, f := range t.open {
		if p == f.real { // other keys are symlinks to it
			unix.Close(f.fd)
		}
	}
	clear(t.open)
}

// folder opens a folder by its clean path ("" is the root). With create, missing folders are made and noted as implied.
// The result is good until the next call.
func (t *tree) folder(p string, create bool) (*folder, error) {
	if p == "" {
		return t.root, nil
	}
	if f, ok := t.open[p]; ok {
		return f, nil
	}
	if len(t.open) > maxOpen {
		t.forget()
	}
	links := 0
	return t.walk(p, create, &links)
}

func (t *tree) walk(p string, create bool, links *int) (*folder, error) {
	if p == "" {
		return t.root, nil
	}
	if f, ok := t.open[p]; ok {
		return f, nil
	}
	dir, name := split(p)
	parent, err := t.walk(dir, create, links)
	if err != nil {
		return nil, err
	}
	f, err := t.child(parent, name, create, links)
	if err != nil {
		return nil, err
	}
	t.open[p] = f
	return f, nil
}

// split cuts the last name off a clean relative path.
func split(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// child opens one name in a folder. The caller registers the result, unless it was open already.
func (t *tree) child(parent *folder, name string, create bool, links *int) (*folder, error) {
	real := path.Join(parent.real, name)
	if f, ok := t.open[real]; ok && f.real == real {
		return f, nil
	}
	fd, err := openDir(parent.fd, name)
	if err == nil {
		return t.keep(&folder{fd: fd, real: real}), nil
	}
	switch {
	case errors.Is(err, unix.ENOENT) && create:
		if err := t.mkdir(parent, name, 0o755); err != nil {
			return nil, err
		}
		t.implied[real] = struct{}{}
		if t.named += len(real) + 64; t.named > maxFolders {
			return nil, fault.Invalid("the tar implies too many folders: their names take more than %d bytes", maxFolders)
		}
	case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		var st unix.Stat_t
		if err := unix.Fstatat(parent.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			return t.follow(parent, name, links)
		case isWhiteout(&st) && create && t.layer:
			// The layer removes what is below and puts a folder there.
			if err := unix.Unlinkat(parent.fd, name, 0); err != nil {
				return nil, err
			}
			if err := t.mkdir(parent, name, 0o755); err != nil {
				return nil, err
			}
			if err := setOpaque(parent.fd, name); err != nil {
				return nil, err
			}
			t.implied[real] = struct{}{}
		default:
			return nil, fault.Invalid("%q is not a directory", real)
		}
	default:
		return nil, err
	}
	fd, err = openDir(parent.fd, name)
	if err != nil {
		return nil, err
	}
	return t.keep(&folder{fd: fd, real: real}), nil
}

func (t *tree) keep(f *folder) *folder {
	t.open[f.real] = f
	return f
}

// mkdir makes a folder of root's with exactly these permissions.
func (t *tree) mkdir(parent *folder, name string, perm uint32) error {
	if err := unix.Mkdirat(parent.fd, name, perm); err != nil {
		return err
	}
	fd, err := openDir(parent.fd, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, 0, 0); err != nil {
		return err
	}
	return unix.Fchmod(fd, perm)
}

// follow walks a symlink's target, from the folder that holds it or from the root. Nothing is made on the way.
func (t *tree) follow(parent *folder, name string, links *int) (*folder, error) {
	link := path.Join(parent.real, name)
	if *links++; *links > maxLinks {
		return nil, fault.Invalid("too many symlinks at %q", link)
	}
	target, err := readlink(parent.fd, name)
	if err != nil {
		return nil, err
	}
	at := parent
	if strings.HasPrefix(target, "/") {
		at = t.root
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if at.real == "" {
				if t.layer {
					return nil, fault.Invalid("symlink %q -> %q leads out of the root", link, target)
				}
				continue
			}
			up, _ := split(at.real)
			if at, err = t.walk(up, false, links); err != nil {
				return nil, err
			}
		default:
			next, err := t.child(at, part, false, links)
			if errors.Is(err, unix.ENOENT) {
				return nil, fault.Invalid("symlink %q -> %q leads to nothing inside the root", link, target)
			}
			if err != nil {
				return nil, err
			}
			at = next
		}
	}
	return at, nil
}

// remove deletes a name with everything below it. A missing one is no error.
func (t *tree) remove(parent *folder, name string) error {
	err := unix.Unlinkat(parent.fd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		t.dropLink(path.Join(parent.real, name)) // a symlink that paths were walked through
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	real := path.Join(parent.real, name)
	for p := range t.implied {
		if p == real || strings.HasPrefix(p, real+"/") {
			delete(t.implied, p)
		}
	}
	if err := removeTree(parent.fd, name); err != nil {
		return err
	}
	t.dropLink(real)
	return nil
}

// dropLink forgets what was reached through a name that changed. Only folders below it are closed: one that was
// reached through it as a symlink lies elsewhere, and may be in use.
func (t *tree) dropLink(real string) {
	for p, f := range t.open {
		switch {
		case under(f.real, real):
			delete(t.open, p)
			if p == f.real {
				unix.Close(f.fd)
			}
		case under(p, real):
			delete(t.open, p)
		}
	}
}

func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// removeTree removes a folder's content through descriptors, then the folder.
func removeTree(parent int, name string) error {
	fd, err := openDir(parent, name)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), name)
	names, err := d.Readdirnames(-1)
	for _, n := range names {
		if err != nil {
			break
		}
		err = unix.Unlinkat(fd, n, 0)
		switch {
		case errors.Is(err, unix.ENOENT):
			err = nil
		case errors.Is(err, unix.EISDIR):
			err = removeTree(fd, n)
		}
	}
	d.Close()
	if err != nil {
		return err
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

func openDir(parent int, name string) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

func readlink(parent int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

const opaqueXattr = "trusted.overlay.opaque"

func setOpaque(parent int, name string) error {
	return unix.Lsetxattr(fdPath(parent, name), opaqueXattr, []byte("y"), 0)
}

// fdPath names an entry of an open folder for system calls that take only paths. The kernel takes the
// folder from the descriptor; with the l… calls, a symlink in the last place is not followed.
func fdPath(parent int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", parent, name) }

// futimens sets the times of an open file or folder (futimens(3)).
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
