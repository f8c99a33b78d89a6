package source

import (
	"io"
	"io/fs"
	"path"
	"time"

	"tare/internal/base/fault"
	"tare/internal/base/listing"
)

// Contents holds files' contents by their digests.
type Contents interface {
	// Open reads the content with that digest; reading it to the end fails if it is damaged.
	Open(sum listing.Digest, size int64) (io.ReadCloser, error)
}

// Known makes an archive of a listing, whose files are all 0:0. Its contents may come later than it is made. It needs no Close.
func Known(text []byte, contents Contents) (*Archive, error) {
	a := New()
	a.contents = contents
	cur := []*node{a.root}
	err := listing.Decode(text, func(e *listing.Entry) error {
		parent := cur[len(cur)-1]
		n := &node{Entry: Entry{Path: path.Join(parent.Path, e.Name), Name: e.Name, Mode: mode(e.Mode), ModTime: time.Unix(0, e.Time)}}
		for _, x := range e.Xattrs {
			if KeepXattr(x.Name) {
				if n.Xattrs == nil {
					n.Xattrs = map[string]string{}
				}
				n.Xattrs[x.Name] = x.Value
			}
		}
		switch e.Kind {
		case listing.File:
			n.data = &data{size: e.Size, sum: e.Sum, names: 1}
			n.Size, n.Sum = e.Size, n.data.sum[:]
		case listing.Dir:
			n.Mode |= fs.ModeDir
			n.children = map[string]*node{}
			cur = append(cur, n)
		case listing.Symlink:
			n.Link, n.Mode = e.Target, fs.ModeSymlink|0o777
		case listing.Pipe:
			n.Mode |= fs.ModeNamedPipe
		case listing.Char:
			n.Mode |= fs.ModeDevice | fs.ModeCharDevice
			n.Dev = e.Dev
		case listing.Block:
			n.Mode |= fs.ModeDevice
			n.Dev = e.Dev
		case listing.Link:
			first, err := a.walk("/"+e.Target, false)
			if err != nil || first.data == nil {
				return fault.Invalid("the hard link %s has no file to point at: %s", n.Path, e.Target)
			}
			p, name := n.Path, n.Name
			n.Entry, n.data = first.Entry, first.data
			n.Path, n.Name = p, name
			n.data.names++
		}
		parent.children[n.Name] = n
		a.count++
		return nil
	}, func() { cur = cur[:len(cur)-1] })
	if err != nil {
		return nil, fault.Invalid("the build context's listing is broken: %w", err)
	}
	return a, nil
}

// mode turns the lower bits of a stat mode into Go's.
func mode(m uint32) fs.FileMode {
	out := fs.FileMode(m & 0o777)
	if m&0o4000 != 0 {
		out |= fs.ModeSetuid
	}
	if m&0o2000 != 0 {
		out |= fs.ModeSetgid
	}
	if m&0o1000 != 0 {
		out |= fs.ModeSticky
	}
	return out
}

// Lazy tells whether the archive is of a listing, and its contents have to be fetched before they are read.
func (a *Archive) Lazy() bool { return a.contents != nil }
