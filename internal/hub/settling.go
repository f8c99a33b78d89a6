package hub

import (
	"fmt"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"tare/internal/image/settle"
)

// settling brings blobs to the disk while their push goes on. A blob is marked (package settle), renamed into place, and
// synced at once, in the background; the push of a manifest waits for its blobs. After a power cut, the marks tell which blobs
// to verify before anybody may read them.
type settling struct {
	marks *settle.Marks
	tasks sync.WaitGroup

	mu      sync.Mutex // guards pending
	pending map[digest.Digest]*pendingSync
}

type pendingSync struct {
	done chan struct{}
	err  error // once done is closed
}

// openSettling uses (and makes) dir; suspects are the digests to verify.
func openSettling(dir string) (*settling, []digest.Digest, error) {
	marks, names, err := settle.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	var suspects []digest.Digest
	for _, n := range names {
		d, err := unflat(n)
		if err != nil {
			marks.Clear(n)
			continue
		}
		suspects = append(suspects, d)
	}
	return &settling{marks: marks, pending: map[digest.Digest]*pendingSync{}}, suspects, nil
}

// begin marks a blob, puts it into place, and starts its sync. path is where it is before.
func (s *settling) begin(d digest.Digest, path string, place func() error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := s.marks.Mark(flat(d)); err != nil {
		f.Close()
		return err
	}
	if err := place(); err != nil {
		f.Close()
		return err
	}
	p := &pendingSync{done: make(chan struct{})}
	s.mu.Lock()
	s.pending[d] = p
	s.mu.Unlock()
	s.tasks.Go(func() {
		defer f.Close()
		p.err = f.Sync()
		s.mu.Lock()
		if s.pending[d] == p && p.err == nil {
			delete(s.pending, d)
		}
		s.mu.Unlock()
		if p.err == nil {
			s.marks.Clear(flat(d))
		}
		close(p.done)
	})
	return nil
}

// wait returns when blobs are on the disk.
func (s *settling) wait(blobs []digest.Digest) error {
	for _, d := range blobs {
		s.mu.Lock()
		p := s.pending[d]
		s.mu.Unlock()
		if p == nil {
			continue
		}
		<-p.done
		if p.err != nil {
			return fmt.Errorf("blob %s did not reach the disk: %w", d, p.err)
		}
	}
	return nil
}

// close waits for all.
func (s *settling) close() {
	s.tasks.Wait()
	s.marks.Close()
}
