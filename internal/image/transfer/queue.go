package transfer

import (
	"context"
	"io"
	"sync"
)

// Chunks are long enough that handing one over costs nothing against filling it, and few enough that all layers
// of a pull together hold some megabytes.
const (
	chunkSize  = 256 << 10
	chunkCount = 6
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

// queue hands the bytes of one writer to one reader, chunk by chunk, without copying. The reader may stop
// early; the writer does not block then.
type queue struct {
	ctx     context.Context
	full    chan []byte
	free    chan *[]byte
	used    []*[]byte     // by the writer, in order: full's bytes are theirs
	mu      sync.Mutex    // guards used and err
	err     error         // of the writer, for the reader after the last chunk
	stopped chan struct{} // closed when the reader is gone
	stop    sync.Once
	rest    []byte // of the chunk being read
	current bool   // a chunk is being read
}

func newQueue(ctx context.Context) *queue {
	q := &queue{ctx: ctx, full: make(chan []byte, chunkCount), free: make(chan *[]byte, chunkCount), stopped: make(chan struct{})}
	for range chunkCount {
		q.free <- chunks.Get().(*[]byte)
	}
	return q
}

// buffer waits for a free chunk; nil when there is no reader any more (a chunk of the writer's own is to be used).
func (q *queue) buffer() *[]byte {
	select {
	case b := <-q.free:
		return b
	case <-q.stopped:
		return nil
	case <-q.ctx.Done():
		return nil
	}
}

// put hands over the first n bytes of a chunk that buffer returned.
func (q *queue) put(b *[]byte, n int) {
	q.mu.Lock()
	q.used = append(q.used, b)
	q.mu.Unlock()
	q.full <- (*b)[:n] // never blocks: there are no more chunks than places
}

// finish ends the stream; err nil is a good end.
func (q *queue) finish(err error) {
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	close(q.full)
}

// abandon tells the writer that nobody reads any more.
func (q *queue) abandon() { q.stop.Do(func() { close(q.stopped) }) }

func (q *queue) Read(p []byte) (int, error) {
	for len(q.rest) == 0 {
		if q.current {
			q.mu.Lock()
			b := q.used[0]
			q.used = q.used[1:]
			q.mu.Unlock()
			q.free <- b
			q.current = false
		}
		select {
		case c, ok := <-q.full:
			if !ok {
				q.mu.Lock()
				defer q.mu.Unlock()
				if q.err != nil {
					return 0, q.err
				}
				return 0, io.EOF
			}
			q.rest, q.current = c, true
		case <-q.ctx.Done():
			return 0, context.Cause(q.ctx)
		}
	}
	n := copy(p, q.rest)
	q.rest = q.rest[n:]
	return n, nil
}

// release gives the chunks back. Both sides have to be done.
func (q *queue) release() {
	for {
		select {
		case b := <-q.free:
			chunks.Put(b)
		default:
			return
		}
	}
}
