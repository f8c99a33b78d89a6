package build

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/listing"
)

// tree is a folder with a memory of its own.
type tree struct {
	*testing.T
	dir      string
	patterns []string
	m        memory
}

func newTree(t *testing.T) *tree {
	return &tree{T: t, dir: t.TempDir(), m: memory{filepath.Join(t.TempDir(), "memory")}}
}

func (t *tree) write(name, text string) {
	t.Helper()
	p := filepath.Join(t.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// old lets all files of the memory look as if they had been read long after they changed.
func (t *tree) old() {
	t.Helper()
	root, trust := t.m.load(t.patterns)
	if root == nil || !trust {
		t.Fatal("no memory")
	}
	var visit func(*node)
	visit = func(n *node) {
		for _, c := range n.Children {
			if c.At != 0 {
				c.At += 10e9
			}
			visit(c)
		}
	}
	visit(root)
	t.m.save(root, t.patterns)
}

// look looks, remembers, and returns the listing's digest and which files were read.
func (t *tree) look() (digest listing.Digest, read []string) {
	t.Helper()
	old, trust := t.m.load(t.patterns)
	f, err := look(t.Context(), t.dir, t.patterns, old, trust)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, h := range f.hash {
		read = append(read, h.path)
	}
	slices.Sort(read)
	t.m.save(f.root, t.patterns)
	return f.list().Digest(), read
}

func TestOnlyChangedFilesAreReadAgain(t *testing.T) {
	tr := newTree(t)
	for _, n := range []string{"a", "d/b", "d/e/c", "z"} {
		tr.write(n, "text of "+n)
	}
	os.Symlink("a", filepath.Join(tr.dir, "link"))
	os.Link(filepath.Join(tr.dir, "a"), filepath.Join(tr.dir, "d", "hard"))
	at := func(name string) string { return filepath.Join(tr.dir, name) }
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	tr.look()
	steps := []struct {
		what string
		do   func()
		same bool // the listing
		read []string
	}{
		{"nothing", func() {}, true, nil},
		{"a file", func() { tr.write("z", "other of z") }, false, []string{"z"}},
		{"same size and time", func() {
			st, _ := os.Stat(at("z"))
			tr.write("z", "third of z")
			must(os.Chtimes(at("z"), st.ModTime(), st.ModTime()))
		}, false, []string{"z"}},
		{"a mode", func() { must(os.Chmod(at("d/b"), 0o755)) }, false, []string{"d/b"}},
		{"an owner, which does not travel", func() { must(os.Chown(at("d/b"), 5, 5)) }, true, []string{"d/b"}},
		{"a time", func() { must(os.Chtimes(at("z"), time.Unix(7, 0), time.Unix(7, 0))) }, false, []string{"z"}},
		{"a new name", func() { must(os.Rename(at("z"), at("y"))) }, false, []string{"y"}},
		{"a new name of a folder", func() { must(os.Rename(at("d/e"), at("d/f"))) }, false, []string{"d/f/c"}},
		{"names exchanged", func() {
			must(unix.Renameat2(unix.AT_FDCWD, at("y"), unix.AT_FDCWD, at("d/f/c"), unix.RENAME_EXCHANGE))
		}, false, []string{"d/f/c", "y"}},
		{"a symlink", func() { must(os.Remove(at("link"))); must(os.Symlink("d", at("link"))) }, false, nil},
		{"a symlink in place of a file", func() { must(os.Remove(at("y"))); must(os.Symlink("d", at("y"))) }, false, nil},
		{"a folder in place of a symlink", func() { must(os.Remove(at("y"))); tr.write("y/q", "") }, false, []string{"y/q"}},
		{"a file less", func() { must(os.Remove(at("d/b"))) }, false, nil},
		{"an attribute", func() { must(unix.Setxattr(at("d/f/c"), "user.x", []byte("1"), 0)) }, false, []string{"d/f/c"}},
		{"a link less", func() { must(os.Remove(at("d/hard"))) }, false, []string{"a"}},
	}
	before, _ := tr.look()
	for _, s := range steps {
		tr.old()
		s.do()
		got, read := tr.look()
		if !slices.Equal(read, s.read) {
			t.Errorf("%s: read %q, want %q", s.what, read, s.read)
		}
		if (got == before) != s.same {
			t.Errorf("%s: the same listing: %t", s.what, got == before)
		}
		// A client without memory comes to the same.
		fresh := &tree{T: t, dir: tr.dir, m: memory{filepath.Join(t.TempDir(), "none")}}
		if all, _ := fresh.look(); all != got {
			t.Errorf("%s: the memory is wrong", s.what)
		}
		before = got
	}
}

// An edit within one tick of the file system's clock, that keeps the size, is seen all the same.
func TestEditsWithinATick(t *testing.T) {
	tr := newTree(t)
	seen := map[listing.Digest]int{}
	for i := range 200 {
		f, err := os.OpenFile(filepath.Join(tr.dir, "f"), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "%04d", i)
		f.Close()
		fixed := time.Unix(1000, 0)
		os.Chtimes(f.Name(), fixed, fixed)
		d, _ := tr.look()
		if j, ok := seen[d]; ok {
			t.Fatalf("edit %d looks like edit %d", i, j)
		}
		seen[d] = i
	}
}

func TestSettled(t *testing.T) {
	const s = int64(1e9)
	tests := []struct {
		changed, at int64
		want        bool
	}{
		{100*s + 123456789, 101 * s, true},
		{100*s + 123456789, 100*s + 150e6, false},     // within a tick
		{100*s + 123456789, 100*s + 123456789, false}, // at once
		{100 * s, 101 * s, false},                     // whole seconds: FAT's clock
		{100 * s, 104 * s, true},
		{200*s + 123456789, 100 * s, false}, // the clock was put back since
		{100*s + 123456789, 0, false},       // never read
	}
	for _, tt := range tests {
		n := &node{Changed: tt.changed, At: tt.at}
		n.Kind = listing.File
		if got := n.settled(); got != tt.want {
			t.Errorf("changed %d, read %d: settled %t", tt.changed, tt.at, got)
		}
	}
}

func TestIgnored(t *testing.T) {
	tr := newTree(t)
	for _, n := range []string{"a.log", "b", "d/x.log", "d/keep.log", "e/f"} {
		tr.write(n, n)
	}
	tests := []struct{ patterns, want string }{
		{"", "a.log b d d/keep.log d/x.log e e/f"},
		{"*.log", "b d d/keep.log d/x.log e e/f"},
		{"**/*.log", "b d e e/f"},
		{"**/*.log\n!d/keep.log", "b d d/keep.log e e/f"},
		{"d\n!d/keep.log", "a.log b d d/keep.log e e/f"},
		{"*\n!e", "e e/f"},
		{"e", "a.log b d d/keep.log d/x.log"},
		{"", "a.log b d d/keep.log d/x.log e e/f"},
	}
	for _, tt := range tests {
		tr.patterns = nil
		if tt.patterns != "" {
			tr.patterns = strings.Split(tt.patterns, "\n")
		}
		for range 2 { // without and with a memory of the same patterns
			old, trust := tr.m.load(tr.patterns)
			f, err := look(t.Context(), tr.dir, tr.patterns, old, trust)
			if err != nil {
				t.Fatal(err)
			}
			f.close()
			tr.m.save(f.root, tr.patterns)
			if got := strings.Join(names(t, f.list().Bytes()), " "); got != tt.want {
				t.Errorf("%q: %s, want %s", tt.patterns, got, tt.want)
			}
		}
	}
}

// names are the paths in a listing.
func names(t *testing.T, data []byte) (out []string) {
	t.Helper()
	at := []string{}
	err := listing.Decode(data, func(e *listing.Entry) error {
		p := strings.Join(append(slices.Clone(at), e.Name), "/")
		out = append(out, p)
		if e.Kind == listing.Dir {
			at = append(at, e.Name)
		}
		return nil
	}, func() { at = at[:len(at)-1] })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDamagedMemory(t *testing.T) {
	tr := newTree(t)
	tr.write("a", "x")
	tr.write("d/b", "y")
	want, _ := tr.look()
	good, err := os.ReadFile(tr.m.path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x21
		os.WriteFile(tr.m.path, bad, 0o600)
		if root, _ := tr.m.load(nil); root != nil {
			t.Fatalf("byte %d: a damaged memory was taken", i)
		}
		os.WriteFile(tr.m.path, good[:i], 0o600)
		if root, _ := tr.m.load(nil); root != nil {
			t.Fatalf("byte %d: a cut memory was taken", i)
		}
	}
	if got, _ := tr.look(); got != want {
		t.Error("another digest")
	}
}

// Several clients at once may use one memory.
func TestClientsAtOnce(t *testing.T) {
	tr := newTree(t)
	for i := range 300 {
		tr.write(fmt.Sprintf("d%d/f%d", i%7, i), fmt.Sprint(i))
	}
	want, _ := tr.look()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 10 {
				if got, _ := tr.look(); got != want {
					t.Error("another digest")
				}
			}
		})
	}
	group.Wait()
	if left, _ := os.ReadDir(filepath.Dir(tr.m.path)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte("\x01f\x00\x01a\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &scanner{rest: string(data)}
		d.children(&node{}, 0)
	})
}

func BenchmarkLook5000(b *testing.B) {
	dir, m := b.TempDir(), memory{filepath.Join(b.TempDir(), "memory")}
	for i := range 5000 {
		p := filepath.Join(dir, fmt.Sprintf("src/d%d", i%50), fmt.Sprintf("f%d", i))
		os.MkdirAll(filepath.Dir(p), 0o755)
		os.WriteFile(p, make([]byte, 1000), 0o644)
	}
	time.Sleep(150 * time.Millisecond) // until the files' times are settled
	for b.Loop() {
		old, trust := m.load(nil)
		f, err := look(b.Context(), dir, nil, old, trust)
		if err != nil {
			b.Fatal(err)
		}
		f.list().Digest()
		if f.fresh || len(f.hash) > 0 {
			m.save(f.root, nil)
		}
		f.close()
	}
}
