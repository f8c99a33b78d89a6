package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

var ctx = context.Background()

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// arriving lists what lies in ingest/.
func arriving(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestPutReadWalkRemove(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := []byte("hello")
	d, err := s.Put(data)
	if err != nil || d != digest.FromBytes(data) {
		t.Fatal(d, err)
	}
	if again, err := s.Put(data); err != nil || again != d {
		t.Fatal(again, err)
	}
	if n, err := s.Size(d); err != nil || n != 5 {
		t.Error(n, err)
	}
	if b, err := s.Bytes(d); err != nil || !bytes.Equal(b, data) {
		t.Error(b, err)
	}
	n := 0
	if err := s.Walk(func(w digest.Digest, size int64) error {
		if w != d || size != 5 {
			t.Error(w, size)
		}
		n++
		return nil
	}); err != nil || n != 1 {
		t.Error(n, err)
	}
	if err := os.WriteFile(s.Path(d), []byte("jello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bytes(d); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	for range 2 {
		if err := s.Remove(d); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Reader(d); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if left := arriving(t, dir); len(left) > 0 {
		t.Error(left)
	}
	for _, bad := range []digest.Digest{"", "x", "sha256:12", "sha256:../../../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e",
		digest.Digest("sha256:" + strings.Repeat("/", 64))} {
		if _, err := s.Size(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
		if bad != "" {
			if _, err := s.Writer(ctx, bad); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
}

func TestWriterResumes(t *testing.T) {
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789"), 1000)
	for _, want := range []digest.Digest{digest.FromBytes(data), digest.SHA512.FromBytes(data)} {
		s := open(t, dir)
		w, err := s.Writer(ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data[:7000])
		w.Close()
		s.Close()
		s = open(t, dir) // another process
		if w, err = s.Writer(ctx, want); err != nil || w.Offset() != 7000 {
			t.Fatal(w.Offset(), err)
		}
		w.Write(data[7000:])
		if got := w.Digest(); got != want {
			t.Error(got)
		}
		if got, err := w.Commit(int64(len(data))); err != nil || got != want {
			t.Fatal(got, err)
		}
		if err := w.Close(); err != nil {
			t.Error("Close after Commit:", err)
		}
		f, err := s.Reader(want)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(f)
		f.Close()
		if !bytes.Equal(got, data) {
			t.Error("content differs")
		}
	}
}

func TestCommitVerifies(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	want := digest.FromString("good")
	for name, c := range map[string]struct {
		want digest.Digest
		body string
		size int64
	}{
		"other content": {want, "evil", 4},
		"other size":    {want, "good", 5},
		"unknown, size": {"", "good", 3},
	} {
		w, err := s.Writer(ctx, c.want)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, c.body)
		if _, err := w.Commit(c.size); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
		w.Close()
		if _, err := s.Size(want); !errdefs.IsNotFound(err) {
			t.Errorf("%s: visible", name)
		}
		if left := arriving(t, dir); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	w, err := s.Writer(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "bad")
	if err := w.Reset(); err != nil || w.Offset() != 0 {
		t.Error(err)
	}
	io.WriteString(w, "good")
	if d, err := w.Commit(-1); err != nil || d != want {
		t.Error(d, err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("wrote after Commit")
	}
	if w, err = s.Writer(ctx, ""); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "dropped")
	w.Close()
	if left := arriving(t, dir); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestOneWriterPerDigest(t *testing.T) {
	s := open(t, t.TempDir())
	d := digest.FromString("x")
	first, err := s.Writer(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := s.Writer(short, d); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	got := make(chan int64)
	go func() {
		w, err := s.Writer(ctx, d)
		if err != nil {
			t.Error(err)
		}
		defer w.Close()
		size, _ := s.Size(d)
		got <- size
	}()
	io.WriteString(first, "x")
	if _, err := first.Commit(1); err != nil {
		t.Fatal(err)
	}
	if size := <-got; size != 1 {
		t.Error("the second did not find the blob")
	}
}

func TestOpenCleansUp(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	old, young := digest.FromString("old"), digest.FromString("young")
	for _, d := range []digest.Digest{old, young} {
		w, err := s.Writer(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "part")
		w.Close()
	}
	if err := os.Chtimes(s.ingestPath(old), time.Now(), time.Now().Add(-2*staleAfter)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Writer(ctx, ""); err != nil { // killed while writing
		t.Fatal(err)
	}
	// A power cut: one blob is whole, one is torn.
	whole, _ := s.Put([]byte("whole"))
	torn, _ := s.Put([]byte("torn"))
	s.Close()
	for _, d := range []digest.Digest{whole, torn} {
		if err := os.WriteFile(filepath.Join(dir, "ingest/unsettled", ingestName(d)), []byte("another boot"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(s.Path(torn), 0); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if left := arriving(t, dir); len(left) != 1 || left[0] != ingestName(young) {
		t.Error(left)
	}
	if _, err := s.Bytes(whole); err != nil {
		t.Error(err)
	}
	if _, err := s.Size(torn); !errdefs.IsNotFound(err) {
		t.Error("torn blob is still there")
	}
	if err := s.marks.Flush(); err != nil {
		t.Fatal(err)
	}
	if marks, _ := os.ReadDir(filepath.Join(dir, "ingest/unsettled")); len(marks) != 0 {
		t.Error("marks after a sync:", marks)
	}
}
