package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/build/execute"
	"tare/internal/build/graph"
	"tare/internal/build/rootfs"
	"tare/internal/build/solve"
)

// bind prepares `RUN --mount=type=bind`. Files of a stage or an image are mounted where they lie, with an overlay of the
// step's own above them if it may write; only files of a context are written out.
func (w *worker) bind(ctx context.Context, a *area, m graph.Mount, work solve.Work, dir string) (specs.Mount, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return specs.Mount{}, err
	}
	if m.From.Context {
		tree, end, err := w.tree(ctx, m.From, work)
		if err != nil {
			return specs.Mount{}, err
		}
		defer end()
		host, err := w.materialize(ctx, m.From.Name, tree, m.Path, dir)
		return execute.Bind(host, m.Target, m.ReadOnly), err
	}
	lower, err := w.s.lower(work.Inputs[m.From.Input])
	if err != nil {
		return specs.Mount{}, err
	}
	merged, err := rootfs.Open(lower, "", "")
	if err != nil {
		return specs.Mount{}, err
	}
	defer merged.Close()
	if len(lower) == 0 && m.Path == "/" {
		return execute.Bind(dir, m.Target, m.ReadOnly), nil
	}
	real := merged.Real(m.Path)
	e, err := merged.Stat(real, false)
	if errors.Is(err, fs.ErrNotExist) {
		return specs.Mount{}, fault.NotFound("RUN --mount=type=bind failed: stat %s: file does not exist", m.Path)
	}
	if err != nil {
		return specs.Mount{}, err
	}
	places, err := under(lower, real)
	if err != nil {
		return specs.Mount{}, err
	}
	switch {
	case !e.IsDir() && m.ReadOnly:
		return execute.Bind(places[0], m.Target, true), nil
	case !e.IsDir():
		host, err := w.materialize(ctx, "", merged, m.Path, dir)
		return execute.Bind(host, m.Target, false), err
	case len(places) == 1 && m.ReadOnly:
		return execute.Bind(places[0], m.Target, true), nil
	}
	options := []string{"lowerdir=" + strings.Join(places, ":")}
	if m.ReadOnly {
		options = append(options, "ro")
	} else {
		upper, tmp := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
		for _, d := range []string{upper, tmp} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return specs.Mount{}, err
			}
		}
		if err := alike(upper, e.UID, e.GID, places[0]); err != nil {
			return specs.Mount{}, err
		}
		options = append(options, "upperdir="+upper, "workdir="+tmp)
	}
	// mount(2) takes no more than a page; and a name with these letters, which an image may have, would say something else as an option.
	if len(strings.Join(options, ",")) >= os.Getpagesize()-100 || slices.ContainsFunc(places, func(p string) bool { return strings.ContainsAny(p, `:,\`) }) {
		host, err := w.materialize(ctx, "", merged, m.Path, dir)
		return execute.Bind(host, m.Target, m.ReadOnly), err
	}
	return specs.Mount{Destination: m.Target, Type: "overlay", Source: "overlay", Options: options}, nil
}

// alike gives a folder the mode of another one, and an owner.
func alike(dir string, uid, gid int, like string) error {
	var st unix.Stat_t
	if err := unix.Lstat(like, &st); err != nil {
		return err
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return err
	}
	return unix.Chmod(dir, st.Mode&0o7777)
}

// under finds where the parts of a path lie that layers, topmost first, have of it, as an overlay of them would: what a layer
// deletes or replaces hides the layers below. name has no symlinks in the merged tree.
func under(lower []string, name string) (places []string, err error) {
	parts := strings.Split(strings.Trim(name, "/"), "/")
	if name == "/" {
		parts = nil
	}
	for _, layer := range lower {
		at, hides, here := "", false, true
		for _, part := range parts {
			at = path.Join(at, part)
			var st unix.Stat_t
			fd, err := beneath(layer, at)
			if err == unix.ENOENT {
				here = false
				break
			}
			if err == unix.ENOTDIR || err == unix.ELOOP {
				here, hides = false, true
				break
			}
			if err != nil {
				return nil, fmt.Errorf("cannot find %s in a layer: %w", at, err)
			}
			err = unix.Fstat(fd, &st)
			var opaque [8]byte
			if n, xerr := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", fd), "trusted.overlay.opaque", opaque[:]); xerr == nil && n > 0 && opaque[0] == 'y' {
				hides = true
			}
			unix.Close(fd)
			if err != nil {
				return nil, err
			}
			if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 { // a whiteout
				here, hides = false, true
				break
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				hides = true
			}
		}
		if here {
			places = append(places, filepath.Join(layer, at))
		}
		if hides {
			break
		}
	}
	if len(places) == 0 {
		return nil, fault.Internal("no layer has %s", name)
	}
	return places, nil
}

// beneath opens a path of a layer without following any symlink.
func beneath(layer, name string) (int, error) {
	dir, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	return unix.Openat2(dir, name, &how)
}
