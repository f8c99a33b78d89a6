package build

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/containerd/errdefs"

	"tare/internal/base/fault"
	"tare/internal/base/listing"
	"tare/internal/build/copier"
	"tare/internal/build/solve"
	"tare/internal/build/source"
)

// Peer is the client of a build that is a conversation: it has the files of the contexts, and secrets. Errors of its
// connection match solve.ErrLost.
type Peer interface {
	// Listing sends a context's listing.
	Listing(ctx context.Context, name string) ([]byte, error)
	// Files sends contents, and calls got for each in the order of sums. A content that can't be sent has the size -1.
	Files(ctx context.Context, name string, sums []listing.Digest, got func(sum listing.Digest, size int64, r io.Reader) error) error
	// Secret and SSH are NotFound for an id that the client does not have.
	Secret(ctx context.Context, id string) ([]byte, error)
	SSH(ctx context.Context, id string) (net.Conn, error)
	// Output takes the result's files as a tar; closing it ends them.
	Output(ctx context.Context) (io.WriteCloser, error)
}

// known are the contexts of the last builds, by their digests.
type known struct {
	mu      sync.Mutex // guards all below
	byName  map[string]*list.Element
	order   list.List // of knownContext, used last first
	entries int
}

type knownContext struct {
	digest string
	files  *source.Archive
}

// Bounds of known: contexts, and files in all of them.
const (
	maxKnown        = 64
	maxKnownEntries = 500_000
)

func (k *known) get(digest string) *source.Archive {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.byName[digest]
	if e == nil {
		return nil
	}
	k.order.MoveToFront(e)
	return e.Value.(knownContext).files
}

func (k *known) put(digest string, files *source.Archive) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byName == nil {
		k.byName = map[string]*list.Element{}
	}
	if k.byName[digest] != nil {
		return
	}
	k.byName[digest] = k.order.PushFront(knownContext{digest, files})
	k.entries += files.Len()
	for k.order.Len() > 1 && (k.order.Len() > maxKnown || k.entries > maxKnownEntries) {
		last := k.order.Remove(k.order.Back()).(knownContext)
		delete(k.byName, last.digest)
		k.entries -= last.files.Len()
	}
}

// listed finds a context of the peer's by its digest, or asks for its listing.
func (c *contexts) listed(ctx context.Context, peer Peer, name, digest string) (*source.Archive, error) {
	if a := c.known.get(digest); a != nil {
		return a, nil
	}
	data, err := peer.Listing(ctx, name)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
		return nil, fault.Invalid("the build context's listing is not the announced one")
	}
	a, err := source.Known(data, c.contents)
	if err != nil {
		return nil, err
	}
	c.known.put(digest, a)
	return a, nil
}

// fetchFiles gets the contents of a selection that are not here yet.
func (w *worker) fetchFiles(ctx context.Context, name string, sel *copier.Selection) error {
	if a, ok := sel.Tree.(*source.Archive); !ok || !a.Lazy() {
		return nil
	}
	var sums []listing.Digest
	err := sel.Files(func(e *source.Entry) {
		if e.Size > 0 {
			sums = append(sums, listing.Digest(e.Sum))
		}
	})
	if err != nil {
		return err
	}
	if sums = w.s.contexts.contents.Missing(sums); len(sums) == 0 {
		return nil
	}
	to, err := w.s.contexts.contents.Begin()
	if err != nil {
		return err
	}
	defer to.Close()
	err = w.req.Peer.Files(ctx, name, sums, func(sum listing.Digest, size int64, r io.Reader) error {
		if size < 0 {
			return fault.Invalid("a file of the build context is not what it was when it was looked at: build again")
		}
		if err := to.Add(sum, size, r); err != nil {
			if errdefs.IsInvalidArgument(err) {
				return fmt.Errorf("a file of the build context changed while it was sent, build again: %w", err)
			}
			return fmt.Errorf("%w: %w", solve.ErrLost, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return to.Commit()
}
