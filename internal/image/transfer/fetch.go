package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/progress"
	"tare/internal/base/trace"
	"tare/internal/image/blob"
	"tare/internal/image/compress"
	"tare/internal/image/layer"
	"tare/internal/image/registry"
)

// reportEvery bounds how often one layer reports.
const reportEvery = 100 * time.Millisecond

// arrival is one layer on its way into the store.
type arrival struct {
	s      *Service
	repo   *registry.Repository
	desc   ocispec.Descriptor
	diffID func(context.Context) (digest.Digest, error) // waits for the config
	sink   progress.Sink
	id     string
	told   time.Time
}

// run brings the layer, blob and tree, into the store; what is there already is not moved.
func (a *arrival) run(ctx context.Context) error {
	select {
	case a.s.slots <- struct{}{}:
	default:
		a.sink.Status(a.id, "Waiting")
		select {
		case a.s.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer func() { <-a.s.slots }()
	w, err := a.writer(ctx)
	if err != nil {
		return err
	}
	if w == nil {
		return a.unpackStored(ctx)
	}
	resumed := w.Offset() > 0
	err = a.download(ctx, w)
	if resumed && errors.Is(err, errDamaged) {
		// The bytes of the earlier pull may be what is wrong.
		if w, err = a.writer(ctx); err == nil && w != nil {
			err = a.download(ctx, w)
		}
	}
	return err
}

// writer opens the blob's arrival; nil if the blob is in the store.
func (a *arrival) writer(ctx context.Context) (*blob.Writer, error) {
	if size, err := a.s.store.Blobs.Claim(a.desc.Digest); err == nil && size == a.desc.Size {
		return nil, nil
	}
	w, err := a.s.store.Blobs.Writer(ctx, a.desc.Digest)
	if err != nil {
		return nil, err
	}
	if size, err := a.s.store.Blobs.Claim(a.desc.Digest); err == nil && size == a.desc.Size {
		w.Close()
		return nil, nil
	}
	if w.Offset() > a.desc.Size {
		if err := w.Reset(); err != nil {
			w.Close()
			return nil, err
		}
	}
	return w, nil
}

// unpackStored makes the layer from the blob in the store, if it is not there yet.
func (a *arrival) unpackStored(ctx context.Context) error {
	want, err := a.diffID(ctx)
	if err != nil {
		return err
	}
	if l, err := a.s.store.Layers.Claim(want); err == nil {
		trace.Step(ctx, "image", "have", "layer", want.String())
		a.sink.Status(a.id, "Already exists")
		return a.record(l)
	}
	f, err := a.s.store.Blobs.Reader(a.desc.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	a.sink.Report(progress.Update{ID: a.id, Action: "Extracting", Total: a.desc.Size})
	l, err := a.unpack(ctx, f, want)
	if err != nil {
		return a.explain(err)
	}
	return a.complete(l)
}

func (a *arrival) complete(l layer.Layer) error {
	if err := a.record(l); err != nil {
		return err
	}
	a.sink.Status(a.id, "Pull complete")
	return nil
}

// record notes the layer's compressed form, unless it has one.
func (a *arrival) record(l layer.Layer) error {
	if l.Blob != "" {
		if _, err := a.s.store.Blobs.Size(l.Blob); err == nil {
			return nil
		}
	}
	l.Blob, l.BlobSize, l.MediaType = a.desc.Digest, a.desc.Size, a.desc.MediaType
	return a.s.store.Layers.Record(l)
}

// unpack decompresses r and makes the layer of it. All of r is read, also what follows the tar.
func (a *arrival) unpack(ctx context.Context, r io.Reader, want digest.Digest) (layer.Layer, error) {
	tar, _, err := compress.Reader(ctx, r)
	if err != nil {
		return layer.Layer{}, err
	}
	defer tar.Close()
	l, err := a.s.store.Layers.Unpack(ctx, tar, want)
	if err != nil {
		return l, err
	}
	_, err = io.Copy(io.Discard, r)
	return l, err
}

var errDamaged = errors.New("arrived damaged")

// download moves the blob's bytes through both arms of the pipeline. It closes w: committed on
// success, with its bytes kept if a later pull can go on with them, else dropped.
func (a *arrival) download(ctx context.Context, w *blob.Writer) (err error) {
	defer func() {
		if err != nil && !a.keep(err) {
			w.Reset()
		}
		w.Close()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	trace.Step(ctx, "image", "download", "blob", a.desc.Digest.String())
	a.s.streams.begin()
	defer a.s.streams.end()
	kept := w.Kept()
	src, err := a.open(ctx, w)
	if err != nil {
		return err
	}
	defer src.Close() // before w's
	want, err := a.diffID(ctx)
	if err != nil {
		return err
	}
	var l layer.Layer
	var unpacked chan error
	q := newQueue(ctx)
	blobArm, layerArm := trace.Beside(ctx), trace.Beside(ctx)
	if l, err = a.s.store.Layers.Claim(want); err == nil {
		q.abandon() // only the blob is missing
	} else {
		unpacked = make(chan error, 1)
		go func() {
			var err error
			l, err = a.unpack(layerArm, q, want)
			q.abandon()
			unpacked <- err
		}()
	}
	err = a.pump(ctx, q, func(b []byte) (int, bool, error) {
		n, err := io.ReadFull(kept, b)
		if err == io.ErrUnexpectedEOF {
			err = nil
		}
		return n, true, err
	}, nil)
	if err == nil {
		err = a.pump(ctx, q, src.fill, w)
	}
	src.Close()
	q.finish(err)
	if err == nil {
		a.sink.Status(a.id, "Verifying Checksum")
		if got := w.Digest(); got != a.desc.Digest {
			err = fault.Invalid("layer %s of %s %w: its content has digest %s", a.desc.Digest, a.repo.Name(), errDamaged, got)
		} else {
			trace.Step(blobArm, "image", "verify", "blob", a.desc.Digest.String())
			a.sink.Status(a.id, "Download complete")
			a.sink.Report(progress.Update{ID: a.id, Action: "Extracting", Current: a.desc.Size, Total: a.desc.Size})
		}
	}
	if err != nil {
		cancel()
	}
	if unpacked != nil {
		if unpackErr := <-unpacked; err == nil && unpackErr != nil {
			err = a.explain(unpackErr)
		}
	}
	q.release()
	if err != nil {
		return err
	}
	trace.Step(ctx, "image", "store", "blob", a.desc.Digest.String())
	if _, err := w.Commit(a.desc.Size); err != nil {
		return a.explain(err)
	}
	return a.complete(l)
}

// pump moves what read gives, up to io.EOF, into the queue and, unless it was absorbed, the blob. It goes on without the queue's reader:
// only the whole blob tells whether it was the blob that was bad.
func (a *arrival) pump(ctx context.Context, q *queue, read func([]byte) (n int, absorbed bool, err error), w *blob.Writer) error {
	var own []byte
	for {
		b := q.buffer()
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		buf := own
		if b != nil {
			buf = *b
		} else if buf == nil {
			own = make([]byte, chunkSize)
			buf = own
		}
		n, absorbed, err := read(buf)
		if n > 0 && w != nil {
			if !absorbed {
				if _, werr := w.Write(buf[:n]); werr != nil {
					if b != nil {
						q.free <- b
					}
					return a.explain(werr)
				}
			}
			a.advance(w.Offset())
		}
		switch {
		case b != nil && n > 0:
			q.put(b, n)
		case b != nil:
			q.free <- b
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (a *arrival) advance(n int64) {
	if now := time.Now(); now.Sub(a.told) >= reportEvery {
		a.told = now
		a.sink.Report(progress.Update{ID: a.id, Action: "Downloading", Current: n, Total: a.desc.Size})
	}
}

// keep tells whether the bytes that arrived are worth a later attempt.
func (a *arrival) keep(err error) bool {
	return !errors.Is(err, errDamaged) && !errors.Is(err, unix.ENOSPC) && !errdefs.IsInvalidArgument(err)
}

// explain puts the layer into the message, and says what to do about a full disk.
func (a *arrival) explain(err error) error {
	switch {
	case stopped(err), errors.Is(err, errDamaged):
		return err
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("failed to register layer %s: %w: free some space on the disk of %s", a.id, err, filepath.Dir(filepath.Dir(a.s.store.Blobs.Path(a.desc.Digest))))
	}
	return fmt.Errorf("failed to register layer %s: %w", a.id, err)
}
