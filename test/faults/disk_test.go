package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tare/internal/test/harness"
	"tare/internal/test/images"
)

// onSmallDisk moves the engine's data root to a disk of its own.
func onSmallDisk(t *testing.T, e *harness.Engine, mib int) {
	t.Helper()
	e.Stop()
	if err := unix.Mount("tmpfs", e.DataRoot, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the harness's own cleaning up, which finds the data root of before
		if err := purge(limited(t), e); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
		e.Stop()
		if err := unix.Unmount(e.DataRoot, 0); err != nil {
			t.Errorf("the data root is busy: %v", err)
			unix.Unmount(e.DataRoot, unix.MNT_DETACH)
		}
	})
	relaunch(e)
}

// free is the disk's free space in bytes.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// TestFullDisk fills the disk in the middle of pull, load, build, commit, import, create, cp and run.
func TestFullDisk(t *testing.T) {
	e := start(t)
	onSmallDisk(t, e, 48)
	e.Tools()
	r := e.Registry()
	// Content that does not compress, of some 40 MB, arrives before it is unpacked: either may not fit.
	big, err := images.Generate(images.Options{Layers: 4, FilesPerLayer: 40, FileSize: 256 << 10, Ratio: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Push("http://"+r, "big", "latest"); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(e.Dir, "layout")
	if err := big.WriteLayout(layout, "big:latest"); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(e.Dir, "big.tar")
	if out, err := exec.Command("tar", "-C", layout, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	dir := filepath.Join(e.Dir, "context")
	os.MkdirAll(dir, 0o755)
	if err := os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte("0123456789abcdef"), 50<<16), 0o644); err != nil { // 50 MiB
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM tools\nCOPY file /file\n"), 0o644)
	root := filepath.Join(e.Dir, "root.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", root, "file").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	bare := footprint(e)
	e.Docker("create", "--name", "held", "tools", "true")
	clean, room := footprint(e), free(t, e.DataRoot)
	for _, args := range [][]string{
		{"pull", r + "/big"}, {"load", "-i", archive}, {"build", dir}, {"import", root, "imported"}, {"cp", filepath.Join(dir, "file"), "held:/file"},
	} {
		for _, cli := range []string{"docker", "tare"} {
			run := e.Try
			if cli == "tare" {
				run = e.Tare
			}
			got := run(nil, args...)
			what := cli + " " + args[0]
			if got.Code == 0 || !strings.Contains(got.Stdout+got.Stderr, "no space left on device") {
				t.Errorf("%s on a full disk: %+v", what, got)
			}
			if args[0] == "cp" { // what arrived before the end is the container's, as in Docker
				e.Docker("rm", "held")
				e.Docker("create", "--name", "held", "tools", "true")
				continue
			}
			nothingNew(e, what+" on a full disk", clean)
			if now := free(t, e.DataRoot); now < room-256<<10 {
				t.Errorf("%s on a full disk: %d bytes less are free than before", what, room-now)
			}
			alive(e, "tools")
		}
	}
	e.Docker("rm", "held")
	// Nothing but the last bytes: what needs the disk says so, what does not goes on.
	e.Docker("run", "-d", "--name", "ticks", "tools", "tick", "0", "10ms")
	e.Docker("run", "-d", "--name", "sleeps", "tools", "sleep", "1000")
	ballast := filepath.Join(e.DataRoot, "ballast")
	if err := fill(ballast); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", "--rm", "tools", "true"}, {"create", "tools"}, {"volume", "create", "vol"}, {"network", "create", "n"}, {"tag", "tools", "x"}} {
		if got := e.Try(nil, args...); got.Code == 0 || !strings.Contains(got.Stderr, "no space left on device") {
			t.Errorf("docker %s without any space: %+v", strings.Join(args, " "), got)
		}
	}
	for _, args := range [][]string{{"ps"}, {"images"}, {"inspect", "ticks"}, {"logs", "-n", "1", "ticks"}, {"exec", "sleeps", "echo", "hi"}, {"stop", "-t", "0", "ticks"}} {
		if got := e.Try(nil, args...); got.Code != 0 {
			t.Errorf("docker %s without any space: %+v", strings.Join(args, " "), got)
		}
	}
	e.Kill() // a start without space is worth a try; it has to work again when there is space
	os.Remove(ballast)
	relaunch(e)
	e.Docker("rm", "-f", "ticks", "sleeps")
	e.Docker("volume", "create", "vol")
	e.Docker("volume", "rm", "vol")
	alive(e, "tools")
	nothingNew(e, "a disk without any space", bare)
}

// fill writes a file until the disk is full.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}
