package build

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tare/internal/base/files"
	"tare/internal/base/listing"
)

// form changes when the file's form does.
const form = "tare context 1\n"

// memory is the file in which a folder's nodes are remembered. It is private to the user, and worth nothing to anybody else:
// what it says only decides which files are read again.
type memory struct{ path string }

// memoryOf finds the memory of a folder; "" is a user without a home.
func memoryOf(dir string) memory {
	base, err := os.UserCacheDir()
	if err != nil {
		return memory{}
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	sum := sha256.Sum256([]byte(absolute(dir)))
	return memory{filepath.Join(base, "tare", "contexts", hex.EncodeToString(sum[:16]))}
}

// load returns the nodes and whether they were made with these ignore patterns; nil if there are none, or none that can be trusted.
func (m memory) load(patterns []string) (root *node, trust bool) {
	data, err := os.ReadFile(m.path)
	if err != nil || len(data) < len(form)+36 || string(data[:len(form)]) != form {
		return nil, false
	}
	body := data[:len(data)-4]
	if crc32.Checksum(body, castagnoli()) != binary.BigEndian.Uint32(data[len(data)-4:]) {
		return nil, false
	}
	body = body[len(form):]
	trust = [32]byte(body[:32]) == sumOf(patterns)
	d := &scanner{rest: string(body[32:])}
	root = &node{}
	if d.children(root, 0); d.bad {
		return nil, false
	}
	return root, trust
}

// castagnoli is made when it is needed: it would cost every command a tenth of a millisecond.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func sumOf(patterns []string) [32]byte { return sha256.Sum256([]byte(strings.Join(patterns, "\n"))) }

// save remembers; a cache that can't be written makes the next build slower, nothing else.
func (m memory) save(root *node, patterns []string) {
	if m.path == "" || os.MkdirAll(filepath.Dir(m.path), 0o700) != nil {
		return
	}
	sum := sumOf(patterns)
	b := append([]byte(form), sum[:]...)
	b = appendChildren(b, root)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	if files.Write(m.path, b, 0o600, files.Fast) == nil {
		forget(filepath.Dir(m.path))
	}
}

// kept memories, and for how long they are when they are more.
const (
	maxMemories = 100
	maxAge      = 30 * 24 * time.Hour
)

// forget removes the memories of folders that were not built for long.
func forget(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= maxMemories {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > maxAge {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func appendChildren(b []byte, dir *node) []byte {
	b = binary.AppendUvarint(b, uint64(len(dir.Children)))
	for _, n := range dir.Children {
		skip := byte(0)
		if n.Skip {
			skip = 1
		}
		b = append(b, n.Kind, skip)
		b = text(b, n.Name)
		b = text(b, n.Target)
		for _, v := range []uint64{uint64(n.Mode), uint64(n.Size), n.Entry.Dev, n.Dev, n.Ino, n.Links, uint64(len(n.Xattrs))} {
			b = binary.AppendUvarint(b, v)
		}
		for _, v := range []int64{n.Time, n.Changed, n.At} {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
		for _, x := range n.Xattrs {
			b = text(text(b, x.Name), x.Value)
		}
		switch n.Kind {
		case listing.File:
			b = append(b, n.Sum[:]...)
		case listing.Dir:
			b = appendChildren(b, n)
		}
	}
	return b
}

func text(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// scanner reads what appendChildren wrote. The checksum held, but a careless hand may have written it.
type scanner struct {
	rest string
	bad  bool
}

func (d *scanner) take(n uint64) string {
	if n > uint64(len(d.rest)) {
		d.bad, n = true, uint64(len(d.rest))
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *scanner) number() uint64 {
	v := uint64(0)
	for i := 0; i < len(d.rest) && i < binary.MaxVarintLen64; i++ {
		c := d.rest[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.rest = d.rest[i+1:]
			return v
		}
	}
	d.bad, d.rest = true, ""
	return 0
}

func (d *scanner) word() string { return d.take(d.number()) }

func (d *scanner) time() int64 {
	s := d.take(8)
	if len(s) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64([]byte(s)))
}

func (d *scanner) children(dir *node, depth int) {
	count := d.number()
	if depth > 4096 || count > uint64(len(d.rest)) {
		d.bad = true
		return
	}
	nodes := make([]node, count)
	dir.Children = make([]*node, count)
	for i := range nodes {
		n := &nodes[i]
		dir.Children[i] = n
		head := d.take(2)
		if d.bad {
			return
		}
		n.Kind, n.Skip = head[0], head[1] == 1
		n.Name, n.Target = d.word(), d.word()
		n.Mode, n.Size, n.Entry.Dev = uint32(d.number()), int64(d.number()), d.number()
		n.Dev, n.Ino, n.Links = d.number(), d.number(), d.number()
		count := d.number()
		n.Time, n.Changed, n.At = d.time(), d.time(), d.time()
		for range min(count, 64) {
			n.Xattrs = append(n.Xattrs, listing.Xattr{Name: d.word(), Value: d.word()})
		}
		switch n.Kind {
		case listing.File:
			copy(n.Sum[:], d.take(32))
		case listing.Dir:
			d.children(n, depth+1)
		}
	}
	if !slices.IsSortedFunc(dir.Children, func(a, b *node) int { return strings.Compare(a.Name, b.Name) }) {
		d.bad = true
	}
}
