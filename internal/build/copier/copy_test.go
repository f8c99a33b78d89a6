package copier

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"tare/internal/build/rootfs"
	"tare/internal/build/source"
)

var when = time.Unix(1_500_000_000, 0)

// pack makes a context: "dir/" is a folder, "a->b" a symlink, "a=>b" a hard link, "a mode" a file.
func pack(t *testing.T, names ...string) *source.Archive {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o640, Uid: 7, Gid: 8, ModTime: when}
		if from, to, ok := strings.Cut(n, "->"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, from, to
		} else if from, to, ok := strings.Cut(n, "=>"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeLink, from, to
		} else if strings.HasSuffix(n, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o750
		} else {
			h.Size = int64(len(n))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte(n))
		}
	}
	w.Close()
	a, err := source.Read(t.Context(), &b, t.TempDir(), source.Root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// mount makes a root of two layers and a fresh upper directory.
func mount(t *testing.T, lower func(dir string)) (root *rootfs.Root, upper string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"l1", "l2", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if lower != nil {
		lower(filepath.Join(dir, "l2"))
	}
	root, err := rootfs.Open([]string{dir + "/l1", dir + "/l2"}, dir+"/upper", dir+"/work")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir + "/upper"
}

// tree lists a folder: mode, owner, name, and content or target.
func tree(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%o %d:%d %s", st.Mode, st.Uid, st.Gid, rel)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			line += " -> " + to
		case d.Type().IsRegular():
			body, _ := os.ReadFile(p)
			line += " " + string(body)
			if st.Nlink > 1 {
				line += fmt.Sprint(" links ", st.Nlink)
			}
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func number[T any](v T) *T { return &v }

func TestCopy(t *testing.T) {
	tests := []struct {
		name    string
		context []string
		lower   func(dir string)
		from    []string
		exclude []string
		o       Options
		parents bool
		want    []string
		err     string
	}{
		{name: "file to a name", context: []string{"a"}, from: []string{"/a"}, o: Options{Dest: "/x/y"},
			want: []string{"40755 0:0 x", "100640 0:0 x/y a"}},
		{name: "file into a folder", context: []string{"a"}, from: []string{"/a"}, o: Options{Dest: "/x/"},
			want: []string{"40755 0:0 x", "100640 0:0 x/a a"}},
		{name: "file onto an existing folder", context: []string{"a"}, from: []string{"/a"}, o: Options{Dest: "/d"},
			lower: func(d string) { os.Mkdir(d+"/d", 0o711) },
			want:  []string{"40711 0:0 d", "100640 0:0 d/a a"}},
		{name: "folder's contents, fresh", context: []string{"s/", "s/a", "s/b/", "s/b/c"}, from: []string{"/s"}, o: Options{Dest: "/x"},
			want: []string{"40755 0:0 x", "100640 0:0 x/a s/a", "40750 0:0 x/b", "100640 0:0 x/b/c s/b/c"}},
		{name: "folder's contents into an existing one", context: []string{"s/", "s/a"}, from: []string{"/s"}, o: Options{Dest: "/x/"},
			lower: func(d string) { os.Mkdir(d+"/x", 0o700) },
			want:  []string{"40700 0:0 x", "100640 0:0 x/a s/a"}},
		{name: "everything", context: []string{"a", "b/", "b/c"}, from: []string{"/"}, o: Options{Dest: "/"},
			want: []string{"100640 0:0 a a", "40750 0:0 b", "100640 0:0 b/c b/c"}},
		{name: "wildcards", context: []string{"a.go", "b.go", "c.txt", "d/x.go"}, from: []string{"/*.go", "/*/x.g?"}, o: Options{Dest: "/s/"},
			want: []string{"40755 0:0 s", "100640 0:0 s/a.go a.go", "100640 0:0 s/b.go b.go", "100640 0:0 s/x.go d/x.go"}},
		{name: "wildcard without a match beside a match", context: []string{"a"}, from: []string{"/a", "/no*"}, o: Options{Dest: "/s/"},
			want: []string{"40755 0:0 s", "100640 0:0 s/a a"}},
		{name: "wildcard without a match", context: []string{"a"}, from: []string{"/no*"}, o: Options{Dest: "/s/"},
			err: "COPY failed: no source files were specified"},
		{name: "missing", context: []string{"a"}, from: []string{"/b/x"}, o: Options{Dest: "/"},
			err: "COPY failed: file not found in build context or excluded by .dockerignore: stat b/x: file does not exist"},
		{name: "owner and mode", context: []string{"s/", "s/a"}, from: []string{"/s"}, o: Options{Dest: "/p/x/", Owner: &Owner{12, 34}, Mode: "4711"},
			want: []string{"40755 12:34 p", "40755 12:34 p/x", "104711 12:34 p/x/a s/a"}},
		{name: "symlink as source is followed", context: []string{"a", "l->a"}, from: []string{"/l"}, o: Options{Dest: "/x/"},
			want: []string{"40755 0:0 x", "100640 0:0 x/l a"}},
		{name: "symlinks below a folder stay", context: []string{"s/", "s/l->/etc/passwd"}, from: []string{"/s"}, o: Options{Dest: "/"},
			want: []string{"120777 0:0 l -> /etc/passwd"}},
		{name: "hard links stay", context: []string{"s/", "s/a", "s/b=>s/a"}, from: []string{"/s"}, o: Options{Dest: "/"},
			want: []string{"100640 0:0 a s/a links 2", "100640 0:0 b s/a links 2"}},
		{name: "destination through a symlink stays inside", context: []string{"a"}, from: []string{"/a"}, o: Options{Dest: "/l/x"},
			lower: func(d string) { os.Symlink("../../../../tmp", d+"/l") },
			want:  []string{"40755 0:0 tmp", "100640 0:0 tmp/x a"}},
		{name: "destination is a symlink to a file", context: []string{"a"}, from: []string{"/a"}, o: Options{Dest: "/l"},
			lower: func(d string) { os.Symlink("/etc/x", d+"/l") },
			want:  []string{"40755 0:0 etc", "100640 0:0 etc/x a"}},
		{name: "file replaces file", context: []string{"a"}, from: []string{"/a"}, o: Options{Dest: "/x"},
			lower: func(d string) { os.WriteFile(d+"/x", []byte("old content"), 0o600) },
			want:  []string{"100640 0:0 x a"}},
		{name: "file over folder", context: []string{"s/", "s/d"}, from: []string{"/s"}, o: Options{Dest: "/"},
			lower: func(d string) { os.Mkdir(d+"/d", 0o755) }, err: "cannot overwrite directory /d with non-directory"},
		{name: "folder over file", context: []string{"s/", "s/d/"}, from: []string{"/s"}, o: Options{Dest: "/"},
			lower: func(d string) { os.WriteFile(d+"/d", nil, 0o644) }, err: "cannot copy to non-directory: /d"},
		{name: "folder to a file", context: []string{"s/"}, from: []string{"/s"}, o: Options{Dest: "/d"},
			lower: func(d string) { os.WriteFile(d+"/d", nil, 0o644) }, err: "cannot copy to non-directory: /d"},
		{name: "whiteout name", context: []string{".wh.etc"}, from: []string{"/"}, o: Options{Dest: "/"}, err: "mark deleted files in layers"},
		{name: "exclude", context: []string{"s/", "s/a", "s/b.md", "s/c/", "s/c/d.md"}, from: []string{"/s"}, exclude: []string{"**/*.md"}, o: Options{Dest: "/"},
			want: []string{"100640 0:0 a s/a", "40750 0:0 c"}},
		{name: "parents", context: []string{"x/", "x/y/", "x/y/a", "x/b"}, from: []string{"/x/y/a", "/x/./b"}, o: Options{Dest: "/d/"}, parents: true,
			want: []string{"40755 0:0 d", "100640 0:0 d/b x/b", "40750 0:0 d/x", "40750 0:0 d/x/y", "100640 0:0 d/x/y/a x/y/a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, upper := mount(t, tt.lower)
			tt.o.Word, tt.o.Time = "COPY", when
			s, err := Select(pack(t, tt.context...), "COPY", tt.from, tt.exclude, tt.parents)
			if err == nil {
				err = Copy(t.Context(), root, s, tt.o)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, tree(t, upper)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTimesAreTheSource(t *testing.T) {
	old := time.Unix(1_400_000_000, 0)
	root, upper := mount(t, func(d string) {
		os.Mkdir(d+"/old", 0o755)
		os.Chtimes(d+"/old", old, old)
	})
	s, err := Select(pack(t, "s/", "s/a", "s/l->x"), "COPY", []string{"/s"}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, dest := range []string{"/new/sub/", "/old/"} {
		if err := Copy(t.Context(), root, s, Options{Dest: dest, Word: "COPY", Time: when}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]time.Time{"new": when, "new/sub": when, "new/sub/a": when, "new/sub/l": when, "old": old, "old/a": when} {
		st, err := os.Lstat(filepath.Join(upper, name))
		if err != nil || !st.ModTime().Equal(want) {
			t.Errorf("%s: %v, %v, want %v", name, st.ModTime(), err, want)
		}
	}
}

func TestCopyBetweenRoots(t *testing.T) {
	from, _ := mount(t, func(d string) {
		os.WriteFile(d+"/f", []byte("body"), 0o4755)
		os.Chmod(d+"/f", 0o4755|fs.ModeSetuid)
		os.Chown(d+"/f", 3, 4)
		os.Chmod(d+"/f", 0o755|fs.ModeSetuid)
		os.Link(d+"/f", d+"/g")
		os.Symlink("f", d+"/l")
		unix.Mknod(d+"/gone", unix.S_IFCHR, 0)
		unix.Mkfifo(d+"/p", 0o600)
	})
	root, upper := mount(t, nil)
	s, err := Select(from, "COPY", []string{"/"}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := Copy(t.Context(), root, s, Options{Dest: "/d", Word: "COPY"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"40755 0:0 d", "104755 3:4 d/f body links 2", "104755 3:4 d/g body links 2", "120777 0:0 d/l -> f", "10600 0:0 d/p"}
	if d := cmp.Diff(want, tree(t, upper)); d != "" {
		t.Error(d)
	}
}

func TestSum(t *testing.T) {
	sum := func(owners bool, names ...string) string {
		s, err := Select(pack(t, names...), "COPY", []string{"/"}, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Sum(owners)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	seen := []string{sum(false, "a", "b"), sum(false, "a"), sum(false, "a", "b->a"), sum(false, "a", "b/"), sum(false, "a", "x/b")}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 5 {
		t.Errorf("different trees have one sum: %v", seen)
	}
	if sum(false, "a", "b") != sum(false, "b", "a") {
		t.Error("the tar's order matters")
	}
}

func TestMakeDir(t *testing.T) {
	root, upper := mount(t, func(d string) { os.Symlink("real", d+"/link") })
	if err := MakeDir(root, "/link/a/b", Owner{5, 6}, when); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"40755 5:6 real", "40755 5:6 real/a", "40755 5:6 real/a/b"}, tree(t, upper)); d != "" {
		t.Error(d)
	}
}
