package solve

import (
	"context"
	"sync"
	"unicode/utf8"
)

// logLimit is how much unread output a log keeps, in bytes.
const logLimit = 8 << 20

// Log is a step's output: one or more writers, any number of readers, each from the start. Writing never
// blocks; a reader that falls more than logLimit behind misses what is between.
type Log struct {
	mu     sync.Mutex
	buf    []byte
	base   int64 // position of buf[0]
	closed bool
	wake   chan struct{} // closed and replaced at every change
}

// NewLog makes an empty log.
func NewLog() *Log { return &Log{wake: make(chan struct{})} }

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - logLimit; over > 0 {
		over += logLimit / 4 // not for every write
		l.buf = append(l.buf[:0:0], l.buf[over:]...)
		l.base += int64(over)
	}
	close(l.wake)
	l.wake = make(chan struct{})
	return len(p), nil
}

// Close lets readers end.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.wake)
		l.wake = make(chan struct{})
	}
}

// Follow hands the output to f, in pieces that don't split a UTF-8 sequence, until Close or ctx's end.
func (l *Log) Follow(ctx context.Context, f func(text []byte)) {
	var at int64
	for {
		l.mu.Lock()
		wake, closed := l.wake, l.closed
		var text []byte
		clipped := at < l.base
		if clipped {
			at = l.base
		}
		text = append(text, l.buf[at-l.base:]...)
		l.mu.Unlock()
		if !closed {
			text = whole(text)
		}
		at += int64(len(text))
		if clipped {
			text = append([]byte("\n[output clipped]\n"), text...)
		}
		if len(text) > 0 {
			f(text)
			continue
		}
		if closed {
			return
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
	}
}

// whole cuts an unfinished UTF-8 sequence off the end.
func whole(p []byte) []byte {
	for i := len(p) - 1; i >= 0 && i >= len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return p[:i]
			}
			break
		}
	}
	return p
}
