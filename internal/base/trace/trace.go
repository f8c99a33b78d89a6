// Package trace records which box did what, in what order, so that a flow through the engine can be
// read, and held by a golden file (test/traces). It is off unless a file is given, and then costs one atomic load a step.
//
//	step       one thing that one box did: box, verb, and the object (its kind, then its id or name)
//	operation  what one request at the door, or one fact from below such as an exit, leads to
//	branch     a part of an operation that runs beside others
//
// Operations and branches are lanes: the steps of one lane are in order. Lanes travel in contexts:
//
//	ctx = trace.Begin(ctx, "server", "POST", "/containers/create", "")
//	trace.Step(ctx, "image", "get", "image", name)
//	left, right := trace.Beside(ctx), trace.Beside(ctx) // before the goroutines, so that their order is always the same
//
// A step is recorded when it begins (when it has ended, if only then its object has an id), by the box that does it, or by
// its caller where it takes no context. The file has one line a step:
//
//	lane TAB parent lane (0: an operation) TAB box TAB verb TAB kind TAB object
package trace

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

type lane struct{ id, parent uint64 }

type laneKey struct{}

// recorder writes whole lines to a file opened for appending, which the kernel keeps apart.
type recorder struct {
	file  *os.File
	lanes atomic.Uint64 // the last id given
}

var current atomic.Pointer[recorder]

// ToFile appends all steps from now on to a file; "" is off.
func ToFile(path string) error {
	var r *recorder
	if path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return fmt.Errorf("cannot open the trace: %w", err)
		}
		r = &recorder{file: f}
	}
	if old := current.Swap(r); old != nil {
		return old.file.Close()
	}
	return nil
}

// On tells whether steps are recorded, for callers that would have to build a text.
func On() bool { return current.Load() != nil }

// Step records one step in the lane of ctx.
func Step(ctx context.Context, box, verb, kind, object string) {
	if r := current.Load(); r != nil {
		r.write(laneOf(ctx), box, verb, kind, object)
	}
}

// Begin starts an operation with its first step.
func Begin(ctx context.Context, box, verb, kind, object string) context.Context {
	r := current.Load()
	if r == nil {
		return ctx
	}
	l := lane{id: r.lanes.Add(1)}
	r.write(l, box, verb, kind, object)
	return context.WithValue(ctx, laneKey{}, l)
}

// Beside starts a branch. The branches started between two steps of a lane run beside each other; the later step waits for them all.
func Beside(ctx context.Context) context.Context {
	r := current.Load()
	if r == nil {
		return ctx
	}
	return context.WithValue(ctx, laneKey{}, lane{id: r.lanes.Add(1), parent: laneOf(ctx).id})
}

func laneOf(ctx context.Context) lane {
	l, _ := ctx.Value(laneKey{}).(lane)
	return l
}

// fields are separated by tabs and ended by a newline, so neither may be in them.
var clean = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")

func (r *recorder) write(l lane, fields ...string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d\t%d", l.id, l.parent)
	for _, f := range fields {
		b.WriteByte('\t')
		clean.WriteString(&b, f)
	}
	b.WriteByte('\n')
	r.file.WriteString(b.String()) // a full disk is no reason to fail what is traced
}
