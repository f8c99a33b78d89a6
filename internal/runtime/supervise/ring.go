package supervise

import (
	"bytes"
	"sync"
	"time"
)

// closeTime is how long the end of a process waits for a log in the mode non-blocking to be written.
const closeTime = 200 * time.Millisecond

// ring is what a log in the mode non-blocking gathers while the disk is busy: when it is full, what comes is dropped, as
// Docker does. A single goroutine writes the rings of all containers, and only while one has something.
type ring struct {
	w       *writer
	max     int    // bytes of text
	entries []byte // whole, one a line
	count   int
	size    int // bytes of text in entries
	dropped int
	queued  bool
	closing chan struct{} // closed when all is written and the file is closed; nil before close
}

// writer is the goroutine that writes rings.
type writer struct {
	post func(func())

	mu    sync.Mutex // guards what follows, and all rings
	queue []*logFile
	runs  bool
}

// working tells whether something is being written.
func (w *writer) working() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs
}

// add puts an entry for that many bytes of text into the ring, if they find room. A single entry always does.
func (f *logFile) add(entry []byte, text int) {
	r := f.ring
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.count > 0 && r.size+text > r.max {
		r.dropped++
		return
	}
	r.entries = append(r.entries, entry...)
	r.count++
	r.size += text
	r.w.wake(f)
}

// wake wants mu.
func (w *writer) wake(f *logFile) {
	if !f.ring.queued {
		f.ring.queued = true
		w.queue = append(w.queue, f)
	}
	if !w.runs {
		w.runs = true
		go w.run()
	}
}

func (w *writer) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		f := w.queue[0]
		w.queue = w.queue[1:]
		r := f.ring
		// What is being written still counts as in the ring: the room is given back when it is on its way.
		batch, count, size, dropped := r.entries, r.count, r.size, r.dropped
		r.entries, r.dropped, r.queued = nil, 0, false
		closing := r.closing
		w.mu.Unlock()
		f.writeBatch(batch, dropped)
		if closing != nil {
			f.shut()
			close(closing)
		}
		w.mu.Lock()
		r.count -= count
		r.size -= size
	}
	w.queue = nil
	w.runs = false
}

// writeBatch writes entries, with rotations in between.
func (f *logFile) writeBatch(batch []byte, dropped int) {
	if dropped > 0 && time.Since(f.toldAt) > 10*time.Second {
		f.toldAt = time.Now()
		f.complain("container %s: log %s is behind by its max-buffer-size: %d entries were dropped", f.name, f.config.Path, dropped)
	}
	for len(batch) > 0 {
		if f.full(0) {
			f.rotate()
		}
		n, entries := 0, 0
		for n < len(batch) && (n == 0 || !f.full(n) && n < flushSize) {
			n += bytes.IndexByte(batch[n:], '\n') + 1
			entries++
		}
		f.flush(batch[:n], entries)
		batch = batch[n:]
	}
}

// finish has the rest written and the file closed, and waits for it a little.
func (r *ring) finish(f *logFile) {
	done := make(chan struct{})
	r.w.mu.Lock()
	r.closing = done
	r.w.wake(f)
	r.w.mu.Unlock()
	select {
	case <-done:
	case <-time.After(closeTime):
	}
}
