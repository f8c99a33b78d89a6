package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"tare/internal/image/blob"
	"tare/internal/image/registry"
)

// A large blob that comes slowly is fetched by several connections: most of what limits one of them (a far registry's
// window, a proxy's share) does not limit four. It starts as any other; the main connection asks for help when it mostly waits for the
// network. Helpers write into the arriving file, after the place that the main one has reached, segment by segment; when it
// gets there the bytes go the usual way, from the page cache.
const (
	segment     = 16 // blocks that one request of a helper asks for: 4 MiB
	maxHelpers  = 3  // of one blob
	maxStreams  = 6  // connections that bring layers, of all pulls; where there are more layers, there is no need for help
	worthHelp   = 8 << 20
	lookForHelp = 500 * time.Millisecond
)

// source gives a blob's bytes in order, from the writer's offset on.
type source struct {
	a       *arrival
	ctx     context.Context
	w       *blob.Writer
	body    io.ReadCloser // the main connection, at the offset; nil if there is none
	bodyEnd int64
	mine    int64 // the main connection's claim ends before this block
	crew    *crew // nil while there is one connection only

	since  time.Time // the last look whether help is needed
	waited time.Duration
}

// open starts at the writer's offset.
func (a *arrival) open(ctx context.Context, w *blob.Writer) (*source, error) {
	s := &source{a: a, ctx: ctx, w: w, since: time.Now()}
	if w.Offset() < a.desc.Size && w.Spreads() {
		if err := s.spread(); err != nil {
			return nil, err
		}
	}
	if s.crew == nil { // else the first read does, for a segment
		if err := s.connect(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Read is for the bytes that come next. Each call gives those of one place: absorbed tells that they were in the file already.
func (s *source) read(p []byte) (n int, absorbed bool, err error) {
	for {
		at := s.w.Offset()
		switch {
		case at >= s.a.desc.Size:
			return 0, false, io.EOF
		case s.crew == nil:
			n, err := s.fromNetwork(p, s.a.desc.Size-at)
			if err == io.EOF && at+int64(n) < s.a.desc.Size {
				err = io.ErrUnexpectedEOF
			}
			s.look()
			return n, false, err
		case s.ahead():
			s.disconnect()
			n, err := s.crew.spread.Absorb(p)
			return n, true, err
		}
		block := at / blob.Block
		if block >= s.mine {
			end, ok := s.crew.claimAt(block)
			if !ok {
				s.disconnect()
				began := time.Now()
				select {
				case <-s.crew.wake:
				case <-s.ctx.Done():
					return 0, false, context.Cause(s.ctx)
				}
				s.waited += time.Since(began)
				s.look()
				continue
			}
			s.mine = end
		}
		if s.body == nil {
			if err := s.connect(); err != nil {
				return 0, false, err
			}
		}
		n, err := s.fromNetwork(p, min(s.mine*blob.Block, s.a.desc.Size)-at)
		if err == io.EOF {
			s.disconnect() // the range's end
			if err = nil; n == 0 {
				continue
			}
		}
		s.look()
		return n, false, err
	}
}

// fill is read until p is full, the place changes or the blob ends; io.EOF comes alone.
func (s *source) fill(p []byte) (n int, absorbed bool, err error) {
	n, absorbed, err = s.read(p)
	if absorbed || s.crew != nil {
		return n, absorbed, err
	}
	for n < len(p) && err == nil && s.crew == nil && s.body != nil {
		var more int
		more, err = s.fromNetwork(p[n:], s.a.desc.Size-s.w.Offset()-int64(n))
		n += more
	}
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, false, err
}

func (s *source) fromNetwork(p []byte, most int64) (int, error) {
	began := time.Now()
	n, err := s.body.Read(p[:min(int64(len(p)), most)])
	s.waited += time.Since(began)
	return n, err
}

func (s *source) ahead() bool { return s.crew.spread.Have(s.w.Offset() / blob.Block) }

// connect opens the main connection at the offset: to the end, or where there is a crew to the end of the claim.
func (s *source) connect() error {
	at := s.w.Offset()
	var err error
	if s.crew != nil && !s.crew.alone() {
		if s.bodyEnd = s.a.desc.Size; s.mine > at/blob.Block {
			s.bodyEnd = min(s.mine*blob.Block, s.a.desc.Size)
		}
		s.body, err = s.a.repo.BlobRange(s.ctx, s.a.desc, at, s.bodyEnd)
		if err == nil || !errors.Is(err, registry.ErrNoRanges) {
			return err
		}
		s.crew.dismiss()
	}
	s.bodyEnd = s.a.desc.Size
	s.body, err = s.a.repo.Blob(s.ctx, s.a.desc, at)
	return err
}

func (s *source) disconnect() {
	if s.body != nil {
		s.body.Close()
		s.body = nil
	}
}

// Close ends all connections, and waits for those who use them.
func (s *source) Close() {
	s.disconnect()
	if s.crew != nil {
		s.crew.close()
	}
}

// look asks for help if the main connection mostly waited since the last look.
func (s *source) look() {
	now := time.Now()
	period := now.Sub(s.since)
	if period < s.a.s.lookForHelp {
		return
	}
	waits := s.waited > period*7/10
	s.since, s.waited = now, 0
	if !waits || s.a.desc.Size-s.w.Offset() < worthHelp {
		return
	}
	if s.crew == nil && s.spread() != nil {
		return // it goes on alone
	}
	s.crew.hire()
}

// spread makes the arrival one that others can help with.
func (s *source) spread() error {
	sp, err := s.w.Spread(s.a.desc.Size)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.crew = &crew{a: s.a, ctx: ctx, cancel: cancel, spread: sp, claimed: make([]bool, sp.Blocks()), wake: make(chan struct{}, 1)}
	return nil
}

// crew are the helpers of one blob.
type crew struct {
	a      *arrival
	ctx    context.Context
	cancel context.CancelFunc
	spread *blob.Spread
	group  sync.WaitGroup
	wake   chan struct{} // something changed that the main connection may wait for

	mu        sync.Mutex // guards all below
	claimed   []bool
	front     int64 // where the main connection is
	helpers   int
	dismissed bool
}

// claimAt is the main connection's claim of a segment from block on; false if somebody else has it.
func (c *crew) claimAt(block int64) (end int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.front = block
	if c.claimed[block] && !c.spread.Have(block) {
		return 0, false
	}
	return c.take(block), true
}

// claim is a helper's: the first segment that nobody has.
func (c *crew) claim() (start, end int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dismissed {
		return 0, 0, false
	}
	for b := c.front; b < int64(len(c.claimed)); b++ {
		if !c.claimed[b] && !c.spread.Have(b) {
			return b, c.take(b), true
		}
	}
	return 0, 0, false
}

// take is called with mu held.
func (c *crew) take(block int64) (end int64) {
	for end = block; end < min(block+segment, int64(len(c.claimed))) && (end == block || !c.claimed[end] && !c.spread.Have(end)); end++ {
		c.claimed[end] = true
	}
	return end
}

func (c *crew) giveBack(start, end int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.claimed[start:end])
}

// dismiss lets no helper begin anything any more.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
}

func (c *crew) alone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dismissed
}

// hire starts another helper, if there may be one.
func (c *crew) hire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dismissed || c.helpers >= maxHelpers || !c.a.s.streams.more() {
		return
	}
	c.helpers++
	c.group.Go(func() {
		c.help()
		c.a.s.streams.end()
		c.mu.Lock()
		c.helpers--
		c.mu.Unlock()
		c.tell()
	})
}

func (c *crew) tell() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// help fetches segments until none is left, or one fails: what it had is free for others then.
func (c *crew) help() {
	buf := make([]byte, blob.Block)
	for {
		start, end, ok := c.claim()
		if !ok {
			return
		}
		got, err := c.fetch(start, end, buf)
		if err != nil {
			c.giveBack(got, end)
			if errors.Is(err, registry.ErrNoRanges) {
				c.dismiss()
			}
			return
		}
	}
}

// fetch brings the blocks from start to end; got is the first that is missing.
func (c *crew) fetch(start, end int64, buf []byte) (got int64, err error) {
	size := c.a.desc.Size
	body, err := c.a.repo.BlobRange(c.ctx, c.a.desc, start*blob.Block, min(end*blob.Block, size))
	if err != nil {
		return start, err
	}
	defer body.Close()
	for b := start; b < end; b++ {
		n := min(blob.Block, size-b*blob.Block)
		if _, err := io.ReadFull(body, buf[:n]); err != nil {
			return b, err
		}
		if err := c.spread.WriteAt(buf[:n], b*blob.Block); err != nil {
			return b, err
		}
		if err := c.spread.Done(b); err != nil {
			return b, err
		}
		c.tell()
	}
	return end, nil
}

func (c *crew) close() {
	c.dismiss()
	c.cancel()
	c.group.Wait()
}

// streams counts the connections that bring layers.
type streams struct {
	mu  sync.Mutex // guards n
	now int
}

func (s *streams) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now++
}

func (s *streams) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
}

// more is begin for a helper; false if there are enough.
func (s *streams) more() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now >= maxStreams {
		return false
	}
	s.now++
	return true
}
