// Package build is `tare build`.
//
//	node      a file of the context's folder, with what stat said of it
//	memory    the nodes of the last build of the folder, kept in the user's cache folder: a file that looks as it did
//	          then is not read again
//	listing   what the engine gets to know of the folder (internal/base/listing)
//	session   the conversation with the engine (internal/base/session)
//
// An engine that does not know sessions, Docker's, gets the folder as a tar.
package build

import (
	"tare/internal/base/listing"
)

// node is a file in the context's folder. The fields up to Skip are remembered.
type node struct {
	listing.Entry
	Dev, Ino uint64
	Changed  int64 // st_ctime, Unix nanoseconds
	Links    uint64
	At       int64 // when the content began to be read, Unix nanoseconds; 0: it was not
	Skip     bool  // the ignore file names it
	Children []*node
}

// same tells whether n, looked at now, is what old was: then old's content is n's.
func (n *node) same(old *node) bool {
	return n.Kind == old.Kind && n.Ino == old.Ino && n.Dev == old.Dev && n.Changed == old.Changed && n.Time == old.Time &&
		n.Size == old.Size && n.Mode == old.Mode && n.Links == old.Links && old.settled()
}

// How long after a change the clock of a file system may still give the same time to another one. Where times have
// fractions finer than hundredths of a second they come from the kernel's tick; else seconds, or FAT's two, are all there is.
const (
	fineTick   = 100e6 // ns
	coarseTick = 3e9
)

// settled tells whether the file had been left alone for long enough when it was read: a change after that has another time.
// A file from the future, after the clock was put back, never is.
func (n *node) settled() bool {
	if n.Kind != listing.File && n.Kind != listing.Symlink {
		return true
	}
	tick := int64(coarseTick)
	if n.Changed%10e6 != 0 {
		tick = fineTick
	}
	return n.At != 0 && n.Changed < n.At-tick
}
