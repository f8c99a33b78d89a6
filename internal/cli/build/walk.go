package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"

	"tare/internal/base/listing"
)

// folder is a context's folder, looked at once.
type folder struct {
	dir    string
	root   *node
	fd     int // of dir
	ignore *patternmatcher.PatternMatcher
	trust  bool // the memory was made with the same ignore patterns

	mu    sync.Mutex // guards below
	hash  []toHash
	fresh bool // something is not as it was remembered
	err   error

	slots chan struct{} // a folder that gets one is walked beside the others
	group sync.WaitGroup
}

type toHash struct {
	n    *node
	path string
}

// look walks dir and reads the files that are not as old remembers them. patterns are the ignore file's; old is nil or
// the root of the last look, made with the same patterns if trust is set.
func look(ctx context.Context, dir string, patterns []string, old *node, trust bool) (*folder, error) {
	f := &folder{dir: dir, trust: trust, slots: make(chan struct{}, runtime.NumCPU()), fresh: old == nil || !trust}
	var err error
	if len(patterns) > 0 {
		if f.ignore, err = patternmatcher.New(patterns); err != nil {
			return nil, fmt.Errorf("unable to prepare context: .dockerignore: %w", err)
		}
	}
	if f.fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("unable to prepare context: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	f.root = &node{Entry: listing.Entry{Kind: listing.Dir}}
	if old == nil {
		old = &node{}
	}
	f.walk(f.fd, f.root, old, "", nil)
	f.group.Wait()
	if f.err == nil {
		f.err = f.read(ctx)
	}
	if f.err != nil {
		f.close()
		return nil, fmt.Errorf("unable to prepare context: %w", f.err)
	}
	return f, nil
}

func (f *folder) close() { unix.Close(f.fd) }

func (f *folder) fail(op, name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = &os.PathError{Op: op, Path: path.Join(f.dir, name), Err: err}
	}
}

// verdict is what the ignore patterns say of a folder, worked out when something in it asks.
type verdict struct {
	above *verdict
	path  string
	once  sync.Once
	info  patternmatcher.MatchInfo
}

func (v *verdict) get(m *patternmatcher.PatternMatcher) patternmatcher.MatchInfo {
	if v == nil {
		return patternmatcher.MatchInfo{}
	}
	v.once.Do(func() { _, v.info, _ = m.MatchesUsingParentResults(v.path, v.above.get(m)) })
	return v.info
}

// walk fills in dir, which is open as fd and not closed here.
func (f *folder) walk(fd int, dir, old *node, at string, above *verdict) {
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			f.fail("read", at, err)
			return
		}
		if n <= 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			size := *(*uint16)(unsafe.Pointer(&b[16]))
			name := b[19:size] // closed by a zero byte
			b = b[size:]
			if c := f.stat(fd, at, name); c != nil {
				dir.Children = append(dir.Children, c)
			}
		}
	}
	slices.SortFunc(dir.Children, func(a, b *node) int { return strings.Compare(a.Name, b.Name) })
	changed := len(dir.Children) != len(old.Children)
	rest := old.Children
	for _, c := range dir.Children {
		for len(rest) > 0 && rest[0].Name < c.Name {
			rest = rest[1:]
		}
		was := &node{}
		if len(rest) > 0 && rest[0].Name == c.Name {
			was = rest[0]
		}
		if !f.entry(fd, c, was, path.Join(at, c.Name), above) {
			changed = true
		}
	}
	if changed {
		f.mu.Lock()
		f.fresh = true
		f.mu.Unlock()
	}
}

// stat looks at one name; nil for what does not travel. It is a bare system call: there may be very many, each a microsecond long.
func (f *folder) stat(fd int, at string, name []byte) *node {
	end := slices.Index(name, 0)
	if s := name[:end]; string(s) == "." || string(s) == ".." {
		return nil
	}
	var st syscall.Stat_t
	_, _, e := syscall.RawSyscall6(unix.SYS_NEWFSTATAT, uintptr(fd), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&st)), unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if e == syscall.ENOENT {
		return nil // gone since
	}
	if e != 0 {
		f.fail("stat", path.Join(at, string(name[:end])), e)
		return nil
	}
	c := &node{Dev: st.Dev, Ino: st.Ino, Changed: syscall.TimespecToNsec(st.Ctim), Links: uint64(st.Nlink)}
	c.Name, c.Mode, c.Time = string(name[:end]), st.Mode&0o7777, syscall.TimespecToNsec(st.Mtim)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		c.Kind, c.Size = listing.File, st.Size
	case unix.S_IFDIR:
		c.Kind, c.Links = listing.Dir, 0
	case unix.S_IFLNK:
		c.Kind = listing.Symlink
	case unix.S_IFIFO:
		c.Kind = listing.Pipe
	case unix.S_IFCHR:
		c.Kind, c.Entry.Dev = listing.Char, st.Rdev
	case unix.S_IFBLK:
		c.Kind, c.Entry.Dev = listing.Block, st.Rdev
	default:
		return nil // a socket
	}
	return c
}

// entry finishes a node, and goes down a folder. It tells whether the node is as it was.
func (f *folder) entry(fd int, c, was *node, at string, above *verdict) bool {
	if f.ignore != nil {
		if f.trust && was.Name != "" && was.Kind == c.Kind {
			c.Skip = was.Skip
		} else {
			c.Skip, _, _ = f.ignore.MatchesUsingParentResults(at, above.get(f.ignore))
		}
	}
	same := c.same(was) && c.Skip == was.Skip
	switch {
	case c.Kind == listing.Dir:
		if c.Skip && !f.ignore.Exclusions() {
			return was.Kind == c.Kind
		}
		f.down(fd, c, was, at, above)
	case c.Skip:
		return was.Kind == c.Kind
	case same:
		c.Sum, c.At, c.Target, c.Xattrs = was.Sum, was.At, was.Target, was.Xattrs
		return true
	case c.Kind == listing.Symlink:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, c.Name, buf)
		if err != nil {
			f.fail("readlink", at, err)
			return false
		}
		c.At, c.Target = time.Now().UnixNano(), string(buf[:n])
	case c.Kind == listing.File:
		f.mu.Lock()
		f.hash = append(f.hash, toHash{c, at})
		f.mu.Unlock()
	}
	return same
}

// down walks a folder, beside the others if there is room.
func (f *folder) down(fd int, c, was *node, at string, above *verdict) {
	child, err := unix.Openat(fd, c.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if err != unix.ENOENT {
			f.fail("open", at, err)
		}
		return
	}
	if c.same(was) {
		c.Xattrs = was.Xattrs
	} else {
		c.Xattrs = xattrs(child)
	}
	var v *verdict
	if f.ignore != nil {
		v = &verdict{above: above, path: at}
	}
	select {
	case f.slots <- struct{}{}:
		f.group.Go(func() {
			f.walk(child, c, was, at, v)
			unix.Close(child)
			<-f.slots
		})
	default:
		f.walk(child, c, was, at, v)
		unix.Close(child)
	}
}

// read hashes what has to be, on all cores.
func (f *folder) read(ctx context.Context) error {
	next := make(chan toHash)
	var group sync.WaitGroup
	for range min(runtime.NumCPU(), len(f.hash)) {
		group.Go(func() {
			buf := make([]byte, 128<<10)
			for h := range next {
				if err := f.readOne(h, buf); err != nil {
					f.mu.Lock()
					f.err = cmp.Or(f.err, err)
					f.mu.Unlock()
				}
			}
		})
	}
	for _, h := range f.hash {
		if ctx.Err() != nil {
			break
		}
		next <- h
	}
	close(next)
	group.Wait()
	return cmp.Or(f.err, ctx.Err())
}

// readOne hashes a file; one that changes meanwhile is read again, for a while.
func (f *folder) readOne(h toHash, buf []byte) error {
	for range 5 {
		done, err := f.hashFile(h, buf)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s keeps changing while it is read", path.Join(f.dir, h.path))
}

func (f *folder) hashFile(h toHash, buf []byte) (done bool, err error) {
	file, err := f.open(h.path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	fd := int(file.Fd())
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return false, err
	}
	h.n.At = time.Now().UnixNano()
	sum := sha256.New()
	size, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{file}, buf)
	if err != nil {
		return false, err
	}
	h.n.Xattrs = xattrs(fd)
	if err := unix.Fstat(fd, &after); err != nil {
		return false, err
	}
	sum.Sum(h.n.Sum[:0])
	n := h.n
	n.Dev, n.Ino, n.Changed, n.Links = after.Dev, after.Ino, after.Ctim.Nano(), uint64(after.Nlink)
	n.Mode, n.Time, n.Size = after.Mode&0o7777, after.Mtim.Nano(), size
	return before.Ctim == after.Ctim && before.Ino == after.Ino && size == after.Size, nil
}

// open opens a regular file of the folder; no part of the name is a symlink.
func (f *folder) open(name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(f.fd, name, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path.Join(f.dir, name), Err: err}
		}
		return os.NewFile(uintptr(fd), path.Join(f.dir, name)), nil
	}
}

// xattrs reads what the engine keeps of a file's extended attributes.
func xattrs(fd int) (out []listing.Xattr) {
	buf := make([]byte, 4096)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil || n == 0 {
		return nil
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			out = append(out, listing.Xattr{Name: name, Value: string(value[:n])})
		}
	}
	listing.SortXattrs(out)
	return out
}

// list writes the folder's listing.
func (f *folder) list() *listing.Writer {
	w := listing.NewWriter(1 << 20)
	first := map[[2]uint64]string{} // the path of a file's first name
	var down func(dir *node, at string)
	down = func(dir *node, at string) {
		for _, n := range dir.Children {
			switch {
			case n.Skip && (n.Kind != listing.Dir || !kept(n)):
			case n.Kind == listing.Dir:
				w.Add(&n.Entry)
				down(n, at+n.Name+"/")
				w.Up()
			case n.Kind == listing.File && n.Links > 1 && first[n.inode()] != "":
				w.Add(&listing.Entry{Kind: listing.Link, Name: n.Name, Target: first[n.inode()]})
			default:
				if n.Kind == listing.File && n.Links > 1 {
					first[n.inode()] = at + n.Name
				}
				w.Add(&n.Entry)
			}
		}
	}
	down(f.root, "")
	return w
}

func (n *node) inode() [2]uint64 { return [2]uint64{n.Dev, n.Ino} }

// kept tells whether an exception of the ignore file names something in an ignored folder.
func kept(n *node) bool {
	return slices.ContainsFunc(n.Children, func(c *node) bool { return !c.Skip || c.Kind == listing.Dir && kept(c) })
}

// size is that of all files, in bytes.
func (f *folder) size() (total int64) {
	var down func(dir *node)
	down = func(dir *node) {
		for _, n := range dir.Children {
			if n.Kind == listing.Dir {
				down(n)
			} else if !n.Skip {
				total += n.Size
			}
		}
	}
	down(f.root)
	return total
}

// paths finds files by their contents.
func (f *folder) paths() map[listing.Digest]string {
	out := map[listing.Digest]string{}
	var down func(dir *node, at string)
	down = func(dir *node, at string) {
		for _, n := range dir.Children {
			if n.Kind == listing.Dir {
				down(n, at+n.Name+"/")
			} else if n.Kind == listing.File && !n.Skip {
				out[n.Sum] = at + n.Name
			}
		}
	}
	down(f.root, "")
	return out
}
