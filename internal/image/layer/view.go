package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A view is what layers on top of each other show, without mounting them.
type view map[string]place // by clean path below the root, which is "."

// place is where a path's entry lies.
type place struct {
	dir string // of the layer
	st  unix.Stat_t
}

// viewOf walks lower folders, topmost first as Chain gives them.
func viewOf(ctx context.Context, dirs []string) (view, error) {
	v := view{}
	for _, dir := range slices.Backward(dirs) {
		if err := v.put(ctx, dir, "."); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// put lays one entry of a layer, and all below it, over what is there.
func (v view) put(ctx context.Context, dir, at string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	full := filepath.Join(dir, at)
	var st unix.Stat_t
	if err := unix.Lstat(full, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: full, Err: err}
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if old, ok := v[at]; ok && old.st.Mode&unix.S_IFMT == unix.S_IFDIR && (!isDir || isOpaque(full)) {
		v.drop(at)
	}
	if isWhiteout(&st) {
		delete(v, at)
		return nil
	}
	v[at] = place{dir, st}
	if !isDir {
		return nil
	}
	d, err := os.Open(full)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := v.put(ctx, dir, path.Join(at, n)); err != nil {
			return err
		}
	}
	return nil
}

// drop forgets what lies below a folder.
func (v view) drop(at string) {
	prefix := at + "/"
	if at == "." {
		prefix = ""
	}
	for p := range v {
		if p != at && strings.HasPrefix(p, prefix) {
			delete(v, p)
		}
	}
}

// Difference is one path that is not the same in two trees.
type Difference struct {
	Path   string // absolute
	Kind   byte   // 'A' added, 'D' deleted, 'C' changed
	Before int64  // bytes of the file's content; 0 for what has none
	After  int64
}

// Diff compares what two chains of lower folders (topmost first) show: type, mode, owner, content, link target, device number and xattrs. Times
// are not compared: a file that was only touched is the same.
func Diff(ctx context.Context, from, to []string) ([]Difference, error) {
	common := 0 // the folders at the bottom that both have: what only they have is the same
	for common < len(from) && common < len(to) && from[len(from)-1-common] == to[len(to)-1-common] {
		common++
	}
	if common == len(from) && common == len(to) {
		return nil, nil
	}
	a, err := viewOf(ctx, from)
	if err != nil {
		return nil, err
	}
	b, err := viewOf(ctx, to)
	if err != nil {
		return nil, err
	}
	var all []Difference
	for p, x := range a {
		y, ok := b[p]
		switch {
		case !ok:
			all = append(all, Difference{Path: path.Join("/", p), Kind: 'D', Before: sizeOf(&x.st)})
		case x.dir != y.dir:
			same, err := sameEntry(ctx, filepath.Join(x.dir, p), filepath.Join(y.dir, p), &x.st, &y.st)
			if err != nil {
				return nil, err
			}
			if !same {
				all = append(all, Difference{Path: path.Join("/", p), Kind: 'C', Before: sizeOf(&x.st), After: sizeOf(&y.st)})
			}
		}
	}
	for p, y := range b {
		if _, ok := a[p]; !ok {
			all = append(all, Difference{Path: path.Join("/", p), Kind: 'A', After: sizeOf(&y.st)})
		}
	}
	slices.SortFunc(all, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

func sizeOf(st *unix.Stat_t) int64 {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return st.Size
}

func sameEntry(ctx context.Context, a, b string, x, y *unix.Stat_t) (bool, error) {
	if x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid || x.Rdev != y.Rdev || sizeOf(x) != sizeOf(y) {
		return false, nil
	}
	xs, err := listXattrs(a)
	if err != nil {
		return false, err
	}
	ys, err := listXattrs(b)
	if err != nil || !maps.Equal(xs, ys) {
		return false, err
	}
	switch x.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		to, err := os.Readlink(a)
		if err != nil {
			return false, err
		}
		other, err := os.Readlink(b)
		return to == other, err
	case unix.S_IFREG:
		return sameContent(ctx, a, b)
	}
	return true, nil
}

func sameContent(ctx context.Context, a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		n, err := io.ReadFull(f, x)
		m, gerr := io.ReadFull(g, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if err != nil || gerr != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			return err == nil, err
		}
	}
}
