// Package listing is the form in which a folder travels to an engine that may know it already: its names, types,
// modes, times and the digests of its files, but not their contents.
//
//	listing  a header, then the folder's entries depth first, each folder's sorted by name
//	digest   SHA-256 of the listing; two folders with the same digest hold the same files
//
//	entry := kind name mode mtime rest           in a folder: …, entries, 'u'
//	rest  := size sum xattrs                     'f', a regular file
//	       | xattrs                              'd', a folder
//	       | target                              'l', a symlink
//	       | path                                'h', a further name of the file at path, which comes earlier
//	       | dev                                 'c', 'b'
//	       |                                     'p', a named pipe
//
// Numbers are varints, strings have their length before them. The form is canonical: Decode refuses what
// Writer would not write, so that nothing has two digests.
package listing

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kinds of entries.
const (
	File    = 'f'
	Dir     = 'd'
	Symlink = 'l'
	Link    = 'h' // a hard link
	Pipe    = 'p'
	Char    = 'c'
	Block   = 'b'
	up      = 'u' // ends a folder
)

const header = "tare listing 1\n"

// Digest is a SHA-256.
type Digest = [sha256.Size]byte

// Entry is one file. The root has none.
type Entry struct {
	Kind   byte
	Name   string // the last part of its path
	Mode   uint32 // the lower 12 bits of st_mode
	Time   int64  // of the last modification, Unix nanoseconds
	Size   int64
	Sum    Digest
	Target string // of a symlink, or the path of a hard link's first name, without a leading slash
	Dev    uint64 // of a device, as in stat(2)
	Xattrs []Xattr
}

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// Writer makes a listing in memory. The caller keeps the order.
type Writer struct{ buf []byte }

// NewWriter begins a listing; size is a guess of its length in bytes.
func NewWriter(size int) *Writer {
	return &Writer{buf: append(make([]byte, 0, size+len(header)), header...)}
}

// Add appends an entry. After a folder its entries follow, then Up.
func (w *Writer) Add(e *Entry) {
	b := append(w.buf, e.Kind)
	b = text(b, e.Name)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendVarint(b, e.Time)
	switch e.Kind {
	case File:
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = append(b, e.Sum[:]...)
		b = xattrs(b, e.Xattrs)
	case Dir:
		b = xattrs(b, e.Xattrs)
	case Symlink, Link:
		b = text(b, e.Target)
	case Char, Block:
		b = binary.AppendUvarint(b, e.Dev)
	}
	w.buf = b
}

// Up ends a folder.
func (w *Writer) Up() { w.buf = append(w.buf, up) }

// Bytes is the listing.
func (w *Writer) Bytes() []byte { return w.buf }

// Digest is the listing's.
func (w *Writer) Digest() Digest { return sha256.Sum256(w.buf) }

func text(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func xattrs(b []byte, list []Xattr) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, x := range list {
		b = text(text(b, x.Name), x.Value)
	}
	return b
}

// maxDepth is how deep folders may lie in each other: no path of the kernel's length is deeper.
const maxDepth = 2048

// maxName is the kernel's longest file name, in bytes.
const maxName = 255

// Decode calls add for every entry and end after every folder. Broken or hostile listings are an error; e is the callee's to keep
// until the next call.
func Decode(data []byte, add func(e *Entry) error, end func()) error {
	rest, ok := strings.CutPrefix(string(data), header)
	if !ok {
		return errors.New("a listing of an unknown form")
	}
	d := &decoder{rest: rest}
	last := []string{""} // the newest name in each open folder
	var e Entry
	for len(d.rest) > 0 {
		kind := d.rest[0]
		d.rest = d.rest[1:]
		if kind == up {
			if len(last) == 1 {
				return errBroken
			}
			last = last[:len(last)-1]
			end()
			continue
		}
		e = Entry{Kind: kind, Name: d.text(), Mode: uint32(d.number()), Time: d.signed()}
		switch kind {
		case File:
			e.Size = int64(d.number())
			copy(e.Sum[:], d.take(len(e.Sum)))
			e.Xattrs = d.xattrs()
		case Dir:
			e.Xattrs = d.xattrs()
		case Symlink, Link:
			e.Target = d.text()
		case Char, Block:
			e.Dev = d.number()
		case Pipe:
		default:
			return fmt.Errorf("an entry of unknown kind %q", kind)
		}
		at := len(last) - 1
		if d.bad || e.Size < 0 || e.Mode > 0o7777 {
			return errBroken
		}
		if !validName(e.Name) || e.Name <= last[at] {
			return fmt.Errorf("a bad or misplaced name: %q", e.Name)
		}
		last[at] = e.Name
		if kind == Dir {
			if len(last) > maxDepth {
				return errors.New("folders lie too deep in each other")
			}
			last = append(last, "")
		}
		if err := add(&e); err != nil {
			return err
		}
	}
	if len(last) != 1 {
		return errBroken
	}
	return nil
}

var errBroken = errors.New("a broken listing")

func validName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxName && strings.IndexByte(s, '/') < 0 && strings.IndexByte(s, 0) < 0
}

// decoder reads pieces; after the first that is not there, bad is set and all are empty.
type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) take(n int) string {
	if d.bad || n < 0 || n > len(d.rest) {
		d.bad, d.rest = true, ""
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) number() uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		b := d.take(1)
		if b == "" || shift > 63 || shift == 63 && b[0] > 1 || b[0] == 0 && shift > 0 { // one form for each number
			d.bad, d.rest = true, ""
			return 0
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return v
		}
	}
}

func (d *decoder) signed() int64 {
	u := d.number()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, ""
		return ""
	}
	return d.take(int(n))
}

func (d *decoder) xattrs() []Xattr {
	n := d.number()
	if n > 64 {
		d.bad = true
		return nil
	}
	var out []Xattr
	for range n {
		x := Xattr{d.text(), d.text()}
		if len(out) > 0 && x.Name <= out[len(out)-1].Name {
			d.bad = true
		}
		out = append(out, x)
	}
	return out
}

// SortXattrs puts them in the order of a listing.
func SortXattrs(list []Xattr) {
	slices.SortFunc(list, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
}
