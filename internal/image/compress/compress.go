// Package compress knows the compressed forms of tars: which one a stream has,
// how to read it, and the one way we write layers.
package compress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// Form is a way to compress.
type Form string

// The forms that Detect knows.
const (
	None  Form = "none"
	Gzip  Form = "gzip"
	Zstd  Form = "zstd"
	Bzip2 Form = "bzip2"
	Xz    Form = "xz"
)

var magics = []struct {
	form  Form
	magic []byte
}{
	{Gzip, []byte{0x1f, 0x8b, 0x08}},
	{Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd}},
	{Bzip2, []byte("BZh")},
	{Xz, []byte{0xfd, '7', 'z', 'X', 'Z', 0}},
}

// Detect tells the form by the first bytes (six are enough) of a stream.
func Detect(head []byte) Form {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.magic) {
			return m.form
		}
	}
	// A zstd stream may open with a skippable frame (RFC 8878, 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18 {
		return Zstd
	}
	return None
}

// MediaType is the OCI media type of a layer in this form; "" for forms that OCI has none for.
func (f Form) MediaType() string {
	switch f {
	case None:
		return ocispec.MediaTypeImageLayer
	case Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ""
}

// FormOf is the form that a layer's media type, Docker's or OCI's, announces.
func FormOf(mediaType string) (Form, error) {
	switch {
	case strings.HasSuffix(mediaType, "+gzip"), strings.HasSuffix(mediaType, ".tar.gzip"):
		return Gzip, nil
	case strings.HasSuffix(mediaType, "+zstd"):
		return Zstd, nil
	case strings.HasSuffix(mediaType, ".tar"):
		return None, nil
	}
	return "", fault.Invalid("layer media type %q is not supported", mediaType)
}

// Reader decompresses whatever form r has. Broken data is an Invalid error of
// Read, a read error of r stays as it is. Close ends the work but does not close r.
func Reader(ctx context.Context, r io.Reader) (io.ReadCloser, Form, error) {
	src := &source{r: r}
	br := bufio.NewReaderSize(src, 128<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	form := Detect(head)
	rc, err := open(ctx, form, br)
	if err != nil {
		return nil, form, src.cause(form, err)
	}
	return &reader{ReadCloser: rc, src: src, form: form}, form, nil
}

func open(ctx context.Context, form Form, r io.Reader) (io.ReadCloser, error) {
	switch form {
	case Gzip:
		return gzip.NewReader(r)
	case Zstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case Xz:
		return openXz(ctx, r)
	}
	return io.NopCloser(r), nil
}

// source remembers whether an error came from below the decompressor.
type source struct {
	r   io.Reader
	in  int64 // bytes read
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.in += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *source) cause(form Form, err error) error {
	if s.err != nil {
		return s.err
	}
	return fault.Invalid("broken %s data: %w", form, err)
}

type reader struct {
	io.ReadCloser
	src  *source
	form Form
	out  int64
}

// A bomb is little that becomes very much. Files of zeros compress to a thousandth, so some are let through.
var (
	bombSize  int64 = 4 << 30 // bytes that may come out whatever went in
	bombRatio int64 = 200     // more than that, only if this times as much came out as went in, or less
)

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.out += int64(n); r.out > bombSize && r.form != None && r.out/bombRatio > r.src.in {
		return n, fault.Invalid("%s data expands to more than %d times its size (%d bytes so far): this is no honest layer", r.form, bombRatio, r.out)
	}
	if err != nil && err != io.EOF && r.form != None {
		err = r.src.cause(r.form, err)
	}
	return n, err
}

// xzReader is the xz program, as Docker does it: the format is rare and its decoder is large.
type xzReader struct {
	io.Reader
	cmd    *exec.Cmd
	cancel context.CancelFunc
	stderr bytes.Buffer
	ended  bool
}

func openXz(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	path, err := exec.LookPath("xz")
	if err != nil {
		return nil, fmt.Errorf("xz data wants the xz program, which is not installed: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	x := &xzReader{cancel: cancel, cmd: exec.CommandContext(ctx, path, "-d", "-c", "-q")}
	x.cmd.Stdin, x.cmd.Stderr = r, &x.stderr
	x.cmd.WaitDelay = time.Second // a Close does not wait for a reader that hangs
	if x.Reader, err = x.cmd.StdoutPipe(); err != nil {
		cancel()
		return nil, err
	}
	if err := x.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return x, nil
}

func (x *xzReader) Read(p []byte) (int, error) {
	n, err := x.Reader.Read(p)
	if err == io.EOF && !x.ended {
		x.ended = true
		if werr := x.cmd.Wait(); werr != nil {
			return n, fmt.Errorf("%w: %s", werr, bytes.TrimSpace(x.stderr.Bytes()))
		}
	}
	return n, err
}

func (x *xzReader) Close() error {
	x.cancel()
	if !x.ended {
		x.ended = true
		x.cmd.Wait()
	}
	return nil
}

// maxWindow is the largest window of a zstd frame that is decoded, in bytes: what the zstd program takes without being told otherwise.
const maxWindow = 128 << 20

// writeLevel trades size for time: a commit should not cost more than the step that filled it.
const writeLevel = 3

// Writer compresses a layer with gzip. The same bytes always give the same
// result, however many processors there are: blocks of 1 MiB are compressed apart, no name or time is in the header.
func Writer(w io.Writer) (io.WriteCloser, error) { return WriterOf(Gzip, w) }

// WriterOf is Writer for gzip or zstd.
func WriterOf(form Form, w io.Writer) (io.WriteCloser, error) {
	switch form {
	case Gzip:
		z, err := pgzip.NewWriterLevel(w, writeLevel)
		if err != nil {
			return nil, err
		}
		return z, z.SetConcurrency(1<<20, 4)
	case Zstd:
		return newFrames(w)
	}
	return nil, fault.Invalid("layers are not compressed with %s", string(form))
}
