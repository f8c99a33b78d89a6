// Package logs reads what the supervisor writes: json-file logs and their
// rotated files, at rest or while they grow.
//
//	log     path, the newest file, and path.1, path.2, … the older ones
//	entry   one line of a file: {"log":"text\n","stream":"stdout","time":"…"}
//	chain   the open files of a log that are still to be read, oldest first
//
// The writer only appends, and rotates by renaming, so a file that is open here
// can be read to its end whatever becomes of its name; then the file that came
// after it is looked for, by inode. A line without newline at the end of a
// file is not read before it has one: it may be cut back. Lines that are no
// entries (what a crash left) are skipped.
package logs

import (
	"context"
	"time"
)

// Options select entries. Follow ends when ctx does, or when running says false and all was read.
type Options struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound; both are included
	Tail           int       // entries from the end, of both streams and before the other selections; < 0: all
	Follow         bool
	Running        func() bool // still producing? asked before the end of the file is looked for; nil: for ever
}

// Entry is one write of the container, usually one line with its newline.
type Entry struct {
	Time   time.Time
	Stream string            // "stdout" or "stderr"
	Line   []byte            // valid until the next call
	Attrs  map[string]string // not to be changed
}

// Read calls f for each entry in order, through rotations without gap or repeat.
// Tail reads from the end of the file. A log that does not exist has no entries; to follow
// it is to wait for it. An error of f ends the reading and is returned.
func Read(ctx context.Context, path string, o Options, f func(Entry) error) error {
	r := &reader{path: path, options: o, emit: f}
	defer r.close()
	if err := r.begin(); err != nil {
		return err
	}
	if !o.Follow {
		_, err := r.readAll(ctx)
		return err
	}
	return r.follow(ctx)
}
