package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/opencontainers/go-digest"
)

// gnuTar packs a folder with GNU tar.
func gnuTar(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("tar", append(append([]string{"-C", dir}, args...), "-cf", "-", ".")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// benchTar is like a distribution's layer: many small files in many folders, a few large ones.
func benchTar(t testing.TB, files int, bytesTotal int64) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var hs []tar.Header
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	size := bytesTotal / int64(files)
	for i := range files {
		if i%12 == 0 {
			hs = append(hs, dir(fmt.Sprintf("usr/share/pkg%d/", i/12), 0o755))
		}
		n := r.Int64N(size) + size/2
		off := r.Int64N(int64(len(noise)) - n)
		hs = append(hs, regular(fmt.Sprintf("usr/share/pkg%d/file%d", i/12, i), string(noise[off:off+n])))
	}
	return makeTar(t, hs...)
}

func BenchmarkUnpackSmallFiles(b *testing.B) { benchUnpack(b, benchTar(b, 5000, 60<<20)) }
func BenchmarkUnpackLargeFiles(b *testing.B) { benchUnpack(b, benchTar(b, 120, 60<<20)) }

func benchUnpack(b *testing.B, data []byte) {
	want := digest.FromBytes(data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		s := openStore(b)
		if _, err := s.Unpack(context.Background(), bytes.NewReader(data), want); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Remove(want); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkHashOnly(b *testing.B) {
	data := benchTar(b, 120, 60<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		digest.FromBytes(data)
	}
}
