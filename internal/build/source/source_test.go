package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

type item struct {
	name, body, link string
	kind             byte
}

func pack(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		if i.kind == 0 {
			i.kind = tar.TypeReg
		}
		h := &tar.Header{Typeflag: i.kind, Name: i.name, Linkname: i.link, Size: int64(len(i.body)), Mode: 0o640, Uid: 5, Gid: 6}
		if i.kind == tar.TypeDir {
			h.Mode = 0o750
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, i.body)
	}
	w.Close()
	return b.Bytes()
}

func read(t testing.TB, data []byte) *Archive {
	t.Helper()
	a, err := Read(t.Context(), bytes.NewReader(data), t.TempDir(), Root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// names lists a tree.
func names(t testing.TB, a *Archive) (out []string) {
	t.Helper()
	var visit func(e *Entry)
	visit = func(e *Entry) {
		list, err := a.List(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			out = append(out, c.Path)
			if c.IsDir() {
				visit(c)
			}
		}
	}
	root, _ := a.Stat("/", false)
	visit(root)
	return out
}

func TestReadPlainAndCompressed(t *testing.T) {
	data := pack(t, item{name: "./", kind: tar.TypeDir}, item{name: "./a/b/c", body: "hello"}, item{name: "/abs", body: "x"},
		item{name: "hard", link: "a/b/c", kind: tar.TypeLink}, item{name: "d", kind: tar.TypeDir})
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(data)
	w.Close()
	for name, in := range map[string][]byte{"plain": data, "gzip": gz.Bytes()} {
		t.Run(name, func(t *testing.T) {
			a := read(t, in)
			if d := cmp.Diff([]string{"/a", "/a/b", "/a/b/c", "/abs", "/d", "/hard"}, names(t, a)); d != "" {
				t.Error(d)
			}
			body, err := ReadFile(a, "/hard", 100)
			if err != nil || string(body) != "hello" {
				t.Errorf("%q, %v", body, err)
			}
			e, _ := a.Stat("a/b/c", false)
			h, _ := a.Stat("hard", false)
			if e.Same == nil || e.Same != h.Same || e.UID != 0 || e.Mode != 0o640 {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestHostileTars(t *testing.T) {
	tests := map[string][]item{
		"climbs":              {{name: "../x", body: "x"}},
		"climbs in the end":   {{name: "a/../../x", body: "x"}},
		"through a link loop": {{name: "l", link: "l", kind: tar.TypeSymlink}, {name: "l/x", body: "x"}},
		"under a file":        {{name: "f", body: "x"}, {name: "f/x", body: "x"}},
		"link to nothing":     {{name: "h", link: "/etc/passwd", kind: tar.TypeLink}},
		"dangling parent":     {{name: "l", link: "/etc", kind: tar.TypeSymlink}, {name: "l/x", body: "x"}},
	}
	for name, items := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := Read(t.Context(), bytes.NewReader(pack(t, items...)), dir, Root)
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("error %v, want Invalid", err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
	t.Run("cut off", func(t *testing.T) {
		data := pack(t, item{name: "f", body: strings.Repeat("x", 5000)})
		if _, err := Read(t.Context(), bytes.NewReader(data[:3000]), t.TempDir(), Root); !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	})
}

func TestSymlinksStayInside(t *testing.T) {
	a := read(t, pack(t, item{name: "etc/passwd", body: "inside"},
		item{name: "up", link: "../../../../etc", kind: tar.TypeSymlink},
		item{name: "abs", link: "/etc/passwd", kind: tar.TypeSymlink},
		item{name: "loop", link: "loop", kind: tar.TypeSymlink},
		item{name: "out", link: "/root/secret", kind: tar.TypeSymlink}))
	for _, name := range []string{"/up/passwd", "/abs", "/up/../abs", "/../../etc/passwd"} {
		if body, err := ReadFile(a, name, 100); err != nil || string(body) != "inside" {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
	for _, name := range []string{"/loop", "/out", "/none", "/abs/x"} {
		if _, err := a.Stat(name, true); err == nil {
			t.Errorf("%s found", name)
		}
	}
	if e, err := a.Stat("/out", false); err != nil || e.Mode&fs.ModeSymlink == 0 {
		t.Error(err)
	}
}

func TestPrune(t *testing.T) {
	tests := []struct {
		ignore string
		want   []string
	}{
		{"", []string{"/a", "/a/x.log", "/a/y", "/b", "/b/keep", "/b/z", "/c.log"}},
		{"*.log", []string{"/a", "/a/x.log", "/a/y", "/b", "/b/keep", "/b/z"}},
		{"**/*.log", []string{"/a", "/a/y", "/b", "/b/keep", "/b/z"}},
		{"b\n!b/keep", []string{"/a", "/a/x.log", "/a/y", "/b", "/b/keep", "/c.log"}},
		{"# comment\n*\n!/a", []string{"/a", "/a/x.log", "/a/y"}},
	}
	for _, tt := range tests {
		a := read(t, pack(t, item{name: "a/x.log"}, item{name: "a/y"}, item{name: "b/keep"}, item{name: "b/z"}, item{name: "c.log"}))
		p, err := Patterns([]byte(tt.ignore))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Prune(p); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, names(t, a)); d != "" {
			t.Errorf("%q: %s", tt.ignore, d)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pack(f, item{name: "a/b", body: "x"}, item{name: "l", link: "a", kind: tar.TypeSymlink}, item{name: "l/c", body: "y"}))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Read(t.Context(), bytes.NewReader(data), dir, Kept)
		if err != nil {
			return
		}
		defer a.Close()
		for _, n := range names(t, a) {
			a.Stat(n, true)
		}
	})
}

func BenchmarkRead5000(b *testing.B) {
	var items []item
	for i := range 5000 {
		items = append(items, item{name: "src/" + strings.Repeat("d/", i%5) + "f" + string(rune('a'+i%26)) + strings.Repeat("x", i%50) + fmt.Sprint(i), body: strings.Repeat("content ", 512)})
	}
	data := pack(b, items...)
	dir := b.TempDir()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		a, err := Read(b.Context(), bytes.NewReader(data), dir, Root)
		if err != nil {
			b.Fatal(err)
		}
		a.Close()
	}
}
