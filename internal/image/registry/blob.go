package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// HasBlob tells whether the registry has a blob in this repository.
func (r *Repository) HasBlob(ctx context.Context, d digest.Digest) (bool, error) {
	rs, err := r.do(ctx, request{method: http.MethodHead, path: "blobs/" + d.String(), write: r.access == Push})
	if e := asError(err); e != nil && e.Status == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, pushError(r.name, err)
	}
	drain(rs)
	return true, nil
}

// ErrNoRanges says that a registry does not serve parts of blobs.
var ErrNoRanges = errors.New("the registry does not serve ranges")

// Blob opens a blob at offset. The reader gives d.Size - offset bytes, or an error; a
// download that breaks off is continued. The content is not verified: its reader does that.
func (r *Repository) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	b := &blobReader{ctx: ctx, r: r, d: d, at: offset, end: d.Size}
	if offset >= d.Size {
		return b, nil
	}
	return b, b.open()
}

// BlobRange is Blob for the bytes from offset up to end; ErrNoRanges if the registry can't do that.
func (r *Repository) BlobRange(ctx context.Context, d ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	b := &blobReader{ctx: ctx, r: r, d: d, at: offset, end: end, strict: true}
	return b, b.open()
}

// blobReader is a download that goes on after cuts.
type blobReader struct {
	ctx    context.Context
	r      *Repository
	d      ocispec.Descriptor
	at     int64 // offset of the next byte
	end    int64
	strict bool // the registry has to serve ranges
	body   io.ReadCloser
	cuts   int   // since a good piece last arrived
	since  int64 // offset at the last cut
}

func (b *blobReader) open() error {
	rq := request{method: http.MethodGet, path: "blobs/" + b.d.Digest.String(), header: http.Header{}}
	if b.at > 0 || b.strict {
		rq.header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.at, b.end-1))
	}
	ctx, cancel := context.WithCancelCause(b.ctx)
	rs, err := b.r.do(ctx, rq)
	if err != nil {
		cancel(nil)
		if e := asError(err); e != nil && e.Status == http.StatusNotFound {
			return fault.NotFound("blob %s of %s not found: %w", b.d.Digest, reference.FamiliarName(b.r.name), err)
		}
		return pullError(b.r.name, err)
	}
	rs.Body = newWatch(ctx, cancel, b.r.c.patience, rs.Body)
	if err := b.check(rs); err != nil {
		rs.Body.Close()
		return err
	}
	b.body = rs.Body
	return nil
}

// check holds an answer against what was asked for.
func (b *blobReader) check(rs *http.Response) error {
	ranged := b.at > 0 || b.strict
	switch {
	case rs.StatusCode == http.StatusPartialContent && ranged:
		if got := rs.Header.Get("Content-Range"); got != "" && !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", b.at)) {
			return fault.Unavailable("registry %s sent the range %q of blob %s, asked for bytes from %d",
				reference.Domain(b.r.name), got, b.d.Digest, b.at)
		}
	case rs.StatusCode == http.StatusOK && b.strict:
		return ErrNoRanges
	case rs.StatusCode == http.StatusOK && ranged:
		// No ranges here: what is known already is read and dropped.
		if _, err := io.CopyN(io.Discard, rs.Body, b.at); err != nil {
			return connectionError(err)
		}
	case rs.StatusCode != http.StatusOK:
		return fault.Unavailable("registry %s answered %s for blob %s", reference.Domain(b.r.name), rs.Status, b.d.Digest)
	case rs.ContentLength >= 0 && rs.ContentLength != b.d.Size:
		return fault.Invalid("blob %s has %d bytes at registry %s, its manifest says %d",
			b.d.Digest, rs.ContentLength, reference.Domain(b.r.name), b.d.Size)
	}
	return nil
}

func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.at >= b.end {
			return 0, io.EOF
		}
		if err := b.ctx.Err(); err != nil {
			return 0, err
		}
		var err error
		if b.body == nil {
			err = b.open()
			if err != nil && !passing(err) {
				return 0, err
			}
		}
		if b.body != nil {
			var n int
			n, err = b.body.Read(p[:min(int64(len(p)), b.end-b.at)])
			b.at += int64(n)
			if n > 0 {
				return n, nil
			}
			if err == nil {
				continue
			}
			b.body.Close()
			b.body = nil
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
		}
		if ctxErr := b.ctx.Err(); ctxErr != nil {
			return 0, ctxErr
		}
		if b.at-b.since >= min(atLeast, 1+b.d.Size/64) {
			b.cuts = 0
		}
		b.since = b.at
		b.cuts++
		if b.cuts >= b.r.c.config.Tries {
			return 0, fault.Unavailable("download of blob %s from %s broke off at byte %d of %d: %w",
				b.d.Digest, reference.Domain(b.r.name), b.at, b.d.Size, err)
		}
		if err := b.r.c.sleep(b.ctx, b.cuts, err); err != nil {
			return 0, err
		}
	}
}

func (b *blobReader) Close() error {
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}
