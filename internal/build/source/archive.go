package source

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/image/compress"
)

// maxLinks is how many symlinks one look-up follows, as in the kernel.
const maxLinks = 40

// Archive is a tree that came as a tar or as a listing. After Read it may be used by several goroutines; Prune may not run beside others.
type Archive struct {
	root  *node
	spool *os.File
	count int

	contents Contents // of an archive made by Known

	mu   sync.Mutex // guards memo
	memo map[string]string
}

// Memo returns what f returned for the key before, if it succeeded: what is worked out of an archive's names stays true.
func (a *Archive) Memo(key string, f func() (string, error)) (string, error) {
	a.mu.Lock()
	v, ok := a.memo[key]
	a.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := f()
	if err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.memo == nil {
			a.memo = map[string]string{}
		}
		a.memo[key] = v
	}
	return v, err
}

// node is an entry with its place in the tree.
type node struct {
	Entry
	data     *data
	children map[string]*node // of a folder
}

// data is a file's content in the spool; names of one file share it.
type data struct {
	offset, size int64
	sum          [sha256.Size]byte
	names        int
}

// Owners says whose the files are.
type Owners bool

const (
	// Root makes all files 0:0, as a build context's are.
	Root Owners = false
	// Kept leaves them as the tar has them.
	Kept Owners = true
)

// Read reads a tar, compressed or not, to its end. The spool is made in dir. Broken or hostile tars are Invalid.
func Read(ctx context.Context, r io.Reader, dir string, o Owners) (_ *Archive, err error) {
	plain, _, err := compress.Reader(ctx, r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a := New()
	if a.spool, err = spool(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	l := newLoader(a, o)
	tr := tar.NewReader(bufio.NewReaderSize(plain, 256<<10))
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = l.add(h, tr)
		}
		if err != nil {
			if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fault.Invalid("the tar is broken: %w", err)
			}
			return nil, err
		}
	}
	// What follows the end mark (padding) is read too, so that the sender is not cut off.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, err
	}
	return a, l.w.Flush()
}

// New makes an archive without files.
func New() *Archive { return &Archive{root: newDir("/", "")} }

// File makes an archive with one file in its root, read from r.
func File(dir, name string, r io.Reader, mode fs.FileMode, modTime time.Time) (_ *Archive, err error) {
	a := New()
	if a.spool, err = spool(dir); err != nil {
		return nil, err
	}
	l := newLoader(a, Root)
	n := &node{Entry: Entry{Path: "/" + name, Name: name, Mode: mode.Perm(), ModTime: modTime}}
	if err = l.store(n, r); err == nil {
		err = l.w.Flush()
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	a.root.children[name] = n
	a.count = 1
	return a, nil
}

// Close frees the spool.
func (a *Archive) Close() error {
	if a.spool == nil {
		return nil
	}
	return a.spool.Close()
}

// Len is the number of entries.
func (a *Archive) Len() int { return a.count }

// spool opens a file without a name, so that a crash leaves nothing.
func spool(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "build context"), nil
	}
	f, err := os.CreateTemp(dir, ".tmp-context-") // a file system without O_TMPFILE
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

type loader struct {
	a      *Archive
	w      *bufio.Writer
	buf    []byte
	offset int64
	owners Owners
}

func newLoader(a *Archive, o Owners) *loader {
	return &loader{a: a, w: bufio.NewWriterSize(a.spool, 1<<20), buf: make([]byte, 128<<10), owners: o}
}

func newDir(p, name string) *node {
	return &node{Entry: Entry{Path: p, Name: name, Mode: fs.ModeDir | 0o755, Implied: true, ModTime: time.Unix(0, 0)}, children: map[string]*node{}}
}

// add places one tar entry in the tree.
func (l *loader) add(h *tar.Header, content io.Reader) error {
	name := strings.TrimLeft(h.Name, "/")
	if c := path.Clean(name); c == ".." || strings.HasPrefix(c, "../") || strings.IndexByte(name, 0) >= 0 {
		return fault.Invalid("the tar has a name that leads out of its root: %q", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fault.Invalid("the tar has an entry of unknown type %q: %s", h.Typeflag, h.Name)
	}
	clean := path.Join("/", name)
	n := &node{Entry: Entry{Name: path.Base(clean), Mode: h.FileInfo().Mode() & (fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky),
		ModTime: h.ModTime, Xattrs: xattrs(h)}}
	if l.owners == Kept {
		n.UID, n.GID = h.Uid, h.Gid
	}
	if clean == "/" {
		if n.Mode.IsDir() {
			root := l.a.root
			root.Mode, root.ModTime, root.UID, root.GID, root.Xattrs = n.Mode, n.ModTime, n.UID, n.GID, n.Xattrs
			root.Implied = false
		}
		return nil
	}
	parent, err := l.a.parent(path.Dir(clean))
	if err != nil {
		return fault.Invalid("the tar's entry %s has no folder to be in: %w", h.Name, err)
	}
	n.Path = path.Join(parent.Path, n.Name)
	switch h.Typeflag {
	case tar.TypeReg:
		if err := l.store(n, content); err != nil {
			return err
		}
	case tar.TypeDir:
		n.children = map[string]*node{}
		if old := parent.children[n.Name]; old != nil && old.IsDir() {
			n.children = old.children
		}
	case tar.TypeSymlink:
		n.Link, n.Mode = h.Linkname, fs.ModeSymlink|0o777
	case tar.TypeLink:
		target, err := l.a.walk(path.Join("/", strings.TrimLeft(h.Linkname, "/")), false)
		if err != nil || target.IsDir() {
			return fault.Invalid("the tar's hard link %s has no file to point at: %s", h.Name, h.Linkname)
		}
		n.Entry, n.data = target.Entry, target.data
		n.Name, n.Path = path.Base(clean), path.Join(parent.Path, path.Base(clean))
		if n.data != nil {
			n.data.names++
		}
	case tar.TypeChar, tar.TypeBlock:
		n.Dev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	if parent.children[n.Name] == nil {
		l.a.count++
	}
	parent.children[n.Name] = n
	return nil
}

// store spools and hashes a file's content.
func (l *loader) store(n *node, content io.Reader) error {
	h := sha256.New()
	size, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(h, l.w)}, content, l.buf)
	if err != nil {
		return err
	}
	n.data = &data{offset: l.offset, size: size, names: 1}
	h.Sum(n.data.sum[:0])
	n.Size, n.Sum = size, n.data.sum[:]
	l.offset += size
	return nil
}

func xattrs(h *tar.Header) map[string]string {
	var out map[string]string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && KeepXattr(name) {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = v
		}
	}
	return out
}

// KeepXattr tells whether an extended attribute is copied along with its file.
func KeepXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.")
}

// parent finds or makes the folder that an entry is in.
func (a *Archive) parent(dir string) (*node, error) {
	if n, err := a.walk(dir, true); err == nil {
		if !n.IsDir() {
			return nil, fmt.Errorf("%s is no folder", dir)
		}
		return n, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	up, err := a.parent(path.Dir(dir))
	if err != nil {
		return nil, err
	}
	name := path.Base(dir)
	if old := up.children[name]; old != nil {
		return nil, fmt.Errorf("%s is no folder", dir)
	}
	n := newDir(path.Join(up.Path, name), name)
	up.children[name] = n
	a.count++
	return n, nil
}

// walk resolves a name inside the tree.
func (a *Archive) walk(name string, follow bool) (*node, error) {
	todo := strings.Split(strings.Trim(path.Join("/", name), "/"), "/")
	stack := []*node{a.root} // from the root to the current folder
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		cur := stack[len(stack)-1]
		if !cur.IsDir() {
			return nil, fs.ErrNotExist
		}
		n := cur.children[part]
		if n == nil {
			return nil, fs.ErrNotExist
		}
		if n.Mode&fs.ModeSymlink != 0 && (follow || len(todo) > 0) {
			if links++; links > maxLinks {
				return nil, unix.ELOOP
			}
			if path.IsAbs(n.Link) {
				stack = stack[:1]
			}
			todo = append(strings.Split(n.Link, "/"), todo...)
			continue
		}
		stack = append(stack, n)
	}
	return stack[len(stack)-1], nil
}

func (n *node) entry() *Entry {
	e := n.Entry
	e.node = n
	if n.data != nil && n.data.names > 1 {
		e.Same = n.data
	}
	return &e
}

// Stat implements Tree.
func (a *Archive) Stat(name string, follow bool) (*Entry, error) {
	n, err := a.walk(name, follow)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return n.entry(), nil
}

// List implements Tree.
func (a *Archive) List(dir *Entry) ([]*Entry, error) {
	out := make([]*Entry, 0, len(dir.node.children))
	for _, n := range dir.node.children {
		out = append(out, n.entry())
	}
	slices.SortFunc(out, func(x, y *Entry) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

// Open implements Tree.
func (a *Archive) Open(e *Entry) (io.ReadCloser, error) {
	if e.node.data == nil {
		return nil, &fs.PathError{Op: "open", Path: e.Path, Err: unix.EINVAL}
	}
	if a.contents != nil {
		return a.contents.Open(e.node.data.sum, e.node.data.size)
	}
	return io.NopCloser(io.NewSectionReader(a.spool, e.node.data.offset, e.node.data.size)), nil
}

// ReadFile returns a small file's content; limit in bytes.
func ReadFile(t Tree, name string, limit int64) ([]byte, error) {
	e, err := t.Stat(name, true)
	if err != nil {
		return nil, err
	}
	if !e.Mode.IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: unix.EINVAL}
	}
	if e.Size > limit {
		return nil, fault.Invalid("%s is larger than %d bytes", name, limit)
	}
	r, err := t.Open(e)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// IsTar tells whether r begins with a tar header.
func IsTar(r io.Reader) bool {
	_, err := tar.NewReader(r).Next()
	return err == nil
}
