// Package logs reads what the supervisor writes: json-file logs and their rotated files.
package logs

import (
	"context"
	"time"

	"tare/internal/base/fault"
)

// Options select entries. Follow ends when ctx does, or when running says false and all was read.
type Options struct {
	Stdout, Stderr bool
	Since, Until   time.Time
	Tail           int // entries from the end; < 0: all
	Follow         bool
	Running        func() bool // still producing? asked at the end of the file
}

// Entry is one write of the container, usually one line with its newline.
type Entry struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	Line   []byte // valid until the next call
	Attrs  map[string]string
}

// Read calls f for each entry in order, through rotations without gap or repeat. --tail reads from the end of the file.
func Read(ctx context.Context, path string, o Options, f func(Entry) error) error {
	return fault.Unsupported("")
}
