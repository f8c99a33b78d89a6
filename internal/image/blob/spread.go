package blob

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Block is the unit, in bytes, in which the parts of a spread arrival are known.
const Block = 256 << 10

// aheadSuffix names the file beside an arrival that has a byte per Block: 1 if the block is there.
const aheadSuffix = ".ahead"

// Spread is an arrival whose bytes come from several places at once, in any order. What came is known
// block by block, also to a later Writer after a crash. One goroutine goes through the bytes in order, with the Writer's Write (for
// what comes in order) and Absorb; others use WriteAt and Done.
type Spread struct {
	w    *Writer
	size int64

	mu   sync.Mutex // guards all below
	side *os.File
	have []bool
}

// Spread turns the arrival of size bytes into a spread one. Offset stays; blocks after it may be there already.
func (w *Writer) Spread(size int64) (*Spread, error) {
	if w.spread != nil {
		return w.spread, nil
	}
	side, err := os.OpenFile(w.f.Name()+aheadSuffix, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	s := &Spread{w: w, size: size, side: side, have: make([]bool, (size+Block-1)/Block)}
	known, err := io.ReadAll(io.LimitReader(side, int64(len(s.have))))
	if err != nil {
		side.Close()
		return nil, err
	}
	for i, b := range known {
		s.have[i] = b == 1
	}
	for i := range w.offset / Block {
		if !s.have[i] {
			if err := s.note(i); err != nil {
				side.Close()
				return nil, err
			}
		}
	}
	w.spread = s
	return s, nil
}

// Spreads tells whether an earlier transfer left blocks after Offset.
func (w *Writer) Spreads() bool {
	_, err := os.Stat(w.f.Name() + aheadSuffix)
	return err == nil
}

// Blocks is how many there are; the last may be short.
func (s *Spread) Blocks() int64 { return int64(len(s.have)) }

// Have tells whether a block is there.
func (s *Spread) Have(block int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have[block]
}

// WriteAt stores bytes that are not (yet) verified.
func (s *Spread) WriteAt(p []byte, offset int64) error {
	_, err := s.w.f.WriteAt(p, offset)
	return err
}

// Done notes that all of a block is there.
func (s *Spread) Done(block int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have[block] {
		return nil
	}
	return s.note(block)
}

// note is called with mu held, or before s is shared.
func (s *Spread) note(block int64) error {
	if _, err := s.side.WriteAt([]byte{1}, block); err != nil {
		return err
	}
	s.have[block] = true
	return nil
}

// Absorb reads the next bytes, up to the end of a block that is there, and counts them as arrived.
func (s *Spread) Absorb(p []byte) (int, error) {
	w := s.w
	at := w.offset
	p = p[:min(int64(len(p)), (at/Block+1)*Block-at, s.size-at)]
	n, err := w.f.ReadAt(p, at)
	if n == len(p) {
		err = nil
	}
	w.hash.Hash().Write(p[:n])
	w.offset += int64(n)
	return n, err
}

// arrived notes the blocks that sequential writing filled.
func (s *Spread) arrived(from, to int64) error {
	for b := from / Block; b < (to+Block-1)/Block; b++ {
		if end := min((b+1)*Block, s.size); to >= end {
			if err := s.Done(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// close lets go of the side file; with forget it is removed.
func (w *Writer) closeSpread(forget bool) {
	if w.spread != nil {
		w.spread.side.Close()
		w.spread = nil
	}
	if forget && w.locked {
		os.Remove(w.store.ingestPath(w.want) + aheadSuffix)
	}
}

// prefix is how many bytes of an earlier transfer are known to be there from the start, of size in the file.
func (w *Writer) prefix(size int64) (int64, error) {
	known, err := os.ReadFile(w.store.ingestPath(w.want) + aheadSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return size, nil
	}
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for n < int64(len(known)) && known[n] == 1 {
		n++
	}
	return min(n*Block, size), nil
}
