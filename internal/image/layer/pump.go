package layer

import (
	"context"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

// A pump reads a stream ahead and feeds it to two readers at once, the hash and
// the unpacker, without copying:
//
//	source ──▶ chunk ──▶ hash
//	              └────▶ Read
//
// A chunk returns to the free list when both are done with it.
type pump struct {
	free  chan *chunk
	out   chan *chunk // to Read; closed at the end
	cur   *chunk
	done  chan struct{} // closed by stop
	group sync.WaitGroup
	err   error // of the source; valid once out is closed
}

type chunk struct {
	buf  []byte
	size int
	rest []byte // not yet read
	refs atomic.Int32
}

const (
	chunkSize  = 256 << 10
	chunkCount = 8
)

var chunkPool = sync.Pool{New: func() any { return &chunk{buf: make([]byte, chunkSize)} }}

// newPump starts reading r. Close must be called.
func newPump(ctx context.Context, r io.Reader, h hash.Hash) *pump {
	p := &pump{
		free: make(chan *chunk, chunkCount),
		out:  make(chan *chunk, chunkCount),
		done: make(chan struct{}),
	}
	for range chunkCount {
		p.free <- chunkPool.Get().(*chunk)
	}
	hashed := make(chan *chunk, chunkCount)
	p.group.Go(func() {
		for c := range hashed {
			h.Write(c.buf[:c.size])
			p.release(c)
		}
	})
	p.group.Go(func() {
		defer close(p.out)
		defer close(hashed)
		p.err = p.fill(ctx, r, hashed)
	})
	return p
}

func (p *pump) fill(ctx context.Context, r io.Reader, hashed chan<- *chunk) error {
	for {
		var c *chunk
		select {
		case c = <-p.free:
		case <-p.done:
			return io.ErrClosedPipe
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		n, err := readFull(r, c.buf)
		if n > 0 {
			c.size, c.rest = n, c.buf[:n]
			c.refs.Store(2)
			hashed <- c
			p.out <- c
		} else {
			p.free <- c
		}
		if err != nil {
			return err
		}
	}
}

// readFull fills buf unless the stream ends; io.EOF then comes with the last bytes, and any other error as it is.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var nn int
		nn, err = r.Read(buf[n:])
		n += nn
	}
	return n, err
}

func (p *pump) release(c *chunk) {
	if c.refs.Add(-1) == 0 {
		p.free <- c
	}
}

func (p *pump) Read(b []byte) (int, error) {
	for p.cur == nil || len(p.cur.rest) == 0 {
		if p.cur != nil {
			p.release(p.cur)
			p.cur = nil
		}
		c, ok := <-p.out
		if !ok {
			return 0, p.err
		}
		p.cur = c
	}
	n := copy(b, p.cur.rest)
	p.cur.rest = p.cur.rest[n:]
	return n, nil
}

// drain reads to the end of the stream and waits until all of it is hashed.
func (p *pump) drain() error {
	if p.cur != nil {
		p.release(p.cur)
		p.cur = nil
	}
	for c := range p.out {
		p.release(c)
	}
	p.group.Wait()
	if p.err != io.EOF {
		return p.err
	}
	return nil
}

// Close ends the reading. It waits for a Read of the source that is under way.
func (p *pump) Close() {
	close(p.done)
	for c := range p.out {
		p.release(c)
	}
	p.group.Wait()
	for {
		select {
		case c := <-p.free:
			chunkPool.Put(c)
		default:
			return
		}
	}
}
