// Package source holds the files that COPY and ADD read.
//
//	tree     files under a root of their own; no path in it, and no symlink, leads out
//	entry    one file of a tree
//	archive  a tree that came as a tar: the names are in memory, the contents lie behind each other in
//	         one unlinked file (the spool), hashed while they arrive; or that came as a
//	         listing, with contents that are fetched when they are needed
//
// Because an archive is never unpacked, a hostile tar has nothing to escape from, a build
// whose steps are all cached writes no file but the spool, and a crash leaves nothing behind.
package source

import (
	"io"
	"io/fs"
	"time"
)

// Tree is a source of files. Names are absolute and slash-separated.
type Tree interface {
	// Stat finds an entry. Symlinks before the last part are followed inside the tree; in the
	// last part with follow. Errors match fs.ErrNotExist.
	Stat(name string, follow bool) (*Entry, error)
	// List returns a folder's entries, sorted by name.
	List(dir *Entry) ([]*Entry, error)
	// Open reads a regular file.
	Open(file *Entry) (io.ReadCloser, error)
}

// Entry is one file of a tree.
type Entry struct {
	Path     string      // in the tree, without symlinks; "/" is the root
	Name     string      // the last part, "" for the root
	Mode     fs.FileMode // type, permissions, setuid, setgid, sticky
	UID, GID int
	Size     int64
	ModTime  time.Time
	Link     string            // a symlink's target, as it is
	Dev      uint64            // a device's number, as in stat(2)
	Xattrs   map[string]string // security.capability and user.*
	Sum      []byte            // SHA-256 of the content where it is known already
	Implied  bool              // a folder that a tar did not list, but put files in
	Same     any               // equal and not nil for names of one file (hard links)

	node *node
}

// IsDir tells whether the entry is a folder.
func (e *Entry) IsDir() bool { return e.Mode.IsDir() }
