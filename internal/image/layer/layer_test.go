package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "layers"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// makeTar writes headers; a header's content is its PAX record "test", taken off.
func makeTar(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range hs {
		body := h.PAXRecords["TEST.body"]
		delete(h.PAXRecords, "TEST.body")
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if len(h.PAXRecords) > 0 {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil && h.Typeflag == tar.TypeReg {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func regular(name, body string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"TEST.body": body}}
}

func dir(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
}

func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
}

func hardlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

// describe lists a tree, a line per entry.
func describe(t testing.TB, root string) string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if isWhiteout(&st) {
			lines = append(lines, fmt.Sprintf("%q whiteout", rel))
			return nil
		}
		line := fmt.Sprintf("%q %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		if rel != "." {
			line += fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + digest.FromBytes(b).Encoded()[:8]
			if st.Nlink > 1 {
				if first, ok := inodes[st.Ino]; ok {
					line += " = " + first
				} else {
					inodes[st.Ino] = rel
				}
			}
		case unix.S_IFLNK:
			l, _ := os.Readlink(p)
			line += " -> " + l
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev %d", st.Rdev)
		}
		xs, err := listXattrs(p)
		if err != nil {
			return err
		}
		if d.IsDir() && isOpaque(p) {
			line += " opaque"
		}
		var keys []string
		for k := range xs {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			line += fmt.Sprintf(" %s=%x", k, xs[k])
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func leftovers(t testing.TB, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n := e.Name(); n != fixDir && n != emptyDir && n != markDir {
			t.Errorf("left behind: %s", n)
		}
	}
	marks, _ := os.ReadDir(filepath.Join(s.dir, markDir))
	if len(marks) > 0 {
		t.Errorf("left behind: mark %s", marks[0].Name())
	}
}

func unpack(t testing.TB, s *Store, tarball []byte) Layer {
	t.Helper()
	l, err := s.Unpack(context.Background(), bytes.NewReader(tarball), digest.FromBytes(tarball))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUnpackKeepsEverything(t *testing.T) {
	s := openStore(t)
	at := time.Unix(1600000000, 123456789)
	long := strings.Repeat("long-name/", 30) + "end"
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x06\x00\x37\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"
	b := makeTar(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, Uid: 5, Gid: 6, ModTime: at, Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2770, Uid: 7, Gid: 8, ModTime: at, PAXRecords: map[string]string{"SCHILY.xattr.system.posix_acl_default": acl}},
		tar.Header{Name: "d/suid", Mode: 0o6755, Uid: 1000, Gid: 100000, ModTime: at, PAXRecords: map[string]string{
			"TEST.body": "hello", "SCHILY.xattr.security.capability": caps, "SCHILY.xattr.user.x": "y\x00z", "SCHILY.xattr.system.posix_acl_access": acl}},
		tar.Header{Name: "d/" + long, ModTime: at, PAXRecords: map[string]string{"TEST.body": strings.Repeat("x", 300<<10)}},
		tar.Header{Name: "d/\xff\xfe", ModTime: at, PAXRecords: map[string]string{"TEST.body": "latin"}},
		hardlink("link", "d/suid"),
		tar.Header{Typeflag: tar.TypeSymlink, Name: "sym", Linkname: "../../../etc/passwd", Mode: 0o777, Uid: 3, Gid: 4, ModTime: at, Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o640, ModTime: at, Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: at, Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 300, ModTime: at, Format: tar.FormatPAX},
		regular("d/.wh.gone", ""),
		dir("op/", 0o755),
		regular("op/.wh..wh..opq", ""),
		regular(".wh..wh.plnk", ""),
		regular("implied/x", "1"),
	)
	b = append(b, make([]byte, 9000)...) // trailing bytes belong to the diffID
	l := unpack(t, s, b)
	if l.Size != 5+300<<10+5+1 {
		t.Errorf("size %d", l.Size)
	}
	got := describe(t, s.Dir(l.DiffID))
	for _, want := range []string{
		`"." 40711 5:6`,
		`"d" 42770 7:8 1600000000.123456789 system.posix_acl_default`,
		`"d/suid" 106775 1000:100000 1600000000.123456789 2cf24dba security.capability=` + fmt.Sprintf("%x", caps),
		`user.x=79007a`,
		`"d/\xff\xfe" 100644`,
		`"d/gone" whiteout`,
		`"link" 106775 1000:100000 1600000000.123456789 2cf24dba = d/suid`,
		`"sym" 120777 3:4 1600000000.123456789 -> ../../../etc/passwd`,
		`"fifo" 10640`, `"null" 20666 0:0 1600000000.123456789 dev 259`, fmt.Sprintf(`"sda" 60660 0:6 1600000000.123456789 dev %d`, unix.Mkdev(8, 300)),
		`opaque`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "plnk") {
		t.Error("aufs bookkeeping was unpacked")
	}
	r, _ := s.get(l.DiffID)
	if len(r.Implied) != 31 || r.Implied[30] != "implied" {
		t.Errorf("implied: %q", r.Implied)
	}
	// A second store opened on the same folder knows it.
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if l2, err := again.Get(l.DiffID); err != nil || l2 != l {
		t.Errorf("reopened: %+v, %v", l2, err)
	}
}

func TestSparseFilesStaySparse(t *testing.T) {
	src := t.TempDir()
	f, err := os.Create(filepath.Join(src, "big"))
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("middle"), 40<<20)
	f.Truncate(100 << 20)
	f.Close()
	for _, format := range []string{"gnu", "posix"} {
		b := gnuTar(t, src, "--sparse", "--format="+format)
		s := openStore(t)
		l := unpack(t, s, b)
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(s.Dir(l.DiffID), "big"), &st); err != nil {
			t.Fatal(err)
		}
		if st.Size != 100<<20 || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes in %d blocks", format, st.Size, st.Blocks)
		}
	}
}

// hostileSecret is a file outside every root; its folder is the goal of the escapes.
func TestHostileTarsStayInside(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + outside[1:]
	for name, entries := range map[string][]tar.Header{
		"dotdot name":                    {regular(up+"/x", "")},
		"dotdot folder":                  {dir(up+"/x", 0o777)},
		"dotdot after folder":            {dir("a/", 0o755), regular("a/../../x", "")},
		"symlink, absolute, file in it":  {symlink("l", outside), regular("l/x", "")},
		"symlink, relative, file in it":  {symlink("l", up), regular("l/x", "")},
		"symlink to parent":              {symlink("l", ".."), regular("l/x", "")},
		"symlink chain":                  {symlink("a", "b"), symlink("b", ".."), regular("a/x", "")},
		"symlink loop":                   {symlink("a", "b"), symlink("b", "a"), regular("a/x", "")},
		"symlink with dots":              {dir("d/", 0o755), symlink("d/l", "./.././../"), regular("d/l/x", "")},
		"symlink, folder in it":          {symlink("l", up), dir("l/x/", 0o777)},
		"symlink, device in it":          {symlink("l", up), {Typeflag: tar.TypeChar, Name: "l/x", Devmajor: 1, Devminor: 3}},
		"symlink, whiteout in it":        {symlink("l", up), regular("l/.wh.secret", "")},
		"symlink, opaque in it":          {symlink("l", up), regular("l/.wh..wh..opq", "")},
		"symlink, hardlink through it":   {symlink("l", outside), hardlink("h", "l/secret")},
		"hardlink, dotdot":               {hardlink("h", up+"/secret")},
		"hardlink, absolute":             {hardlink("h", secret)},
		"hardlink to nothing":            {hardlink("h", "nothing")},
		"hardlink to folder":             {dir("d/", 0o755), hardlink("h", "d")},
		"hardlink to root":               {hardlink("h", "/")},
		"hardlink to itself":             {regular("h", "x"), hardlink("h", "h")},
		"hardlink to whiteout name":      {regular(".wh.x", ""), hardlink("h", ".wh.x")},
		"hardlink to symlink, write":     {symlink("l", secret), hardlink("h", "l"), regular("h/x", "")},
		"device, dotdot":                 {{Typeflag: tar.TypeBlock, Name: up + "/x", Devmajor: 8}},
		"whiteout of ..":                 {regular(".wh...", "")},
		"whiteout of .. in folder":       {dir("a/", 0o755), regular("a/.wh...", "")},
		"whiteout of .":                  {regular(".wh..", "")},
		"whiteout of nothing":            {regular(".wh.", "")},
		"whiteout, dotdot":               {regular("../.wh.secret", "")},
		"folder named like a whiteout":   {regular(".wh.a/x", "")},
		"file as a folder":               {regular("f", ""), regular("f/x", "")},
		"root is a file":                 {regular(".", "x")},
		"name too long":                  {regular(strings.Repeat("x", 256), "")},
		"symlink replaced by its folder": {symlink("l", up), regular("l/secret/x", "")},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			b := makeTar(t, entries...)
			_, err := s.Unpack(context.Background(), bytes.NewReader(b), digest.FromBytes(b))
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("error is %v", err)
			}
			leftovers(t, s)
			names, _ := os.ReadDir(outside)
			if len(names) != 1 {
				t.Fatalf("got out: %v", names)
			}
			var st unix.Stat_t
			if err := unix.Stat(secret, &st); err != nil || st.Nlink != 1 || st.Mode&0o777 != 0o600 {
				t.Errorf("secret changed: %+v %v", st, err)
			}
		})
	}
}

func TestTricksThatStayInsideAreFine(t *testing.T) {
	for name, c := range map[string]struct {
		entries []tar.Header
		want    []string // of describe, without times
	}{
		"absolute name":             {[]tar.Header{regular("/etc/x", "1")}, []string{`"etc/x" 100644`}},
		"dotdot inside":             {[]tar.Header{regular("a/../b/x", "1")}, []string{`"b/x" 100644`}},
		"through absolute symlink":  {[]tar.Header{dir("usr/lib/", 0o755), symlink("lib", "/usr/lib"), regular("lib/x", "1")}, []string{`"usr/lib/x" 100644`, `"lib" 120777`}},
		"through relative symlink":  {[]tar.Header{dir("usr/lib/", 0o755), dir("a/", 0o755), symlink("a/lib", "../usr/./lib"), regular("a/lib/x/y", "1")}, []string{`"usr/lib/x/y" 100644`}},
		"file, then folder":         {[]tar.Header{regular("a", "1"), dir("a/", 0o700), regular("a/b", "2")}, []string{`"a" 40700`, `"a/b" 100644`}},
		"folder, then file":         {[]tar.Header{dir("a/", 0o700), regular("a/b/c", "2"), regular("a", "1")}, []string{`"a" 100644`}},
		"file twice":                {[]tar.Header{regular("a", "first"), regular("a", "2")}, []string{`"a" 100644 0:0 0.000000000 d4735e3a`}},
		"symlink, then folder":      {[]tar.Header{dir("t/", 0o755), symlink("a", "t"), regular("a/x", "1"), dir("a/", 0o750), regular("a/y", "1")}, []string{`"a" 40750`, `"a/y" 100644`, `"t/x" 100644`}},
		"hardlink replaces":         {[]tar.Header{regular("a", "1"), regular("b", "2"), hardlink("b", "a"), hardlink("b", "a")}, []string{`"b" 100644 0:0 0.000000000 6b86b273 = a`}},
		"hardlink to symlink":       {[]tar.Header{symlink("l", "/etc/shadow"), hardlink("h", "l")}, []string{`"h" 120777`}},
		"whiteout, then folder":     {[]tar.Header{regular(".wh.a", ""), dir("a/", 0o700)}, []string{`"a" 40700 0:0 0.000000000 opaque`}},
		"whiteout, then in it":      {[]tar.Header{regular(".wh.a", ""), regular("a/x", "1")}, []string{`opaque`, `"a/x" 100644`}},
		"folder, then whiteout":     {[]tar.Header{dir("a/", 0o700), regular(".wh.a", "")}, []string{`"a" 40700 0:0 0.000000000 opaque`}},
		"file, then whiteout":       {[]tar.Header{regular("a", "1"), regular(".wh.a", "")}, []string{`"a" 100644`}},
		"self-symlink, replaced":    {[]tar.Header{dir("d/", 0o755), symlink("d/s", "."), regular("d/s/x", "1"), regular("d/s", "2"), regular("d/y", "3")}, []string{`"d/s" 100644`, `"d/x" 100644`, `"d/y" 100644`}},
		"overlay xattrs are no use": {[]tar.Header{{Typeflag: tar.TypeDir, Name: "r/", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.ok": "1"}}}, []string{"user.ok=31"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			l := unpack(t, s, makeTar(t, c.entries...))
			got := describe(t, s.Dir(l.DiffID))
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("no %s in\n%s", w, got)
				}
			}
		})
	}
}

func TestUnpackRefusesWrongAndBrokenTars(t *testing.T) {
	good := makeTar(t, regular("a", "1"), regular("b", strings.Repeat("x", 100<<10)))
	for name, c := range map[string]struct {
		data []byte
		want digest.Digest
	}{
		"other digest": {good, digest.FromString("x")},
		"truncated":    {good[:5000], digest.FromBytes(good)},
		"in header":    {good[:700], digest.FromBytes(good)},
		"garbage":      {bytes.Repeat([]byte("garbage!"), 1000), digest.FromBytes(good)},
		"no digest":    {good, "sha256:12"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Unpack(context.Background(), bytes.NewReader(c.data), c.want)
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("error is %v", err)
			}
			leftovers(t, s)
		})
	}
}

func TestSecondUnpackWaitsAndShares(t *testing.T) {
	s := openStore(t)
	b := makeTar(t, regular("a", strings.Repeat("x", 1<<20)))
	r, w := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := s.Unpack(context.Background(), r, digest.FromBytes(b))
		first <- err
	}()
	w.Write(b[:1000]) // the first is at work now
	second := make(chan error, 1)
	go func() {
		_, err := s.Unpack(context.Background(), iotestPanic{}, digest.FromBytes(b))
		second <- err
	}()
	w.Write(b[1000:])
	w.Close()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
}

type iotestPanic struct{}

func (iotestPanic) Read([]byte) (int, error) { panic("the second caller's tar was read") }

func TestAdoptAndUnpackAgree(t *testing.T) {
	s := openStore(t)
	upper := filepath.Join(filepath.Dir(s.dir), "upper")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(upper+"/d/sub", 0o755))
	must(os.WriteFile(upper+"/d/a", []byte("a"), 0o600))
	must(os.WriteFile(upper+"/d/sub/\xffbin", bytes.Repeat([]byte("z"), 1<<20), 0o755))
	must(os.Chown(upper+"/d/a", 4000000, 5))
	must(os.Chmod(upper+"/d/a", 0o4755|fs.ModeSetuid))
	must(os.Link(upper+"/d/a", upper+"/z-link"))
	must(os.Symlink("/d/a", upper+"/sym"))
	must(os.Link(upper+"/sym", upper+"/sym2"))
	must(unix.Mknod(upper+"/gone", unix.S_IFCHR, 0))
	must(unix.Mkfifo(upper+"/fifo", 0o600))
	must(unix.Mknod(upper+"/sock", unix.S_IFSOCK|0o600, 0))
	must(unix.Setxattr(upper+"/d", opaqueXattr, []byte("y"), 0))
	must(unix.Setxattr(upper+"/d", "trusted.overlay.origin", []byte("junk"), 0))
	must(unix.Setxattr(upper+"/d/sub", "user.note", []byte("n\x00n"), 0))
	must(os.Chtimes(upper+"/d/sub", time.Unix(5, 7), time.Unix(5, 7)))

	var first, second bytes.Buffer
	root, err := os.Open(upper)
	must(err)
	defer root.Close()
	must(os.Remove(upper + "/sock"))
	_, err = WriteTar(context.Background(), &first, root, WriteOptions{Overlay: true})
	must(err)
	l, err := s.Adopt(context.Background(), upper, &second)
	must(err)
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two tars of one tree differ")
	}
	if digest.FromBytes(second.Bytes()) != l.DiffID {
		t.Error("diffID is not the tar's")
	}
	if _, err := os.Lstat(upper); !os.IsNotExist(err) {
		t.Error("the directory was not consumed")
	}
	other := openStore(t)
	l2 := unpack(t, other, second.Bytes())
	l2.Blob = l.Blob
	if l2 != l {
		t.Errorf("records differ: %+v %+v", l, l2)
	}
	if diff := cmp.Diff(describe(t, s.Dir(l.DiffID)), describe(t, other.Dir(l2.DiffID))); diff != "" {
		t.Errorf("trees differ:\n%s", diff)
	}
}

func TestImpliedFoldersDoNotHideAttributes(t *testing.T) {
	s := openStore(t)
	base := unpack(t, s, makeTar(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o751},
		dir("tmp/", 0o1777), tar.Header{Typeflag: tar.TypeDir, Name: "home/", Mode: 0o755}, tar.Header{Typeflag: tar.TypeDir, Name: "home/u/", Mode: 0o700, Uid: 1000, Gid: 1000},
		dir("opq/", 0o711), dir("gone/", 0o711)))
	top := unpack(t, s, makeTar(t, regular("tmp/x", ""), regular("home/u/.rc", ""), regular("opq/.wh..wh..opq", ""), regular("opq/x", ""), regular("new/x", "")))
	dirs, err := s.Chain([]digest.Digest{base.DiffID, top.DiffID})
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != 3 {
		t.Fatalf("no fix: %q", dirs)
	}
	// A layer that comes several times, as empty ones do, is mounted once: where it is topmost.
	twice, err := s.Chain([]digest.Digest{top.DiffID, base.DiffID, base.DiffID, top.DiffID})
	if err != nil || !slices.Equal(twice, dirs) {
		t.Errorf("layers that come twice: %v, want %v (%v)", twice, dirs, err)
	}
	got := describe(t, dirs[0])
	for _, want := range []string{`"." 40751`, `"tmp" 41777`, `"home" 40755`, `"home/u" 40700 1000:1000`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "opq") || strings.Contains(got, "new") {
		t.Errorf("too much fixed:\n%s", got)
	}
	merged := t.TempDir()
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	got = describe(t, merged)
	for _, want := range []string{`"." 40751`, `"tmp" 41777`, `"tmp/x"`, `"home/u/.rc"`, `"opq" 40755`, `"gone" 40711`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if err := s.Remove(top.DiffID); err != nil {
		t.Fatal(err)
	}
	if err := s.SweepFixes(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, fixDir)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// Nothing to fix: nothing made.
	if dirs, err = s.Chain([]digest.Digest{base.DiffID}); err != nil || len(dirs) != 1 {
		t.Errorf("%q %v", dirs, err)
	}
}
