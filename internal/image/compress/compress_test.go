package compress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"testing"

	"github.com/containerd/errdefs"
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
