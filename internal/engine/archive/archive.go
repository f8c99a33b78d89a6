// Package archive moves files in and out of containers: cp, export, diff.
//
//	view     the container's root as a file descriptor, with volumes and binds in their places
//	resolve  a path of the container to a folder that is in no link's way, and the last name in it
//
// A running container is looked at through /proc/<pid>/root. A stopped container's overlay is mounted detached
// (fsmount(2)), attached to no namespace, and its volumes and binds are moved into it (since Linux 6.15; before, a
// path that begins with a mount's destination is looked up in the mount's source). Paths are resolved by
// openat2(RESOLVE_IN_ROOT), so nothing in the container leads out.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/engine/rootfs"
	"tare/internal/image/compress"
	"tare/internal/image/layer"
)

// Stat describes a path (HEAD /containers/{id}/archive). A symbolic link in the last place is not followed, unless the path
// ends with a slash or "/.".
func Stat(ctx context.Context, c *enginecontainer.Files, name string) (container.PathStat, error) {
	v, err := openView(c, name)
	if err != nil {
		return container.PathStat{}, err
	}
	defer v.close()
	e, err := v.resolve(name)
	if err != nil {
		return container.PathStat{}, err
	}
	defer e.close()
	return v.stat(e)
}

// Get streams a path as a tar (GET /containers/{id}/archive): one entry named as the path's last element, and all below it. The caller
// closes the reader, which ends the work.
func Get(ctx context.Context, c *enginecontainer.Files, name string) (io.ReadCloser, container.PathStat, error) {
	v, err := openView(c, name)
	if err != nil {
		return nil, container.PathStat{}, err
	}
	e, err := v.resolve(name)
	if err != nil {
		v.close()
		return nil, container.PathStat{}, err
	}
	st, err := v.stat(e)
	if err != nil {
		e.close()
		v.close()
		return nil, container.PathStat{}, err
	}
	tell(c, "archive-path")
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer v.close()
		defer e.close()
		w.CloseWithError(e.write(ctx, w, st.Name))
	}()
	return &stream{r, done}, st, nil
}

// stream ends its writer when it is closed: the view is gone then.
type stream struct {
	*io.PipeReader
	done chan struct{}
}

func (s *stream) Close() error {
	s.PipeReader.Close()
	<-s.done
	return nil
}

// Put unpacks a tar, compressed or not, into a folder of the container (PUT /containers/{id}/archive). With copyUIDGID everything
// belongs to the container's user.
func Put(ctx context.Context, c *enginecontainer.Files, name string, packed io.Reader, noOverwriteDirNonDir, copyUIDGID bool) error {
	v, err := openView(c, name)
	if err != nil {
		return err
	}
	defer v.close()
	dir, err := v.root.Open(v.inside(name), unix.O_PATH)
	if err != nil {
		return v.fault(name, err)
	}
	defer dir.Close()
	if st, err := dir.Stat(); err != nil {
		return err
	} else if !st.IsDir() {
		return fault.Invalid("extraction point is not a directory")
	}
	real, err := v.realPath(dir)
	if err != nil {
		return err
	}
	if err := writable(c, real); err != nil {
		return err
	}
	tar, _, err := compress.Reader(ctx, packed)
	if err != nil {
		return err
	}
	defer tar.Close()
	o := layer.ExtractOptions{NoOverwriteDirNonDir: noOverwriteDirNonDir}
	if copyUIDGID {
		read := v.root.ReadFile
		if v.mount != nil { // the users are in the root, not in the volume
			read = func(name string) ([]byte, error) {
				return rootfs.ReadFile(rootfs.Layers{Lower: c.Lower, Upper: c.Upper, Work: c.Work}, name)
			}
		}
		u, err := rootfs.LookUp(read, c.Config.User, nil)
		if err != nil {
			return err
		}
		o.Owner = &layer.Owner{UID: int(u.UID), GID: int(u.GID)}
	}
	root, err := v.root.Open("/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err = layer.Extract(ctx, root, strings.TrimPrefix(v.inside(real), "/"), tar, o); errors.Is(err, unix.EROFS) {
		return fault.Forbidden("cannot copy to %s of container %s: %w", name, c.Name, err)
	}
	if err == nil {
		tell(c, "extract-to-dir")
	}
	return err
}

// writable refuses read-only mounts and roots, in Docker's words. real is a path without links.
func writable(c *enginecontainer.Files, real string) error {
	if m := mountOf(c.Mounts, real); m != nil {
		if !m.RW {
			return fault.Forbidden("mounted volume is marked read-only")
		}
		return nil
	}
	if c.ReadonlyRootfs {
		return fault.Forbidden("container rootfs is marked read-only")
	}
	return nil
}

// Export streams the container's own file system as a tar: image and changes, without what is mounted there.
func Export(ctx context.Context, c *enginecontainer.Files, w io.Writer) error {
	v, err := rootfs.Mount(rootfs.Layers{Lower: append([]string{c.Upper}, c.Lower...)})
	if err != nil {
		return fmt.Errorf("cannot export container %s: %w", c.Name, err)
	}
	defer v.Close()
	root, err := v.Open("/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("cannot export container %s: %w", c.Name, err)
	}
	defer root.Close()
	if _, err := layer.WriteTar(ctx, w, root, layer.WriteOptions{}); err != nil {
		return fmt.Errorf("cannot export container %s: %w", c.Name, err)
	}
	tell(c, "export")
	return nil
}

// tell publishes what was done.
func tell(c *enginecontainer.Files, action string) {
	if c.Publish != nil {
		c.Publish(action)
	}
}

// entry is a resolved path.
type entry struct {
	parent *os.File // holds base
	base   string   // one name; "." for the root and for paths that end in "/."
	shown  string   // the path as it was asked for, absolute and clean but for its end
}

func (e *entry) close() { e.parent.Close() }

// resolve follows everything but the last name, as Docker does: /link/x follows link, /link/ and /link/. too, /link does not.
func (v *view) resolve(name string) (*entry, error) {
	shown := absolute(name)
	dir, base := path.Split(shown)
	if base == "" {
		base = "."
	}
	parent, err := v.root.Open(v.inside(dir), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, v.fault(name, err)
	}
	if v.inside(shown) == "/" { // a mount's own top, seen from its source
		base = "."
	}
	return &entry{parent: parent, base: base, shown: shown}, nil
}

// absolute cleans a path and keeps a slash or "/." at its end, which mean the folder behind a link.
func absolute(name string) string {
	clean := path.Clean("/" + name)
	switch {
	case strings.HasSuffix(name, "/.") || name == ".":
		return strings.TrimSuffix(clean, "/") + "/."
	case strings.HasSuffix(name, "/") && clean != "/":
		return clean + "/"
	}
	return clean
}

// shownBase is the last element of the path as filepath.Base says: "/" for the root, "." behind "/.".
func (e *entry) shownBase() string { return path.Base(e.shown) }

func (v *view) stat(e *entry) (container.PathStat, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(e.parent.Fd()), e.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return container.PathStat{}, v.fault(e.shown, err)
	}
	out := container.PathStat{Name: e.shownBase(), Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec)}
	if out.Mode&fs.ModeSymlink != 0 {
		target, err := v.linkTarget(e)
		if err != nil {
			return container.PathStat{}, v.fault(e.shown, err)
		}
		out.LinkTarget = target
	}
	return out, nil
}

// linkTarget is the absolute path a link leads to in the end; for a dangling one, where its own text points.
func (v *view) linkTarget(e *entry) (string, error) {
	if f, err := v.root.Open(v.inside(e.shown), unix.O_PATH); err == nil {
		defer f.Close()
		return v.realPath(f)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(e.parent.Fd()), e.base, buf)
	if err != nil {
		return "", err
	}
	target := string(buf[:n])
	if !path.IsAbs(target) {
		dir, err := v.realPath(e.parent)
		if err != nil {
			return "", err
		}
		target = path.Join(dir, target)
	}
	return path.Clean(target), nil
}

// fileMode turns stat(2)'s mode into Go's.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	}
	for bit, f := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= f
		}
	}
	return mode
}
