package compress

import (
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// frameSize is how many bytes go into one zstd frame. Frames don't know each other (RFC 8878, 3.1), so that they are made at the same time, and
// their bounds, not the number of processors, decide the result.
const frameSize = 4 << 20

// frames compresses a stream with zstd, frame by frame.
type frames struct {
	enc    *zstd.Encoder
	todo   chan frame
	order  chan chan []byte
	free   chan []byte
	buf    []byte
	closed bool
	err    error // of the writer; valid after done
	done   chan struct{}
}

type frame struct {
	data   []byte
	result chan []byte
}

func newFrames(w io.Writer) (*frames, error) {
	n := min(runtime.NumCPU(), 4)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(n), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	f := &frames{enc: enc, todo: make(chan frame, n), order: make(chan chan []byte, n), free: make(chan []byte, 2*n+2), done: make(chan struct{})}
	for range n {
		go func() {
			for job := range f.todo {
				job.result <- enc.EncodeAll(job.data, make([]byte, 0, len(job.data)/2))
				select {
				case f.free <- job.data[:0]:
				default:
				}
			}
		}()
	}
	go func() {
		defer close(f.done)
		for result := range f.order {
			data := <-result
			if f.err == nil {
				_, f.err = w.Write(data)
			}
		}
	}()
	return f, nil
}

func (f *frames) Write(p []byte) (n int, err error) {
	if f.closed {
		return 0, io.ErrClosedPipe
	}
	for len(p) > 0 {
		if f.buf == nil {
			select {
			case f.buf = <-f.free:
			default:
				f.buf = make([]byte, 0, frameSize)
			}
		}
		part := p[:min(len(p), frameSize-len(f.buf))]
		f.buf = append(f.buf, part...)
		p, n = p[len(part):], n+len(part)
		if len(f.buf) == frameSize {
			f.send()
		}
	}
	return n, nil
}

func (f *frames) send() {
	result := make(chan []byte, 1)
	f.order <- result
	f.todo <- frame{f.buf, result}
	f.buf = nil
}

// Close ends the stream; its error is the first of the writer below.
func (f *frames) Close() error {
	if f.closed {
		return f.err
	}
	f.closed = true
	f.send() // the rest; an empty stream is one empty frame
	close(f.todo)
	close(f.order)
	<-f.done
	f.enc.Close()
	return f.err
}
