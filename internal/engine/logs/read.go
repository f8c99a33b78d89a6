package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"tare/internal/base/fault"
)

// maxEntry is the longest line in bytes that is taken for an entry.
const maxEntry = 4 << 20

// errPast ends the reading: an entry is later than Until.
var errPast = errors.New("past the end")

// reader is one Read.
type reader struct {
	path    string
	options Options
	emit    func(Entry) error
	chain   []*file // the first is being read
	buf     []byte
	parser  parser
}

func (r *reader) close() { closeAll(r.chain) }

// begin opens the files and finds where to start.
func (r *reader) begin() (err error) {
	if r.chain, err = openNewer(r.path, nil); err != nil {
		return err
	}
	if r.options.Tail >= 0 {
		r.chain, err = seekTail(r.chain, r.options.Tail)
	} else if !r.options.Since.IsZero() {
		r.chain = dropBefore(r.chain, r.options.Since)
	}
	return err
}

// readAll emits what there is now. past tells that entries later than Until were reached.
func (r *reader) readAll(ctx context.Context) (past bool, err error) {
	for {
		var cur *file
		if len(r.chain) > 0 {
			cur = r.chain[0]
			if err := r.readFile(ctx, cur); err != nil {
				return errors.Is(err, errPast), ignorePast(err)
			}
		}
		if len(r.chain) < 2 {
			newer, err := openNewer(r.path, cur)
			if err != nil {
				return false, err
			}
			if len(newer) == 0 {
				return false, nil
			}
			r.chain = append(r.chain, newer...)
			if cur == nil {
				continue
			}
			// It was renamed, so nobody writes to it any more, but may have since we read it.
			if err := r.readFile(ctx, cur); err != nil {
				return errors.Is(err, errPast), ignorePast(err)
			}
		}
		r.chain = r.chain[1:]
		cur.Close()
	}
}

func ignorePast(err error) error {
	if errors.Is(err, errPast) {
		return nil
	}
	return err
}

// readFile emits the entries from f.off to the last newline.
func (r *reader) readFile(ctx context.Context, f *file) error {
	if r.buf == nil {
		r.buf = make([]byte, 64<<10)
	}
	if err := f.unpack(); err != nil {
		return fault.Internal("cannot read log: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.Size() < f.off {
		f.off = 0 // somebody emptied the file
	}
	skipping := false // a line that is too long to be an entry
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.ReadAt(r.buf, f.off)
		if err != nil && err != io.EOF {
			return fault.Internal("cannot read log: %w", err)
		}
		end := err == io.EOF
		b := r.buf[:n]
		for {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				break
			}
			line := b[:i]
			b = b[i+1:]
			f.off += int64(i) + 1
			if skipping {
				skipping = false
				continue
			}
			if err := r.take(line); err != nil {
				return err
			}
		}
		switch {
		case end:
			return nil
		case len(b) < len(r.buf):
		case len(r.buf) < maxEntry:
			r.buf = make([]byte, 4*len(r.buf))
		default:
			f.off += int64(len(b))
			skipping = true
		}
	}
}

// take emits a line's entry if it is one, and selected.
func (r *reader) take(line []byte) error {
	e, ok := r.parser.parse(line)
	o := &r.options
	switch {
	case !ok:
		return nil
	case !o.Until.IsZero() && e.Time.After(o.Until):
		return errPast
	case !o.Since.IsZero() && e.Time.Before(o.Since):
		return nil
	case e.Stream == "stderr" && !o.Stderr, e.Stream != "stderr" && !o.Stdout:
		return nil
	}
	return r.emit(e)
}

// tick is how often a follower asks Running, and looks without being told.
const tick = 100 * time.Millisecond

// follow emits what there is and what comes.
func (r *reader) follow(ctx context.Context) error {
	w := newWatcher(r.path)
	defer w.close()
	for {
		if len(r.chain) > 0 {
			w.watch(r.chain[len(r.chain)-1])
		}
		// Asked first: what was written before the end is then read for certain.
		ended := r.options.Running != nil && !r.options.Running()
		if u := r.options.Until; !u.IsZero() && time.Now().After(u) {
			ended = true
		}
		last := r.newest()
		past, err := r.readAll(ctx)
		if err != nil || past || ended {
			return err
		}
		if r.newest() != last {
			continue // a new file, which is not watched yet
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

func (r *reader) newest() *file {
	if len(r.chain) == 0 {
		return nil
	}
	return r.chain[len(r.chain)-1]
}
