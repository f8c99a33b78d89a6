package output

import (
	"bytes"
	"io"
	"sync"
)

// Lines lets several streams share one output without cutting each other's lines: each goes out whole, with the
// prefix of its stream.
type Lines struct {
	mu  sync.Mutex
	out io.Writer
}

// NewLines shares out.
func NewLines(out io.Writer) *Lines { return &Lines{out: out} }

// Stream is one stream's writer. Close writes a last line that has no end.
func (l *Lines) Stream(prefix string) io.WriteCloser {
	return &lineStream{lines: l, prefix: []byte(prefix)}
}

// lineLimit is how long a line may be, in bytes, before it goes out in parts.
const lineLimit = 64 << 10

type lineStream struct {
	lines  *Lines
	prefix []byte
	held   []byte // of a line whose end is not yet there
}

func (s *lineStream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.held = append(s.held, p...)
			if len(s.held) < lineLimit {
				return n, nil
			}
			return n, s.Close()
		}
		if err := s.put(p[:end]); err != nil {
			return 0, err
		}
		p = p[end+1:]
	}
	return n, nil
}

func (s *lineStream) put(end []byte) error {
	line := make([]byte, 0, len(s.prefix)+len(s.held)+len(end)+1)
	line = append(append(append(append(line, s.prefix...), s.held...), end...), '\n')
	s.held = s.held[:0]
	s.lines.mu.Lock()
	defer s.lines.mu.Unlock()
	_, err := s.lines.out.Write(line)
	return err
}

func (s *lineStream) Close() error {
	if len(s.held) == 0 {
		return nil
	}
	return s.put(nil)
}
