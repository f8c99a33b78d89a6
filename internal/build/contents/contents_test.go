package contents

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func open(t *testing.T, dir string, limit int64) *Store {
	t.Helper()
	s, err := Open(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func put(t *testing.T, s *Store, texts ...string) (sums []Digest) {
	t.Helper()
	w, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, text := range texts {
		sum := sha256.Sum256([]byte(text))
		sums = append(sums, sum)
		if err := w.Add(sum, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return sums
}

func get(s *Store, sum Digest, size int) (string, error) {
	r, err := s.Open(sum, int64(size))
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestKeeps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	sums := put(t, s, "one", "two")
	sums = append(sums, put(t, s, "three")...)
	none := sha256.Sum256([]byte("none"))
	for range 2 {
		for i, want := range []string{"one", "two", "three"} {
			if got, err := get(s, sums[i], len(want)); err != nil || got != want {
				t.Errorf("%q, %v", got, err)
			}
		}
		if m := s.Missing(append(sums, none, none)); len(m) != 1 || m[0] != none {
			t.Errorf("missing %x", m)
		}
		s.Close()
		s = open(t, dir, 1<<20)
	}
}

func TestBadContents(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	w, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("text"))
	if err := w.Add(sum, 4, strings.NewReader("lies")); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	w.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	put(t, s, "text", strings.Repeat("long ", 1000))
	long := sha256.Sum256([]byte(strings.Repeat("long ", 1000)))
	file := filepath.Join(dir, "00000001.pack")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[1000] ^= 1
	os.WriteFile(file, data, 0o600)
	if _, err := get(s, long, 5000); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	if len(s.Missing([]Digest{long})) != 1 {
		t.Error("a damaged content is still there")
	}
	if got, err := get(s, sum, 4); err != nil || got != "text" {
		t.Error(got, err)
	}
}

// What a killed engine left is cut off or dropped.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	sums := put(t, s, "one", "two")
	w, _ := s.Begin()
	w.Add(sha256.Sum256([]byte("half")), 4, strings.NewReader("half"))
	w.w.Flush() // and dies
	index := filepath.Join(dir, "00000000.index")
	data, _ := os.ReadFile(index)
	os.WriteFile(index, append(data, data[:20]...), 0o600)
	os.WriteFile(filepath.Join(dir, "00000007.pack"), []byte("x"), 0o600)
	s = open(t, dir, 1<<20)
	if got, err := get(s, sums[1], 3); err != nil || got != "two" {
		t.Error(got, err)
	}
	sums = append(sums, put(t, s, "three")...)
	s = open(t, dir, 1<<20)
	for i, want := range []string{"one", "two", "three"} {
		if got, err := get(s, sums[i], len(want)); err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "00000007.pack")); err == nil {
		t.Error("a pack without contents is still there")
	}
}

func TestLimit(t *testing.T) {
	s := open(t, t.TempDir(), 1000)
	a, _ := s.Begin()
	b, _ := s.Begin() // a pack of its own
	for i, w := range []*Writer{a, b} {
		text := bytes.Repeat([]byte{byte(i)}, 700)
		if err := w.Add(sha256.Sum256(text), 700, bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		w.Commit()
		w.Close()
	}
	first, second := sha256.Sum256(make([]byte, 700)), sha256.Sum256(bytes.Repeat([]byte{1}, 700))
	end := s.Use()
	s.Missing([]Digest{second, first}) // both are in use now
	if s.Shrink(1000) != 0 || len(s.Missing([]Digest{first, second})) != 0 {
		t.Error("dropped what a build uses")
	}
	get(s, second, 700)
	end()
	if m := s.Missing([]Digest{first, second}); len(m) != 1 || m[0] != first {
		t.Errorf("missing %x, want the one used longest ago", m)
	}
}
