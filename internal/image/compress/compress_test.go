package compress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var text = bytes.Repeat([]byte("what is written is what is read\n"), 50000)

// pack compresses with a program.
func pack(t *testing.T, program string, in []byte) []byte {
	t.Helper()
	cmd := exec.Command(program, "-c")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: test/deps.sh installs it", program, err)
	}
	return out
}

func TestReaderKnowsAllForms(t *testing.T) {
	var ours, zs bytes.Buffer
	w, err := Writer(&ours)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(text)
	w.Close()
	z, _ := zstd.NewWriter(&zs)
	z.Write(text)
	z.Close()
	skippable := append([]byte{0x51, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'}, zs.Bytes()...)
	for _, c := range []struct {
		form Form
		data func(*testing.T) []byte
	}{
		{None, func(*testing.T) []byte { return text }},
		{None, func(*testing.T) []byte { return nil }},
		{Gzip, func(*testing.T) []byte { return ours.Bytes() }},
		{Gzip, func(t *testing.T) []byte { return append(pack(t, "gzip", text[:100]), pack(t, "gzip", text[100:])...) }},
		{Zstd, func(*testing.T) []byte { return zs.Bytes() }},
		{Zstd, func(*testing.T) []byte { return skippable }},
		{Bzip2, func(t *testing.T) []byte { return pack(t, "bzip2", text) }},
		{Xz, func(t *testing.T) []byte { return pack(t, "xz", text) }},
	} {
		t.Run(string(c.form), func(t *testing.T) {
			data := c.data(t)
			r, form, err := Reader(context.Background(), struct{ io.Reader }{bytes.NewReader(data)})
			if err != nil || form != c.form {
				t.Fatal(form, err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || len(data) > 0 && !bytes.Equal(got, text) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if form == None {
				return
			}
			r, _, err = Reader(context.Background(), bytes.NewReader(data[:len(data)/2]))
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("cut in half: %v", err)
			}
		})
	}
}

func TestReaderPassesErrorsOfItsSource(t *testing.T) {
	var b bytes.Buffer
	w, _ := Writer(&b)
	w.Write(text)
	w.Close()
	broken := errors.New("connection reset")
	r, _, err := Reader(context.Background(), io.MultiReader(bytes.NewReader(b.Bytes()[:b.Len()/2]), failing{broken}))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if !errors.Is(err, broken) || errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestWriterGivesTheSameBytes(t *testing.T) {
	var first []byte
	for _, step := range []int{1000, 1 << 20, 7777} {
		var b bytes.Buffer
		w, err := Writer(&b)
		if err != nil {
			t.Fatal(err)
		}
		for rest := text; len(rest) > 0; {
			n := min(step, len(rest))
			w.Write(rest[:n])
			rest = rest[n:]
		}
		w.Close()
		if first == nil {
			first = b.Bytes()
		}
		if !bytes.Equal(first, b.Bytes()) {
			t.Error("writing in other steps gives other bytes")
		}
	}
}

func TestMediaTypes(t *testing.T) {
	for mediaType, want := range map[string]Form{
		"application/vnd.oci.image.layer.v1.tar":            None,
		"application/vnd.oci.image.layer.v1.tar+gzip":       Gzip,
		"application/vnd.oci.image.layer.v1.tar+zstd":       Zstd,
		"application/vnd.docker.image.rootfs.diff.tar":      None,
		"application/vnd.docker.image.rootfs.diff.tar.gzip": Gzip,
	} {
		if got, err := FormOf(mediaType); err != nil || got != want {
			t.Errorf("%s: %s %v", mediaType, got, err)
		}
	}
	if _, err := FormOf("application/vnd.oci.image.layer.v1.tar+lzma"); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

// zeros is a stream of n zeros.
type zeros int64

func (z *zeros) Read(p []byte) (int, error) {
	if *z == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), int64(*z))
	clear(p[:n])
	*z -= zeros(n)
	return int(n), nil
}

// TestBombs: little that becomes very much is refused when that shows; what is only well compressed is not.
func TestBombs(t *testing.T) {
	size := bombSize
	t.Cleanup(func() { bombSize = size })
	bombSize = 64 << 20
	for _, form := range []Form{Gzip, Zstd} {
		for n, bad := range map[int64]bool{60 << 20: false, 256 << 20: true} {
			var b bytes.Buffer
			w, err := WriterOf(form, &b)
			if err != nil {
				t.Fatal(err)
			}
			if form == Gzip {
				w, _ = gzip.NewWriterLevel(&b, gzip.BestCompression)
			}
			z := zeros(n)
			io.Copy(w, &z)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			r, _, err := Reader(t.Context(), &b)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.Copy(io.Discard, r)
			r.Close()
			if bad != (err != nil) || bad && (!errdefs.IsInvalidArgument(err) || got > bombSize+1<<20) || !bad && got != n {
				t.Errorf("%s of %d: %d bytes, %v", form, n, got, err)
			}
		}
	}
	// A window larger than memory should be.
	huge := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00}
	if r, _, err := Reader(t.Context(), bytes.NewReader(huge)); err == nil {
		if _, err = io.Copy(io.Discard, r); !errdefs.IsInvalidArgument(err) {
			t.Errorf("a large window: %v", err)
		}
	}
}

// TestFramesAreTheSame whatever the pieces they are written in.
func TestFramesAreTheSame(t *testing.T) {
	data := make([]byte, 9<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	var results [][]byte
	for _, step := range []int{len(data), 1 << 20, 77777} {
		var b bytes.Buffer
		w, err := WriterOf(Zstd, &b)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			w.Write(rest[:min(step, len(rest))])
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		results = append(results, b.Bytes())
		r, _, err := Reader(t.Context(), &b)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%d bytes, %v", len(back), err)
		}
	}
	if !bytes.Equal(results[0], results[1]) || !bytes.Equal(results[0], results[2]) {
		t.Error("other pieces, other bytes")
	}
}

func FuzzReader(f *testing.F) {
	for _, form := range []Form{Gzip, Zstd} {
		var b bytes.Buffer
		w, _ := WriterOf(form, &b)
		io.WriteString(w, "hello hello hello")
		w.Close()
		f.Add(b.Bytes())
	}
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if Detect(data) == Xz {
			return // a program of its own
		}
		r, _, err := Reader(t.Context(), bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		io.Copy(io.Discard, io.LimitReader(r, 16<<20))
	})
}
