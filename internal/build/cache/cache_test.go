package cache

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// store is an image store that counts holds.
type store struct {
	holds map[string][]digest.Digest
	gone  map[digest.Digest]bool
}

func newStore() *store {
	return &store{holds: map[string][]digest.Digest{}, gone: map[digest.Digest]bool{}}
}
func (s *store) Hold(h string, ids ...digest.Digest) { s.holds[h] = ids }
func (s *store) Release(h string)                    { delete(s.holds, h) }
func (s *store) has(d digest.Digest) bool            { return !s.gone[d] }

func open(t *testing.T, dir string, s *store) *Cache {
	t.Helper()
	c, err := Open(dir, s, s.has)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestRecordsSurviveRestart(t *testing.T) {
	dir, layer := t.TempDir(), digest.FromString("layer")
	c := open(t, dir, newStore())
	if err := c.Put(Record{Key: "k1", Kind: "run", About: "RUN true", Layer: layer, Size: 7}, "b"); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(Record{Key: "k2", Kind: "run"}, "b"); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get("k1", "b"); !ok {
		t.Fatal("record is not there")
	}
	c.Close()

	s := newStore()
	c = open(t, dir, s)
	r, ok := c.Get("k1", "b2")
	if !ok || r.Layer != layer || r.Uses != 2 || r.Size != 7 {
		t.Errorf("after restart: %+v, %v", r, ok)
	}
	if len(s.holds) != 1 {
		t.Errorf("holds %v, want one", s.holds)
	}
}

func TestRecordWithoutLayerIsDropped(t *testing.T) {
	dir, layer, s := t.TempDir(), digest.FromString("layer"), newStore()
	c := open(t, dir, s)
	for _, k := range []string{"k1", "k2"} {
		if err := c.Put(Record{Key: k, Layer: layer}, "b"); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	s.gone[layer] = true
	if _, ok := c.Get("k1", "b"); ok {
		t.Error("Get returned a record whose layer is gone")
	}
	c = open(t, dir, newStoreWithout(layer))
	if n := len(c.List()); n != 0 {
		t.Errorf("%d records after Open, want none", n)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("files left: %v", left)
	}
}

func newStoreWithout(d digest.Digest) *store {
	s := newStore()
	s.gone[d] = true
	return s
}

func TestPinnedIsNotRemoved(t *testing.T) {
	s := newStore()
	c := open(t, t.TempDir(), s)
	if err := c.Put(Record{Key: "k", Layer: digest.FromString("x")}, "b"); err != nil {
		t.Fatal(err)
	}
	if c.Remove("k") {
		t.Error("removed under a running build")
	}
	if !c.List()[0].InUse {
		t.Error("not shown as in use")
	}
	c.Unpin("b")
	if !c.Remove("k") || len(s.holds) != 0 || len(c.List()) != 0 {
		t.Error("not removed after Unpin")
	}
}

func TestBrokenRecordIsForgotten(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "k.json"), []byte("{"), 0o600)
	os.WriteFile(filepath.Join(dir, ".tmp-k.json-1"), nil, 0o600)
	c := open(t, dir, newStore())
	if left, _ := os.ReadDir(dir); len(left) != 0 || len(c.List()) != 0 {
		t.Errorf("left: %v", left)
	}
}
