package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	enginecontainer "tare/internal/engine/container"
	"tare/internal/engine/rootfs"
)

// stopped makes a container of two layers and an upper folder; links lead where only the container's root makes sense of them.
func stopped(t *testing.T) *enginecontainer.Files {
	t.Helper()
	dir := t.TempDir()
	c := &enginecontainer.Files{ID: "c1", Name: "box", Config: &container.Config{}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Lower: []string{filepath.Join(dir, "l2"), filepath.Join(dir, "l1")}, Running: func() bool { return false }}
	for _, d := range []string{"upper", "work", "l2", "l1/etc", "l1/data/sub", "l1/old/deep"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for name, content := range map[string]string{"l1/etc/passwd": "root:x:0:0::/:\nuser:x:1000:1001::/:\n", "l1/data/a": "alpha", "l1/data/sub/b": "beta", "l1/old/deep/x": "x", "l1/gone": "gone"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	must(t, os.Symlink("/data", filepath.Join(dir, "l1/link")))
	must(t, os.Symlink("../../../../etc/passwd", filepath.Join(dir, "l1/data/climb")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "l1/dangling")))
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running starts a process whose root is the container's, in a mount namespace of its own.
func running(t *testing.T, c *enginecontainer.Files) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), "TARE_ARCHIVE_ROOT="+t.TempDir(),
		fmt.Sprintf("TARE_ARCHIVE_OPTIONS=lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(c.Lower, ":"), c.Upper, c.Work))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	ready := make([]byte, 5)
	if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready" {
		t.Fatalf("helper said %q, %v", ready, err)
	}
	c.Pid = cmd.Process.Pid
	c.Running = func() bool { return true }
}

// TestHelperProcess is the process in the container.
func TestHelperProcess(t *testing.T) {
	root := os.Getenv("TARE_ARCHIVE_ROOT")
	if root == "" {
		return
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("overlay", root, "overlay", 0, os.Getenv("TARE_ARCHIVE_OPTIONS")))
	must(t, syscall.Chroot(root))
	os.Stdout.WriteString("ready")
	io.Copy(io.Discard, os.Stdin)
}

// both runs a test against a stopped and a running container.
func both(t *testing.T, f func(t *testing.T, c *enginecontainer.Files)) {
	t.Run("stopped", func(t *testing.T) { f(t, stopped(t)) })
	t.Run("running", func(t *testing.T) { c := stopped(t); running(t, c); f(t, c) })
}

func TestStat(t *testing.T) {
	both(t, func(t *testing.T, c *enginecontainer.Files) {
		for _, x := range []struct {
			path, name string
			mode       fs.FileMode
			target     string
		}{
			{"/data/a", "a", 0o644, ""}, {"data/a", "a", 0o644, ""}, {"/data", "data", fs.ModeDir | 0o755, ""}, {"/data/", "data", fs.ModeDir | 0o755, ""},
			{"/", "/", fs.ModeDir | 0o755, ""}, {"/data/.", ".", fs.ModeDir | 0o755, ""},
			{"/link", "link", fs.ModeSymlink | 0o777, "/data"}, {"/link/", "link", fs.ModeDir | 0o755, ""}, {"/link/a", "a", 0o644, ""},
			{"/data/climb", "climb", fs.ModeSymlink | 0o777, "/etc/passwd"}, {"/dangling", "dangling", fs.ModeSymlink | 0o777, "/nowhere"},
			{"/../../data/a", "a", 0o644, ""},
		} {
			st, err := Stat(context.Background(), c, x.path)
			if err != nil || st.Name != x.name || st.Mode != x.mode || st.LinkTarget != x.target {
				t.Errorf("Stat(%q) = %+v, %v; want %q %v %q", x.path, st, err, x.name, x.mode, x.target)
			}
		}
		if st, _ := Stat(context.Background(), c, "/data/a"); st.Size != 5 || st.Mtime.IsZero() {
			t.Errorf("size and time: %+v", st)
		}
		for path, want := range map[string]func(error) bool{"/nope": errdefs.IsNotFound, "/nope/x": errdefs.IsNotFound, "/data/a/": errdefs.IsInvalidArgument} {
			if _, err := Stat(context.Background(), c, path); !want(err) {
				t.Errorf("Stat(%q): %v", path, err)
			}
		}
		if _, err := Stat(context.Background(), c, "/nope"); err == nil || err.Error() != "Could not find the file /nope in container box" {
			t.Errorf("message: %v", err)
		}
	})
}

func names(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	out := map[string]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		must(t, err)
		b, err := io.ReadAll(tr)
		must(t, err)
		out[h.Name] = string(b) + h.Linkname
	}
}

func TestGet(t *testing.T) {
	both(t, func(t *testing.T, c *enginecontainer.Files) {
		for path, want := range map[string]string{
			"/data/a":     "a=alpha",
			"/data":       "data/= data/a=alpha data/climb=../../../../etc/passwd data/sub/= data/sub/b=beta",
			"/link":       "link=/data",
			"/link/":      "link/= link/a=alpha link/climb=../../../../etc/passwd link/sub/= link/sub/b=beta",
			"/data/sub/.": "./= ./b=beta",
		} {
			r, _, err := Get(context.Background(), c, path)
			if err != nil {
				t.Errorf("Get(%q): %v", path, err)
				continue
			}
			var got []string
			for n, v := range names(t, r) {
				got = append(got, n+"="+v)
			}
			r.Close()
			slices.Sort(got)
			if strings.Join(got, " ") != want {
				t.Errorf("Get(%q) = %s, want %s", path, strings.Join(got, " "), want)
			}
		}
		r, st, err := Get(context.Background(), c, "/data")
		must(t, err)
		if st.Name != "data" {
			t.Errorf("stat %+v", st)
		}
		r.Close() // before it was read
	})
}

func tarOf(t *testing.T, hs ...*tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = "new"
			h.Size = 3
		}
		must(t, w.WriteHeader(h))
		io.WriteString(w, body)
	}
	must(t, w.Close())
	return &b
}

func file(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Uid: 7, Gid: 8}
}

func gzipped(t *testing.T, r io.Reader) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	must(t, w.Close())
	return &buf
}

func TestPut(t *testing.T) {
	both(t, func(t *testing.T, c *enginecontainer.Files) {
		ctx := context.Background()
		must(t, Put(ctx, c, "/link", tarOf(t, file("n"), file("sub/b")), false, false))
		must(t, Put(ctx, c, "/", tarOf(t, file("top")), false, false))
		must(t, Put(ctx, c, "/", gzipped(t, tarOf(t, file("packed"))), false, false)) // as testcontainers sends them
		for p, want := range map[string]string{"data/n": "new", "data/sub/b": "new", "top": "new", "packed": "new"} {
			got, err := os.ReadFile(filepath.Join(c.Upper, p))
			if err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", p, got, err)
			}
		}
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(c.Upper, "data/n"), &st))
		if st.Uid != 7 || st.Gid != 8 {
			t.Errorf("owner %d:%d, want the tar's 7:8", st.Uid, st.Gid)
		}
		c.Config.User = "user"
		must(t, Put(ctx, c, "/data", tarOf(t, file("mine")), false, true))
		must(t, unix.Lstat(filepath.Join(c.Upper, "data/mine"), &st))
		if st.Uid != 1000 || st.Gid != 1001 {
			t.Errorf("owner %d:%d, want the container user's 1000:1001", st.Uid, st.Gid)
		}
		if err := Put(ctx, c, "/data/a", tarOf(t), false, false); !errdefs.IsInvalidArgument(err) || err.Error() != "extraction point is not a directory" {
			t.Errorf("to a file: %v", err)
		}
		if err := Put(ctx, c, "/nope", tarOf(t), false, false); !errdefs.IsNotFound(err) {
			t.Errorf("to nothing: %v", err)
		}
		if err := Put(ctx, c, "/data", tarOf(t, file("sub")), true, false); err == nil {
			t.Error("a file replaced a folder")
		}
		// no way out: names, and links that the tar brings along
		outside := filepath.Join(t.TempDir(), "outside")
		for _, bad := range []io.Reader{
			tarOf(t, file("../../../../../../../../.."+outside)),
			tarOf(t, &tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: filepath.Dir(outside)}, file("out/outside")),
		} {
			Put(ctx, c, "/data", bad, false, false)
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Error("a tar wrote outside of the container")
		}
	})
}

func TestMountsOfStoppedContainers(t *testing.T) {
	c := stopped(t)
	ctx := context.Background()
	vol, ro, one := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "one")
	must(t, os.WriteFile(filepath.Join(vol, "v"), []byte("volume"), 0o644))
	must(t, os.WriteFile(filepath.Join(ro, "r"), []byte("ro"), 0o644))
	must(t, os.WriteFile(one, []byte("single"), 0o644))
	c.Mounts = []container.MountPoint{
		{Type: mount.TypeBind, Source: ro, Destination: "/vol/ro"},
		{Type: mount.TypeVolume, Source: vol, Destination: "/vol", RW: true},
		{Type: mount.TypeBind, Source: one, Destination: "/data/a", RW: true},
		{Type: mount.TypeBind, Source: filepath.Join(vol, "missing"), Destination: "/missing", RW: true},
	}
	for path, want := range map[string]string{"/vol/v": "volume", "/vol/ro/r": "ro", "/data/a": "single"} {
		r, _, err := Get(ctx, c, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := names(t, r)[filepath.Base(path)]; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
		r.Close()
	}
	must(t, Put(ctx, c, "/vol", tarOf(t, file("n")), false, false))
	if got, err := os.ReadFile(filepath.Join(vol, "n")); err != nil || string(got) != "new" {
		t.Errorf("in the volume: %q %v", got, err)
	}
	if err := Put(ctx, c, "/vol/ro", tarOf(t, file("n")), false, false); !errdefs.IsPermissionDenied(err) || err.Error() != "mounted volume is marked read-only" {
		t.Errorf("read-only volume: %v", err)
	}
	c.ReadonlyRootfs = true
	if err := Put(ctx, c, "/data", tarOf(t, file("n")), false, false); !errdefs.IsPermissionDenied(err) || err.Error() != "container rootfs is marked read-only" {
		t.Errorf("read-only root: %v", err)
	}
	must(t, Put(ctx, c, "/vol", tarOf(t, file("m")), false, false))
	// the export has no mounts in it
	var b bytes.Buffer
	must(t, Export(ctx, c, &b))
	all := names(t, &b)
	if _, ok := all["vol/v"]; ok || all["data/a"] != "alpha" || all["data/sub/b"] != "beta" {
		t.Errorf("export: %v", all)
	}
}

func TestChanges(t *testing.T) {
	c := stopped(t)
	ctx := context.Background()
	// make the changes through an overlay, as a container does
	script := `set -e; mount -t overlay overlay -o lowerdir="$1",upperdir="$2",workdir="$3" "$4"; cd "$4"
echo x > data/a; mkdir -p new/sub; echo y > new/sub/f; rm gone; rm -r old; mkdir old; echo z > old/z; touch etc/hosts; mkdir -p dev/shm proc; rm data/sub/b; echo b > data/sub/b; ln -s x sym`
	merged := t.TempDir()
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, "sh", strings.Join(c.Lower, ":"), c.Upper, c.Work, merged).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	list, err := Changes(ctx, c)
	must(t, err)
	var got []string
	for _, x := range list {
		got = append(got, x.Kind.String()+" "+x.Path)
	}
	want := []string{"C /data", "C /data/a", "C /data/sub", "C /data/sub/b", "D /gone", "A /new", "A /new/sub", "A /new/sub/f", "C /old", "D /old/deep", "A /old/z", "A /sym"}
	// /data is listed only if its own attributes differ; writing data/a does not change them
	want = slices.DeleteFunc(want, func(s string) bool { return s == "C /data" })
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// On kernels that can't mount into a detached tree, a path in a mount is looked up in the mount's source.
func TestMountSeenFromItsSource(t *testing.T) {
	c := stopped(t)
	vol := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(vol, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(vol, "d/v"), []byte("volume"), 0o644))
	must(t, os.Symlink("d/v", filepath.Join(vol, "l")))
	m := container.MountPoint{Type: mount.TypeVolume, Source: vol, Destination: "/srv/vol", RW: true}
	root, err := rootfs.Mount(rootfs.Layers{Lower: []string{vol}})
	must(t, err)
	v := &view{c: c, root: root, mount: &m}
	defer v.close()
	for path, want := range map[string]string{"/srv/vol": "vol ", "/srv/vol/": "vol ", "/srv/vol/d": "d ", "/srv/vol/d/v": "v ", "/srv/vol/l": "l /srv/vol/d/v"} {
		e, err := v.resolve(path)
		must(t, err)
		st, err := v.stat(e)
		e.close()
		if got := st.Name + " " + st.LinkTarget; err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
}
