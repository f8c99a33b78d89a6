package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// layers is two lower folders and an upper; the host has a secret that links point at.
func layers(t *testing.T) (Layers, string) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write(t, secret, "host")
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a+"/etc/passwd", "top:x:1000:1001::/home/top:/bin/sh\n")
	write(t, b+"/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
	write(t, b+"/etc/group", "wheel:x:10:top\nextra:x:77:\n")
	write(t, b+"/srv/hidden", "x")
	write(t, b+"/data/one", "1")
	must(t, unix.Mknod(a+"/srv", unix.S_IFCHR, 0))
	must(t, os.MkdirAll(b+"/opaque/below", 0o755))
	must(t, os.MkdirAll(a+"/opaque", 0o755))
	must(t, unix.Setxattr(a+"/opaque", "trusted.overlay.opaque", []byte("y"), 0))
	must(t, os.Symlink(secret, a+"/escape"))
	must(t, os.Symlink("../../../../../../"+secret, a+"/climb"))
	must(t, os.Symlink("/etc", a+"/link"))
	up, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	must(t, os.Mkdir(up, 0o755))
	must(t, os.Mkdir(work, 0o755))
	return Layers{Lower: []string{a, b}, Upper: up, Work: work}, secret
}

func TestFindFollowsOverlayRules(t *testing.T) {
	l, _ := layers(t)
	for _, c := range []struct {
		name           string
		exists, folder bool
	}{
		{"/etc/passwd", true, false}, {"/etc", true, true}, {"/", true, true}, {"/etc/group", true, false},
		{"/srv", false, false}, {"/srv/hidden", false, false}, {"/opaque", true, true}, {"/opaque/below", false, false},
		{"/link/passwd", true, false}, {"/link", true, true}, {"/escape", false, false}, {"/climb", false, false},
		{"/etc/passwd/x", false, false}, {"/../../etc", true, true}, {"/data", true, true},
	} {
		exists, folder, err := Exists(l, c.name)
		if err != nil || exists != c.exists || folder != c.folder {
			t.Errorf("%s: exists %v folder %v err %v, want %v %v", c.name, exists, folder, err, c.exists, c.folder)
		}
	}
	if got, err := ReadFile(l, "/etc/passwd"); err != nil || string(got) != "top:x:1000:1001::/home/top:/bin/sh\n" {
		t.Errorf("top layer does not win: %q %v", got, err)
	}
	for _, name := range []string{"/escape", "/climb"} {
		if got, err := ReadFile(l, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s led out of the root: %q %v", name, got, err)
		}
	}
	must(t, unix.Mkfifo(l.Upper+"/pipe", 0o600))
	if _, err := ReadFile(l, "/pipe"); err == nil {
		t.Error("read a fifo")
	}
}

func TestMkdirStaysInsideAndWorkIsReusable(t *testing.T) {
	l, secret := layers(t)
	for range 2 { // a volatile mount must not forbid the next
		v, err := Mount(l)
		must(t, err)
		must(t, v.MkdirAll("/link/new/deep"))
		if err := v.MkdirAll("/escape/x"); err == nil {
			t.Error("made a folder through a link that leads nowhere inside")
		}
		must(t, v.Close())
	}
	if _, err := os.Stat(l.Upper + "/etc/new/deep"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(secret) + "/x"); err == nil {
		t.Error("left the root")
	}
}

func TestLookUp(t *testing.T) {
	l, _ := layers(t)
	read := func(name string) ([]byte, error) { return ReadFile(l, name) }
	for _, c := range []struct {
		name   string
		add    []string
		want   User
		groups []uint32
		fails  bool
	}{
		{name: "", want: User{Home: "/"}, groups: []uint32{0}},
		{name: "top", want: User{UID: 1000, GID: 1001, Home: "/home/top"}, groups: []uint32{1001, 10}},
		{name: "1000", want: User{UID: 1000, GID: 1001, Home: "/home/top"}, groups: []uint32{1001, 10}},
		{name: "5:6", want: User{UID: 5, GID: 6, Home: "/"}, groups: []uint32{6}},
		{name: "top:extra", want: User{UID: 1000, GID: 77, Home: "/home/top"}, groups: []uint32{77}},
		{name: "0", add: []string{"extra", "99"}, want: User{Home: "/"}, groups: []uint32{0, 77, 99}},
		{name: "nobody-here", fails: true},
		{name: "0", add: []string{"no-such-group"}, fails: true},
	} {
		u, err := LookUp(read, c.name, c.add)
		if (err != nil) != c.fails {
			t.Errorf("%q: %v", c.name, err)
			continue
		}
		if err == nil && (u.UID != c.want.UID || u.GID != c.want.GID || u.Home != c.want.Home || !slices.Equal(u.Groups, c.groups)) {
			t.Errorf("%q: got %+v, want %+v groups %v", c.name, u, c.want, c.groups)
		}
	}
}

func TestCopyOutKeepsWhatMatters(t *testing.T) {
	l, _ := layers(t)
	b := l.Lower[1]
	must(t, os.Link(b+"/data/one", b+"/data/two"))
	must(t, os.Symlink("/etc/shadow", b+"/data/abs"))
	must(t, os.Chown(b+"/data/one", 12, 34))
	must(t, unix.Chmod(b+"/data/one", 0o4751))
	must(t, unix.Setxattr(b+"/data/one", "user.note", []byte("hello"), 0))
	must(t, os.Chown(b+"/data", 7, 8))
	must(t, os.Chmod(b+"/data", 0o750))
	v, err := Mount(Layers{Lower: l.Lower})
	must(t, err)
	defer v.Close()
	target := t.TempDir()
	must(t, v.CopyOut("/data", target))
	var one, two, dir unix.Stat_t
	must(t, unix.Lstat(target+"/one", &one))
	must(t, unix.Lstat(target+"/two", &two))
	must(t, unix.Lstat(target, &dir))
	if one.Ino != two.Ino || one.Uid != 12 || one.Gid != 34 || one.Mode&0o7777 != 0o4751 || dir.Uid != 7 || dir.Mode&0o777 != 0o750 {
		t.Errorf("one %+v two %+v dir %+v", one, two, dir)
	}
	if s, err := os.Readlink(target + "/abs"); err != nil || s != "/etc/shadow" {
		t.Errorf("link: %q %v", s, err)
	}
	x := make([]byte, 5)
	if _, err := unix.Getxattr(target+"/one", "user.note", x); err != nil || string(x) != "hello" {
		t.Errorf("attribute: %q %v", x, err)
	}
	must(t, v.CopyOut("/no-such", target))
	must(t, v.CopyOut("/etc/passwd", target))
}
