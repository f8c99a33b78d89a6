package image

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/image/layer"
)

// crashRoot makes the test binary a process that works on a store until it is killed.
const crashRoot = "TARE_TEST_CRASH_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(crashRoot); root != "" {
		work(root)
	}
	os.Exit(m.Run())
}

// work commits, names, moves names and removes, for ever. It prints the names it is certain of.
func work(root string) {
	s, err := Open(root, nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	t := &testing.T{}
	for n := 0; ; n++ {
		body := strings.Repeat(fmt.Sprint(n, " "), 1+rand.IntN(20000))
		var ls []layer.Layer
		for _, b := range []string{"base", body} {
			l, err := s.CommitTar(context.Background(), bytes.NewReader(oneFile(t, "file", b)))
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			ls = append(ls, l)
		}
		name := fmt.Sprintf("img%d", n%5)
		if _, err := s.Put(config(name), ls, tag(t, name)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("have", name)
		if n%3 == 2 {
			gone := fmt.Sprintf("img%d", (n-1)%5)
			fmt.Println("removing", gone)
			if _, err := s.Remove(gone, true, true); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	root := t.TempDir()
	for range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashRoot+"="+root)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rand.IntN(150)) * time.Millisecond) // the moment
		cmd.Process.Kill()
		cmd.Wait()
		if strings.Contains(out.String(), "error") {
			t.Fatal(out.String())
		}
		inspectAfterCrash(t, root, out.String())
	}
}

func inspectAfterCrash(t *testing.T, root, said string) {
	t.Helper()
	s, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	certain := map[string]bool{}
	for line := range strings.Lines(said) {
		what, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		certain[name] = what == "have"
	}
	for name, have := range certain {
		if _, err := s.Get(name); have && err != nil {
			t.Errorf("%s was there, then: %v", name, err)
		}
	}
	for _, img := range s.List() {
		if err := s.Blobs.Walk(func(d digest.Digest, _ int64) error {
			_, err := s.Blobs.Bytes(d)
			return err
		}); err != nil {
			t.Error(err)
		}
		lower, err := s.Lower(img)
		if err != nil {
			t.Fatal(err)
		}
		for i, dir := range lower {
			b, err := os.ReadFile(filepath.Join(dir, "file"))
			if want := oneFile(t, "file", string(b)); err != nil || digest.FromBytes(want) != img.Layers[len(lower)-1-i].DiffID {
				t.Errorf("layer %d of %v is not whole: %v", i, img.Names, err)
			}
		}
	}
	if _, err := s.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	keep := s.garbage.reached()
	s.Blobs.Walk(func(d digest.Digest, _ int64) error {
		if !keep.blobs[d] {
			t.Errorf("left behind: blob %s", d)
		}
		return nil
	})
	s.Layers.Walk(func(l layer.Layer) error {
		if !keep.layers[l.DiffID] {
			t.Errorf("left behind: layer %s", l.DiffID)
		}
		return nil
	})
	filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".tmp-") {
			t.Errorf("left behind: %s", p)
		}
		return nil
	})
}
