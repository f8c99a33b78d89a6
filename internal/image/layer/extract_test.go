package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func extract(t testing.TB, root, dir string, o ExtractOptions, tarball []byte) (Extracted, error) {
	t.Helper()
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return Extract(context.Background(), f, dir, bytes.NewReader(tarball), o)
}

// TestExtractIntoARootThatFights is docker cp into a container whose folders are symlinks to the host.
func TestExtractIntoARootThatFights(t *testing.T) {
	outside := t.TempDir()
	root := t.TempDir()
	for name, target := range map[string]string{"abs": outside, "rel": strings.Repeat("../", 30) + outside[1:], "in": "/data", "file": outside + "/new"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir string
		tar []byte
		bad bool
	}{
		{"", makeTar(t, regular("abs/x", "1")), true},
		{"", makeTar(t, regular("rel/x", "1")), true},
		{"abs", makeTar(t, regular("x", "1")), true},
		{"rel", makeTar(t, regular("x", "1")), true},
		{"nowhere", makeTar(t, regular("x", "1")), true},
		{"data", makeTar(t, regular("../x", "1")), true},
		{"in", makeTar(t, regular("x", "1")), false},
		{"../../in", makeTar(t, regular("y", "1")), false},
		{"", makeTar(t, regular("in/z", "1")), false},
		{"", makeTar(t, regular("file", "1")), false}, // replaces the symlink
		{"", makeTar(t, hardlink("data/h", "in/x")), false},
	} {
		_, err := extract(t, root, c.dir, ExtractOptions{}, c.tar)
		if (err != nil) != c.bad || c.bad && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", c.dir, err)
		}
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("got out: %v", names)
	}
	for _, name := range []string{"x", "y", "z", "h"} {
		if _, err := os.Lstat(filepath.Join(root, "data", name)); err != nil {
			t.Error(err)
		}
	}
	if st, err := os.Lstat(filepath.Join(root, "file")); err != nil || !st.Mode().IsRegular() {
		t.Error(st, err)
	}
}

func TestExtractOptions(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "d/sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	strict := ExtractOptions{NoOverwriteDirNonDir: true}
	_, err := extract(t, root, "", strict, makeTar(t, regular("d", "x")))
	if err == nil || !strings.Contains(err.Error(), `cannot overwrite directory "/d" with non-directory "d"`) {
		t.Error(err)
	}
	_, err = extract(t, root, "", strict, makeTar(t, dir("f/", 0o755)))
	if err == nil || !strings.Contains(err.Error(), `cannot overwrite non-directory "/f" with directory "f"`) {
		t.Error(err)
	}
	x, err := extract(t, root, "d", ExtractOptions{Owner: &Owner{UID: 7, GID: 8}}, makeTar(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o777, Uid: 9}, regular(".wh.x", "1"), dir("sub/", 0o750), symlink("l", "x"), regular("f", "22")))
	if err != nil || x.Bytes != 3 || x.Entries != 5 {
		t.Fatal(x, err)
	}
	got := describe(t, root)
	for _, want := range []string{`"d" 40700 0:0`, `"d/.wh.x" 100644 7:8`, `"d/sub" 40750 7:8`, `"d/l" 120777 7:8`, `"d/f" 100644 7:8`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if _, err := extract(t, root, "", ExtractOptions{}, makeTar(t, regular("d", "x"))); err != nil {
		t.Error("a folder was not replaced:", err)
	}
}

func TestExtractStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stop")
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := makeTar(t, regular("a", strings.Repeat("x", 8<<20)))
	r := io.MultiReader(bytes.NewReader(b[:1<<20]), readFunc(func([]byte) (int, error) { cancel(stop); return 0, ctx.Err() }))
	if _, err := Extract(ctx, f, "", r, ExtractOptions{}); !errors.Is(err, context.Canceled) && !errors.Is(err, stop) {
		t.Error(err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestWriteTarOfAPart(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"a/b/c", "z"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(root, "a/b/f"), []byte("1"), 0o644)
	os.Symlink("/etc/passwd", filepath.Join(root, "a/b/l"))
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		o    WriteOptions
		want string
	}{
		{WriteOptions{Name: "a/b", As: "b"}, "b/ b/c/ b/f b/l"},
		{WriteOptions{Name: "a/b", As: "new"}, "new/ new/c/ new/f new/l"},
		{WriteOptions{Name: "a/b"}, "c/ f l"},
		{WriteOptions{Name: "a/b/f", As: "g"}, "g"},
		{WriteOptions{Name: "a/b/l", As: "l"}, "l"},
		{WriteOptions{}, "a/ a/b/ a/b/c/ a/b/f a/b/l z/"},
		{WriteOptions{As: "root"}, "root/ root/a/ root/a/b/ root/a/b/c/ root/a/b/f root/a/b/l root/z/"},
		{WriteOptions{Skip: func(n string) bool { return n == "a/b" }}, "a/ z/"},
	} {
		var b bytes.Buffer
		if _, err := WriteTar(context.Background(), &b, f, c.o); err != nil {
			t.Fatal(err)
		}
		var names []string
		for tr := tar.NewReader(&b); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%+v: %s", c.o, got)
		}
	}
	for _, name := range []string{"a/b/l/x", "none", "a/b/f/x"} {
		if _, err := WriteTar(context.Background(), io.Discard, f, WriteOptions{Name: name, As: "x"}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRealTreeRoundTrip(t *testing.T) {
	// A real folder with links, odd modes and many files, through GNU tar, our unpacker, our writer and back.
	src := filepath.Join(t.TempDir(), "etc")
	if out, err := exec.Command("cp", "-a", "/etc", src).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	b, err := exec.Command("tar", "-C", src, "--xattrs", "--xattrs-include=*", "--format=posix", "--numeric-owner", "-cf", "-", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t)
	l := unpack(t, s, b)
	var again bytes.Buffer
	f, err := os.Open(s.Dir(l.DiffID))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := WriteTar(context.Background(), &again, f, WriteOptions{Overlay: true}); err != nil {
		t.Fatal(err)
	}
	l2 := unpack(t, s, again.Bytes())
	if diff := cmp.Diff(describe(t, s.Dir(l.DiffID)), describe(t, s.Dir(l2.DiffID))); diff != "" {
		t.Error(diff)
	}
	if err := exec.Command("diff", "-r", "--no-dereference", src, s.Dir(l.DiffID)).Run(); err != nil {
		t.Error("content differs from /etc")
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s, err := Open(filepath.Join(dir, "layers"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	b := makeTar(t, regular("small", "1"), regular("big", strings.Repeat("x", 8<<20)), regular("more", "1"))
	_, err = s.Unpack(context.Background(), bytes.NewReader(b), "")
	if !errors.Is(err, unix.ENOSPC) || errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"big"`) {
		t.Error(err)
	}
	leftovers(t, s)
}

func FuzzUnpack(f *testing.F) {
	f.Add(makeTar(f, regular("a/b", "1"), symlink("l", ".."), regular("l/x", "2"), hardlink("h", "a/b")))
	f.Add(makeTar(f, regular(".wh.a", ""), dir("a/", 0o755), regular("a/.wh..wh..opq", "")))
	f.Add(makeTar(f, dir("d/", 0o755), symlink("d/s", "../d"), regular("d/s/d", "2"), regular("d/s", "x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		s, err := Open(filepath.Join(top, "layers"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		l, err := s.Unpack(context.Background(), bytes.NewReader(data), "")
		if err != nil {
			leftovers(t, s)
		}
		if names, _ := os.ReadDir(top); len(names) != 1 {
			t.Fatalf("got out: %v", names)
		}
		if err != nil {
			return
		}
		// What was unpacked can be written, and that unpacks to the same.
		var b bytes.Buffer
		root, err := os.Open(s.Dir(l.DiffID))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if _, err := WriteTar(context.Background(), &b, root, WriteOptions{Overlay: true}); err != nil {
			t.Fatal(err)
		}
		l2, err := s.Unpack(context.Background(), bytes.NewReader(b.Bytes()), "")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(describe(t, s.Dir(l.DiffID)), describe(t, s.Dir(l2.DiffID))); diff != "" {
			t.Error(diff)
		}
	})
}
