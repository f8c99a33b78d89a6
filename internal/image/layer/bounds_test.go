package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// flood is a tar that is made while it is read.
func flood(fill func(w *tar.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := fill(tw)
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// TestBounds: tars that ask for too much are refused in bounded memory and time, and leave nothing.
func TestBounds(t *testing.T) {
	entries, sparse, folders := maxEntries, maxSparse, maxFolders
	t.Cleanup(func() { maxEntries, maxSparse, maxFolders = entries, sparse, folders })
	if entries > 10_000_000 || sparse > 1<<37 || folders > 1<<28 {
		t.Errorf("bounds %d, %d, %d are none", entries, sparse, folders)
	}
	maxEntries, maxFolders = 20_000, 1<<20
	long := strings.Repeat("x", 200)
	for what, c := range map[string]struct {
		fill func(w *tar.Writer) error
		want string
	}{
		"files without end": {func(w *tar.Writer) error {
			for i := 0; ; i++ {
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("f", i%100)}); err != nil {
					return err
				}
			}
		}, "more than 20000 entries"},
		"folders with long names": {func(w *tar.Writer) error {
			for i := 0; ; i++ {
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, Name: fmt.Sprintf("%s%d/", long, i)}); err != nil {
					return err
				}
			}
		}, "too many folders"},
		"implied folders": {func(w *tar.Writer) error {
			for i := 0; ; i++ {
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s%d/%s/f", long, i, long)}); err != nil {
					return err
				}
			}
		}, "implies too many folders"},
		"folders with large attributes": {func(w *tar.Writer) error {
			value := strings.Repeat("v", 3000)
			for i := 0; ; i++ {
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, Name: fmt.Sprint("d", i, "/"), Format: tar.FormatPAX,
					PAXRecords: map[string]string{"SCHILY.xattr.user.big": value}}); err != nil {
					return err
				}
			}
		}, "too many folders"},
		"one folder, deeper and deeper": {func(w *tar.Writer) error {
			name := ""
			for {
				name += "d/"
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, Name: name}); err != nil {
					return err
				}
			}
		}, "too many folders"},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStore(t)
			r := flood(c.fill)
			defer r.Close()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			began := time.Now()
			_, err := s.Unpack(t.Context(), r, "")
			runtime.GC()
			runtime.ReadMemStats(&after)
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 || time.Since(began) > 30*time.Second {
				t.Errorf("%d bytes, %s", grown, time.Since(began))
			}
			left, _ := os.ReadDir(s.dir)
			for _, e := range left {
				if strings.HasPrefix(e.Name(), ".tmp-") {
					t.Errorf("left behind: %s", e.Name())
				}
			}
		})
	}
}

// sparseTar is an old GNU sparse file of size bytes with one byte of data.
func sparseTar(size int64) []byte {
	var h [512]byte
	octal := func(at, n int, v int64) { copy(h[at:at+n], fmt.Sprintf("%0*o\x00", n-1, v)) }
	copy(h[0:], "giant")
	octal(100, 8, 0o644)
	octal(108, 8, 0)
	octal(116, 8, 0)
	octal(124, 12, 1)
	octal(136, 12, 0)
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	base256 := func(at int, v int64) {
		h[at] = 0x80
		for i := range 8 {
			h[at+11-i] = byte(v >> (8 * i))
		}
	}
	base256(386, size-1) // offset of the data
	octal(398, 12, 1)
	base256(483, size) // real size
	for i := range 8 {
		h[148+i] = ' '
	}
	sum := int64(0)
	for _, b := range h {
		sum += int64(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	var data [512]byte
	data[0] = 'x'
	return append(append(h[:], data[:]...), make([]byte, 1024)...)
}

func TestSparseGiants(t *testing.T) {
	s := openStore(t)
	l, err := s.Unpack(t.Context(), bytes.NewReader(sparseTar(1<<30)), "")
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := s.Disk(l.DiffID); n > 1<<20 {
		t.Errorf("a hole of 1 GiB takes %d bytes", n)
	}
	for _, size := range []int64{1 << 40, 1 << 62} {
		if _, err := s.Unpack(t.Context(), bytes.NewReader(sparseTar(size)), ""); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	// Many holes are as bad as a large one.
	bound := maxSparse
	t.Cleanup(func() { maxSparse = bound })
	maxSparse = 1 << 30
	tar := sparseTar(1 << 28)
	if _, err := s.Unpack(t.Context(), bytes.NewReader(bytes.Repeat(tar[:1024], 5)), ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("five of 256 MiB: %v", err)
	}
}
