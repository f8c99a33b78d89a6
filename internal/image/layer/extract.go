package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Owner is a user and group by number.
type Owner struct{ UID, GID int }

// ExtractOptions say what a tar means. The zero value unpacks it as it is, as `tar -xp --numeric-owner` does.
type ExtractOptions struct {
	// Layer: the tar is an image layer. Whiteouts become overlay's; "./" sets the root's attributes; hard links
	// and symlinks that lead out of the layer are errors.
	Layer bool
	// Owner replaces the tar's owners; nil keeps them.
	Owner *Owner
	// NoOverwriteDirNonDir refuses to replace a folder with something else, or something else with a folder.
	NoOverwriteDirNonDir bool
}

// Extracted is what Extract did.
type Extracted struct {
	Entries int64
	Bytes   int64    // of file content
	Implied []string // folders the tar has no entry for, made 0755 0:0; "" is the root (Layer only)
}

// What a stranger's tar may ask of us. An honest one stays far below.
var (
	maxEntries int64 = 4 << 20  // entries: inodes, and time
	maxSparse  int64 = 16 << 30 // bytes of all sparse files, whose holes cost no bytes of tar, but time
	maxFolders       = 64 << 20 // bytes of the names and extended attributes of folders, which are kept to the end
)

// Extract unpacks a tar into the folder dir below root (dir is resolved inside root; "" is root itself, it has to exist).
// Names are taken relative to dir. No entry can leave root, whatever names and symlinks the tar or
// the folder have, and whoever changes the folder meanwhile: names with ".." that climb out are Invalid, absolute
// names start at dir, symlinks on the way to an entry are followed inside root only. An existing
// entry is replaced, folders are merged. A broken tar is Invalid; what was unpacked so far stays.
//
// tar is read up to its end mark; what follows stays unread or is thrown away.
func Extract(ctx context.Context, root *os.File, dir string, r io.Reader, o ExtractOptions) (Extracted, error) {
	t, err := newTree(root, o.Layer)
	if err != nil {
		return Extracted{}, err
	}
	base, ok := cleanName(dir)
	if !ok {
		base = path.Clean("/" + dir)[1:]
	}
	if _, err := t.folder(base, false); err != nil {
		t.close()
		return Extracted{}, entryError(dir, err)
	}
	w := &writer{tree: t, base: base, o: o, late: map[string]*late{}}
	x := &extraction{ctx: ctx, o: o, ops: make(chan op, opCount), failed: make(chan struct{}), bufs: make(chan []byte, bufCount)}
	var group sync.WaitGroup
	group.Go(func() {
		defer t.close()
		w.run(x)
	})
	err = x.parse(r)
	x.parseFailed = err != nil
	close(x.ops)
	group.Wait()
	if w.err != nil {
		err = w.err
	}
	return Extracted{Entries: x.entries, Bytes: x.bytes, Implied: w.impliedPaths()}, err
}

// An extraction has two sides. parse reads the tar and turns it into ops; the writer does the
// system calls. So reading, decompressing and hashing go on while files are made.
type extraction struct {
	ctx         context.Context
	o           ExtractOptions
	ops         chan op
	failed      chan struct{} // closed when the writer gave up
	bufs        chan []byte   // free buffers
	made        int           // buffers that exist
	parseFailed bool          // set before ops is closed

	entries, bytes, sparse int64
}

const (
	opCount  = 256
	bufCount = 48
	bufSize  = 64 << 10
)

var bufPool = sync.Pool{New: func() any { return make([]byte, bufSize) }}

// op is an entry, or (header nil) more content of the file before it.
type op struct {
	header *tar.Header
	name   string // clean, relative, "" for the root
	data   []byte // content, in a buffer of bufs if not nil
	last   bool   // the file is complete
}

// errStopped ends parse when the writer failed; the writer's error is the one that counts.
var errStopped = errors.New("stopped")

func (x *extraction) send(o op) error {
	select {
	case x.ops <- o:
		return nil
	case <-x.failed:
		return errStopped
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	}
}

func (x *extraction) buffer() ([]byte, error) {
	select {
	case b := <-x.bufs:
		return b, nil
	default:
	}
	if x.made < bufCount {
		x.made++
		return bufPool.Get().([]byte), nil
	}
	select {
	case b := <-x.bufs:
		return b, nil
	case <-x.failed:
		return nil, errStopped
	case <-x.ctx.Done():
		return nil, context.Cause(x.ctx)
	}
}

// parse reads all entries. Its errors about the tar are Invalid; read errors of the source keep their class.
func (x *extraction) parse(r io.Reader) error {
	src := &sourceError{r: r}
	tr := tar.NewReader(src)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return src.cause("broken tar", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, ok := cleanName(h.Name)
		if !ok {
			return fault.Invalid("tar entry %q leads out of the root", h.Name)
		}
		if err := x.entry(tr, src, h, name); err != nil {
			return err
		}
	}
}

func (x *extraction) entry(tr *tar.Reader, src *sourceError, h *tar.Header, name string) error {
	if x.entries++; x.entries > maxEntries {
		return fault.Invalid("the tar has more than %d entries", maxEntries)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
	case tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.send(op{header: h, name: name, last: true})
	default:
		return fault.Invalid("tar entry %q has unknown type %q", h.Name, h.Typeflag)
	}
	if isSparse(h) {
		if h.Size > maxSparse || x.sparse+h.Size > maxSparse {
			return fault.Invalid("tar entry %q: sparse files of more than %d bytes are too large", h.Name, maxSparse)
		}
		x.sparse += h.Size
	}
	x.bytes += h.Size
	o := op{header: h, name: name}
	for left := h.Size; ; {
		if left > 0 {
			b, err := x.buffer()
			if err != nil {
				return err
			}
			n, err := io.ReadFull(tr, b[:min(left, bufSize)])
			if err != nil {
				return src.cause(fmt.Sprintf("tar entry %q", h.Name), err)
			}
			o.data = b[:n]
			left -= int64(n)
		}
		o.last = left == 0
		if err := x.send(o); err != nil {
			return err
		}
		if o.last {
			return nil
		}
		o = op{}
	}
}

// cleanName makes a tar's name relative and clean; "" is the root. ok is false if it climbs out of the root.
func cleanName(name string) (clean string, ok bool) {
	clean = path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case clean == ".":
		return "", true
	case clean == "..", strings.HasPrefix(clean, "../"):
		return "", false
	}
	return clean, true
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// sourceError tells the source's own errors from those of the tar's form.
type sourceError struct {
	r   io.Reader
	err error
}

func (s *sourceError) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *sourceError) cause(what string, err error) error {
	if s.err != nil {
		return s.err
	}
	return fault.Invalid("%s: %w", what, err)
}

// entryError adds the entry to a system call's error. What a well-formed tar can't cause is Invalid; the
// rest (no space, input/output error) is the host's.
func entryError(name string, err error) error {
	for _, e := range []unix.Errno{
		unix.EINVAL, unix.ENAMETOOLONG, unix.ELOOP, unix.ENOTDIR, unix.EISDIR, unix.EEXIST,
		unix.EXDEV, unix.ENOENT, unix.ENOTEMPTY, unix.EMLINK, unix.ERANGE, unix.E2BIG, unix.EOVERFLOW,
	} {
		if errors.Is(err, e) {
			return fault.Invalid("cannot unpack %q: %w", name, err)
		}
	}
	return fmt.Errorf("cannot unpack %q: %w", name, err)
}
