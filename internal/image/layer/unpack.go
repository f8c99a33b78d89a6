package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/base/trace"
)

// Unpack reads an uncompressed tar to its end, writes the tree and verifies the
// digest, all in one pass. No entry can leave the layer's folder: a tar that tries is Invalid and
// leaves nothing. If two callers unpack one diffID, the second waits and shares the result;
// a layer that is there, or came meanwhile, is returned at once, and tar is not read.
// want may be "" when the diffID is not known (import).
func (s *Store) Unpack(ctx context.Context, tar io.Reader, want digest.Digest) (Layer, error) {
	l, have, done, err := s.begin(ctx, want)
	if err != nil || have {
		return l, err
	}
	defer done()
	trace.Step(ctx, "image", "unpack", "layer", want.String())
	tmp, err := os.MkdirTemp(s.dir, files.TempPrefix)
	if err != nil {
		return Layer{}, err
	}
	l, err = s.unpack(ctx, tar, want, tmp)
	if err != nil {
		removeAll(tmp)
		if want != "" {
			return Layer{}, fmt.Errorf("cannot unpack layer %s: %w", want, err)
		}
		return Layer{}, fmt.Errorf("cannot unpack layer: %w", err)
	}
	return l, nil
}

func (s *Store) unpack(ctx context.Context, tar io.Reader, want digest.Digest, tmp string) (Layer, error) {
	r, err := fill(ctx, tar, want, tmp)
	if err != nil {
		return Layer{}, err
	}
	trace.Step(ctx, "image", "verify", "layer", r.DiffID.String())
	return s.publish(tmp, r)
}

// fill makes the tree tmp/fs, verified.
func fill(ctx context.Context, tar io.Reader, want digest.Digest, tmp string) (record, error) {
	root, err := makeRoot(tmp)
	if err != nil {
		return record{}, err
	}
	defer root.Close()
	h := sha256.New()
	p := newPump(ctx, tar, h)
	defer p.Close()
	x, err := Extract(ctx, root, "", p, ExtractOptions{Layer: true})
	if err != nil {
		return record{}, err
	}
	if err := p.drain(); err != nil {
		return record{}, err
	}
	got := digest.NewDigest(digest.SHA256, h)
	if want != "" && got != want {
		return record{}, fault.Invalid("content has diffID %s", got)
	}
	return record{Layer: Layer{DiffID: got, Size: x.Bytes}, Implied: x.Implied}, nil
}

// makeRoot makes tmp/fs as a layer's root, 0755.
func makeRoot(tmp string) (*os.File, error) {
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	fs := filepath.Join(tmp, "fs")
	if err := os.Mkdir(fs, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(fs, 0o755); err != nil {
		return nil, err
	}
	return os.Open(fs)
}
