package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/hub"
	"tare/internal/image"
	"tare/internal/image/registry"
	"tare/internal/test/faulty"
	"tare/internal/test/images"
)

// behind puts a faulty proxy between the world's registry and its client; refs of the result go through it.
func (w *world) behind() *faulty.Proxy {
	w.t.Helper()
	p, url := faulty.Serve(w.t, w.srv.URL)
	w.host = strings.TrimPrefix(url, "http://")
	return p
}

// sound checks that every blob in the store has its digest.
func (w *world) sound() {
	w.t.Helper()
	err := w.store.Blobs.Walk(func(d digest.Digest, _ int64) error {
		f, err := w.store.Blobs.Reader(d)
		if err != nil {
			return err
		}
		defer f.Close()
		if got, err := d.Algorithm().FromReader(f); err != nil || got != d {
			w.t.Errorf("blob %s has digest %s, %v", d, got, err)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// fullPull takes what is there and pulls again; the image has to be whole.
func (w *world) fullPull(name string) {
	w.t.Helper()
	img, _ := w.pull(name)
	for _, l := range img.Layers {
		if _, err := os.Stat(w.store.Layers.Dir(l.DiffID)); err != nil {
			w.t.Error(err)
		}
	}
	w.sound()
}

// TestEveryFaultEndsRightOrClearly pulls through every kind of fault, at every part of an image: no wrong blob is stored, the
// pull ends right or with an error that says what, and the next pull is right.
func TestEveryFaultEndsRightOrClearly(t *testing.T) {
	const blobs, manifests = "/blobs/", "/manifests/"
	for name, c := range map[string]struct {
		fault faulty.Fault
		fails string // "" if the pull gets over it
	}{
		"blob cut once":            {faulty.Fault{Kind: faulty.Cut, Path: blobs, After: 5000, Times: 1}, ""},
		"blobs cut four times":     {faulty.Fault{Kind: faulty.Cut, Path: blobs, After: 5000, Times: 4}, ""},
		"blobs cut at once always": {faulty.Fault{Kind: faulty.Cut, Path: blobs}, "broke off at byte"},
		"manifest cut once":        {faulty.Fault{Kind: faulty.Cut, Path: manifests, After: 20, Times: 1}, ""},
		"manifest cut always":      {faulty.Fault{Kind: faulty.Cut, Path: manifests, After: 20}, "EOF"},
		"blob corrupt once":        {faulty.Fault{Kind: faulty.Corrupt, Path: blobs, After: 3000, Times: 4}, "damaged"},
		"blob corrupt always":      {faulty.Fault{Kind: faulty.Corrupt, Path: blobs, After: 3000}, "damaged"},
		"config corrupt":           {faulty.Fault{Kind: faulty.Corrupt, Path: blobs, After: 3, Times: 1}, "damaged"},
		"manifest corrupt":         {faulty.Fault{Kind: faulty.Corrupt, Path: manifests, After: 30}, ""}, // below: any error
		"blob truncated":           {faulty.Fault{Kind: faulty.Truncate, Path: blobs, After: 100}, "its manifest says"},
		"manifest truncated":       {faulty.Fault{Kind: faulty.Truncate, Path: manifests, After: 100}, "not JSON"},
		"blob longer":              {faulty.Fault{Kind: faulty.Longer, Path: blobs}, "its manifest says"},
		"blob shorter":             {faulty.Fault{Kind: faulty.Shorter, Path: blobs}, "its manifest says"},
		"blob endless":             {faulty.Fault{Kind: faulty.Endless, Path: blobs}, ""},
		"manifest endless":         {faulty.Fault{Kind: faulty.Endless, Path: manifests}, "longer than"},
		"delay":                    {faulty.Fault{Kind: faulty.Delay, Wait: 50 * time.Millisecond}, ""},
		"429 once":                 {faulty.Fault{Kind: faulty.Status, Code: 429, Path: manifests, Wait: time.Second, Times: 1}, ""},
		"429 of a blob":            {faulty.Fault{Kind: faulty.Status, Code: 429, Path: blobs, Times: 2}, ""},
		"429 always":               {faulty.Fault{Kind: faulty.Status, Code: 429}, "toomanyrequests"},
		"503 of everything, twice": {faulty.Fault{Kind: faulty.Status, Code: 503, Times: 2}, ""},
		"500 always":               {faulty.Fault{Kind: faulty.Status, Code: 500}, "failed"},
		"404 of a blob":            {faulty.Fault{Kind: faulty.Status, Code: 404, Path: blobs}, "not found"},
		"hang":                     {faulty.Fault{Kind: faulty.Hang, Path: blobs, After: 4000}, "less than 65536 bytes"},
		"drip":                     {faulty.Fault{Kind: faulty.Drip, Path: blobs, Wait: 5 * time.Millisecond}, "less than 65536 bytes"},
		"manifest drips":           {faulty.Fault{Kind: faulty.Drip, Path: manifests, Wait: 5 * time.Millisecond}, "took more than"},
		"no ranges after a cut":    {faulty.Fault{Kind: faulty.NoRanges, Path: blobs}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.push("x", "t", images.Options{Layers: 2, FilesPerLayer: 30, FileSize: 20000, Compression: "none"})
			w.quick(300 * time.Millisecond)
			p := w.behind()
			p.Set(c.fault)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := w.s.Pull(ctx, PullRequest{Ref: w.ref("x:t")}, nil)
			switch {
			case ctx.Err() != nil:
				t.Fatal("the pull did not end")
			case name == "manifest corrupt":
				if err == nil {
					t.Error("a corrupt manifest was taken")
				}
			case c.fails == "" && err != nil:
				t.Errorf("%v", err)
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("error is %v, want one with %q", err, c.fails)
			}
			if p.Struck() == 0 {
				t.Error("no fault happened")
			}
			w.sound()
			p.Set()
			w.fullPull("x:t")
		})
	}
}

// quick opens the store with a client that waits for nobody long.
func (w *world) quick(patience time.Duration) {
	w.t.Helper()
	client, err := registry.New(registry.Config{})
	if err != nil {
		w.t.Fatal(err)
	}
	client.Hurry(time.Millisecond, patience)
	w.s = New(w.store, client, w.bus, Limits{})
}

// TestPushThroughFaults uploads through what goes wrong on the way up.
func TestPushThroughFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault faulty.Fault
		fails string
	}{
		"upload cut once":     {faulty.Fault{Kind: faulty.CutUpload, Method: "PUT", Path: "/blobs/", After: 30000, Times: 1}, ""},
		"uploads cut thrice":  {faulty.Fault{Kind: faulty.CutUpload, Path: "/blobs/", After: 30000, Times: 3}, ""},
		"upload answers cut":  {faulty.Fault{Kind: faulty.Cut, Method: "PUT", Path: "/blobs/", Times: 2}, ""},
		"503 of uploads":      {faulty.Fault{Kind: faulty.Status, Code: 503, Method: "POST", Times: 2}, ""},
		"429 of uploads":      {faulty.Fault{Kind: faulty.Status, Code: 429, Method: "PUT", Path: "/blobs/", Wait: time.Second, Times: 1}, ""},
		"manifest cut":        {faulty.Fault{Kind: faulty.CutUpload, Method: "PUT", Path: "/manifests/", After: 10, Times: 2}, ""},
		"500 of the manifest": {faulty.Fault{Kind: faulty.Status, Code: 500, Method: "PUT", Path: "/manifests/"}, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			made := w.push("x", "t", images.Options{Layers: 2, FilesPerLayer: 10, FileSize: 20000, Compression: "none"})
			img, _ := w.pull("x:t")
			p := w.behind()
			w.quick(2 * time.Second)
			to := w.ref("other/y:t").(reference.NamedTagged)
			if err := w.store.Tag(img.ID.String(), to); err != nil {
				t.Fatal(err)
			}
			p.Set(c.fault)
			err := w.s.Push(t.Context(), PushRequest{Ref: to}, nil)
			if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Fatalf("error is %v, want %q", err, c.fails)
			}
			if p.Struck() == 0 {
				t.Error("no fault happened")
			}
			p.Set()
			if err := w.s.Push(t.Context(), PushRequest{Ref: to}, nil); err != nil {
				t.Fatal(err)
			}
			// The digest that came is the digest that went.
			repo := w.s.registry.Repository(to, nil, registry.Pull)
			data, d, err := repo.Manifest(t.Context(), "t")
			if err != nil || d.Digest != made.Manifest.Digest || digest.FromBytes(data) != d.Digest {
				t.Errorf("%s %v", d.Digest, err)
			}
		})
	}
}

// TestASlowLayerIsHelped: a large layer over slow connections comes through several of them.
func TestASlowLayerIsHelped(t *testing.T) {
	w := newWorld(t)
	made := w.push("big", "t", images.Options{Layers: 1, FilesPerLayer: 40, FileSize: 1 << 20, Compression: "none"})
	size := made.Layers[0].Size
	p := w.behind()
	const rate = 12 << 20
	p.Set(faulty.Fault{Kind: faulty.Slow, Path: "/blobs/", After: rate})
	w.s.lookForHelp = 50 * time.Millisecond
	began := time.Now()
	w.fullPull("big:t")
	took := time.Since(began)
	if alone := time.Duration(size * int64(time.Second) / rate); took > alone*2/3 {
		t.Errorf("%d bytes took %s, one connection would have needed %s", size, took, alone)
	}
	if n := p.Widest(made.Layers[0].Digest.String()); n < 3 || n > 1+maxHelpers {
		t.Errorf("%d connections at once", n)
	}
	if down, _ := p.Moved(); down > size*104/100+1<<20 {
		t.Errorf("%d bytes moved for %d", down, size)
	}
}

// TestHelpersAndFaults cuts, corrupts and refuses ranges while helpers are at work.
func TestHelpersAndFaults(t *testing.T) {
	for name, faults := range map[string][]faulty.Fault{
		"cuts":      {{Kind: faulty.Cut, Path: "/blobs/", After: 5 << 20, Times: 6}},
		"no ranges": {{Kind: faulty.NoRanges, Path: "/blobs/"}},
		"refusals":  {{Kind: faulty.Slow, Path: "/blobs/", After: 16 << 20, Times: 2}, {Kind: faulty.Status, Code: 429, Path: "/blobs/", Times: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.push("big", "t", images.Options{Layers: 1, FilesPerLayer: 24, FileSize: 1 << 20, Compression: "none"})
			p := w.behind()
			w.quick(5 * time.Second)
			w.s.lookForHelp = 0
			p.Set(faults...)
			w.fullPull("big:t")
		})
	}
}

// pullRoot makes the test binary a process that pulls until it is killed.
const pullRoot = "TARE_TEST_PULL_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(pullRoot); root != "" {
		pullForEver(root, os.Getenv("TARE_TEST_PULL_REFS"))
	}
	os.Exit(m.Run())
}

// pullForEver pulls, removes and sweeps, for ever. It prints the names it is certain of.
func pullForEver(root, refs string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	store, err := image.Open(root, nil)
	fail(err)
	client, err := registry.New(registry.Config{})
	fail(err)
	s := New(store, client, nil, Limits{})
	s.lookForHelp = 0 // helpers wherever they can be
	fmt.Println("open")
	list := strings.Split(refs, ",")
	for n := 0; ; n++ {
		ref, err := reference.ParseNormalizedNamed(list[n%len(list)])
		fail(err)
		_, err = s.Pull(context.Background(), PullRequest{Ref: ref}, nil)
		fail(err)
		fmt.Println("have", ref)
		go store.Sweep(context.Background())
		gone := list[(n+1)%len(list)]
		if _, err := store.Get(gone); err == nil {
			fmt.Println("removing", gone)
			_, err := store.Remove(gone, true, true)
			fail(err)
		}
	}
}

// TestKilledPullsAndSweeps kills a process that pulls, removes and sweeps, 100 times at any moment: what it said is there is there and whole, and nothing leaks.
func TestKilledPullsAndSweeps(t *testing.T) {
	w := newWorld(t)
	w.push("a", "t", images.Options{Layers: 3, FilesPerLayer: 40, FileSize: 40000, Seed: 1})
	w.push("b", "t", images.Options{Layers: 4, FilesPerLayer: 40, FileSize: 40000, Seed: 2})
	w.push("c", "t", images.Options{Layers: 1, FilesPerLayer: 20, FileSize: 1 << 20, Seed: 3, Compression: "none"})
	var refs []string
	for _, n := range []string{"a:t", "b:t", "c:t"} {
		refs = append(refs, w.ref(n).String())
	}
	root := t.TempDir()
	for n := range 100 {
		said := killedPull(t, root, strings.Join(refs, ","), time.Duration(20+n*3%180)*time.Millisecond)
		store, err := image.Open(root, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.store = store
		certain := map[string]bool{}
		for line := range strings.Lines(said) {
			what, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			certain[name] = what == "have"
		}
		for name, have := range certain {
			if _, err := store.Get(name); have && name != "" && err != nil {
				t.Errorf("%s was there, then: %v", name, err)
			}
		}
		if n%10 == 9 {
			w.sound()
		}
		store.Close()
	}
	store, err := image.Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, img := range store.List() {
		store.Remove(img.ID.String(), true, true)
	}
	if _, err := store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Blobs.DropParts(); err != nil {
		t.Fatal(err)
	}
	for _, p := range leftovers(root) {
		t.Errorf("left behind: %s", p)
	}
}

// killedPull runs pullForEver for as long after it opened its store.
func killedPull(t *testing.T, root, refs string, after time.Duration) (said string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), pullRoot+"="+root, "TARE_TEST_PULL_REFS="+refs)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out := &opening{open: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.open:
	case <-time.After(20 * time.Second):
		t.Error("the process does not open its store")
	}
	time.Sleep(after) // the moment
	cmd.Process.Kill()
	cmd.Wait()
	if strings.Contains(out.b.String(), "error") {
		t.Fatal(out.b.String())
	}
	return out.b.String()
}

// opening collects output, and tells when the first of it is there.
type opening struct {
	b    bytes.Buffer
	open chan struct{}
}

func (o *opening) Write(p []byte) (int, error) {
	if o.b.Len() == 0 {
		close(o.open)
	}
	return o.b.Write(p)
}

// TestAKilledPullResumes kills a process in the middle of a pull with kill -9; the next moves what was missing.
func TestAKilledPullResumes(t *testing.T) {
	for name, slow := range map[string]int64{"one connection": 0, "with helpers": 16 << 20} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			made := w.push("x", "t", images.Options{Layers: 2, FilesPerLayer: 48, FileSize: 1 << 20, Compression: "none"})
			total := made.Layers[0].Size + made.Layers[1].Size
			p := w.behind()
			p.Set(faulty.Fault{Kind: faulty.Slow, Path: "/blobs/", After: max(slow, 24<<20)})
			root := t.TempDir()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), pullRoot+"="+root, "TARE_TEST_PULL_REFS="+w.ref("x:t").String())
			cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(60 * time.Second); ; {
				if arrived(root) > total/2 { // not what the proxy sent: some of that is in the kernel
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the pull does not move")
				}
				time.Sleep(time.Millisecond)
			}
			cmd.Process.Kill()
			cmd.Wait()
			p.Set()
			w.root = root
			w.open()
			w.fullPull("x:t")
			if down, _ := p.Moved(); down > total*55/100 {
				t.Errorf("the second pull moved %d of %d bytes", down, total)
			}
		})
	}
}

// arrived is how many bytes of blobs a store has, whole or not.
func arrived(root string) (sum int64) {
	for _, dir := range []string{"ingest", "blobs/sha256"} {
		entries, _ := os.ReadDir(filepath.Join(root, "images", dir))
		for _, e := range entries {
			var st unix.Stat_t
			if unix.Stat(filepath.Join(root, "images", dir, e.Name()), &st) == nil {
				sum += min(st.Blocks*512, st.Size)
			}
		}
	}
	return sum
}

// TestAFullDiskAtTheRegistry: the push fails with a sentence, and works when there is room.
func TestAFullDiskAtTheRegistry(t *testing.T) {
	w := newWorld(t)
	w.push("x", "t", images.Options{Layers: 1, FilesPerLayer: 4, FileSize: 1 << 20, Compression: "none"})
	img, _ := w.pull("x:t")
	dir := tmpfs(t, "3m")
	h, err := hub.Open(filepath.Join(dir, "registry"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	w.hub = h
	w.quick(5 * time.Second)
	to := w.ref("y:t").(reference.NamedTagged)
	if err := w.store.Tag(img.ID.String(), to); err != nil {
		t.Fatal(err)
	}
	if err := w.s.Push(t.Context(), PushRequest{Ref: to}, nil); err == nil || !strings.Contains(err.Error(), w.host) {
		t.Errorf("push to a full disk: %v", err)
	}
	resize(t, dir, "50m")
	if err := w.s.Push(t.Context(), PushRequest{Ref: to}, nil); err != nil {
		t.Error(err)
	}
}

func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func resize(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size="+size); err != nil {
		t.Fatal(err)
	}
}
