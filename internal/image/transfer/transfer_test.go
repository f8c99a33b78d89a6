package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"tare/internal/base/event"
	"tare/internal/base/ids"
	"tare/internal/base/progress"
	"tare/internal/hub"
	"tare/internal/image"
	"tare/internal/image/registry"
	"tare/internal/test/images"
)

// world is a registry and an engine's store.
type world struct {
	t     *testing.T
	srv   *httptest.Server
	host  string
	root  string
	bus   *event.Bus
	store *image.Store
	s     *Service

	mu     sync.Mutex // guards all below
	wrap   func(http.Handler) http.Handler
	counts map[string]int   // requests by "GET blobs", "PUT blobs", …
	moved  map[string]int64 // bytes of answers' bodies, the same
	hub    http.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	h, err := hub.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, hub: h, root: t.TempDir(), counts: map[string]int{}, moved: map[string]int64{}}
	w.srv = httptest.NewUnstartedServer(w)
	// What is written is nearly what arrived: the kernel keeps little on the way.
	w.srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		c.(*net.TCPConn).SetWriteBuffer(32 << 10)
		return ctx
	}
	w.srv.Start()
	w.host = strings.TrimPrefix(w.srv.URL, "http://")
	t.Cleanup(func() {
		w.srv.CloseClientConnections()
		w.srv.Close()
		h.Close()
	})
	w.open()
	return w
}

// open opens the store again, as a restarted engine does.
func (w *world) open() {
	w.t.Helper()
	w.bus = &event.Bus{}
	store, err := image.Open(w.root, w.bus)
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := registry.New(registry.Config{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store, w.s = store, New(store, client, w.bus, Limits{})
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	kind := "other"
	for _, k := range []string{"blobs", "manifests", "tags"} {
		if strings.Contains(r.URL.Path, "/"+k+"/") {
			kind = k
		}
	}
	key := r.Method + " " + kind
	w.mu.Lock()
	w.counts[key]++
	h := w.hub
	if w.wrap != nil {
		h = w.wrap(h)
	}
	w.mu.Unlock()
	h.ServeHTTP(&meter{rw, w, key}, r)
}

type meter struct {
	http.ResponseWriter
	w   *world
	key string
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	m.w.mu.Lock()
	m.w.moved[m.key] += int64(n)
	m.w.mu.Unlock()
	return n, err
}

// reset forgets the counts and puts a layer of handlers around the registry.
func (w *world) reset(wrap func(http.Handler) http.Handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.counts)
	clear(w.moved)
	w.wrap = wrap
}

func (w *world) count(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[key]
}

func (w *world) push(name, tag string, o images.Options) *images.Image {
	w.t.Helper()
	img, err := images.Generate(o)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := img.Push(w.srv.URL, name, tag); err != nil {
		w.t.Fatal(err)
	}
	return img
}

func (w *world) ref(s string) reference.Named {
	w.t.Helper()
	ref, err := reference.ParseNormalizedNamed(w.host + "/" + s)
	if err != nil {
		w.t.Fatal(err)
	}
	return ref
}

// recorder collects progress.
type recorder struct {
	mu  sync.Mutex
	all []progress.Update
}

func (r *recorder) sink(u progress.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, u)
}

// lines are the updates of one part ("" for the whole), without counters and repeats.
func (r *recorder) lines(id string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, u := range r.all {
		if u.ID == id && u.Action != "" && (len(out) == 0 || out[len(out)-1] != u.Action) {
			out = append(out, u.Action)
		}
	}
	return out
}

func (w *world) pull(name string) (*image.Image, *recorder) {
	w.t.Helper()
	rec := &recorder{}
	img, err := w.s.Pull(w.t.Context(), PullRequest{Ref: w.ref(name)}, rec.sink)
	if err != nil {
		w.t.Fatalf("pull %s: %v", name, err)
	}
	return img, rec
}

// leftovers lists what is in the data root: blobs, arriving bytes, layers.
func leftovers(root string) []string {
	var found []string
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		rel, _ := filepath.Rel(root, path)
		dir, base := filepath.Split(rel)
		switch {
		case strings.HasPrefix(rel, "images/blobs/sha") && !d.IsDir() && strings.Count(rel, "/") == 3,
			dir == "images/ingest/" && !d.IsDir(), dir == "layers/" && len(base) == 64, strings.HasPrefix(base, ".tmp-"):
			found = append(found, rel)
		}
		return nil
	})
	return found
}

func TestPullSaysWhatDockerSays(t *testing.T) {
	w := newWorld(t)
	made := w.push("team/app", "v1", images.Options{Layers: 3, FilesPerLayer: 30, FileSize: 3000})
	sub := w.bus.Subscribe()
	img, rec := w.pull("team/app:v1")
	if img.ID != made.Config.Digest || img.Target.Digest != made.Manifest.Digest || len(img.Layers) != 3 {
		t.Errorf("%+v", img)
	}
	name := w.host + "/team/app:v1"
	if diff := cmp.Diff([]string{"Digest: " + made.Manifest.Digest.String(), "Status: Downloaded newer image for " + name}, rec.lines("")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"Pulling from team/app"}, rec.lines("v1")); diff != "" {
		t.Error(diff)
	}
	for i, l := range made.Layers {
		got := slices.DeleteFunc(rec.lines(ids.Short(l.Digest.String())), func(s string) bool { return s == "Downloading" })
		want := []string{"Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		file := fmt.Sprintf("data/layer%02d/dir000/file00000.bin", i)
		if _, err := os.Stat(filepath.Join(w.store.Layers.Dir(made.DiffIDs[i]), file)); err != nil {
			t.Error(err)
		}
	}
	e := <-sub.C
	for e.Action != "pull" {
		e = <-sub.C
	}
	if e.ID != name || e.Attributes["name"] != w.host+"/team/app" {
		t.Errorf("event %+v", e)
	}
	w.reset(nil)
	_, rec = w.pull("team/app:v1")
	if got := rec.lines(""); got[len(got)-1] != "Status: Image is up to date for "+name {
		t.Errorf("second pull: %q", got)
	}
	if n := w.count("GET blobs"); n != 0 {
		t.Errorf("second pull fetched %d blobs", n)
	}
}

func TestPullByDigestAndForms(t *testing.T) {
	w := newWorld(t)
	for _, o := range []images.Options{{Layers: 2, Compression: "zstd"}, {Layers: 2, Compression: "none", Seed: 1}, {Layers: 2, Docker: true, Seed: 2}, {Layers: 2, Docker: true, Compression: "none", Seed: 3}} {
		made := w.push("x", "t", o)
		img, _ := w.pull("x@" + made.Manifest.Digest.String())
		if img.ID != made.Config.Digest {
			t.Errorf("%+v: %s", o, img.ID)
		}
	}
}

func TestPullWithLayersThatRepeat(t *testing.T) {
	w := newWorld(t)
	var empty bytes.Buffer
	tar.NewWriter(&empty).Close()
	img, err := images.Assemble(images.Options{}, empty.Bytes(), empty.Bytes(), empty.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push(w.srv.URL, "x", "t"); err != nil {
		t.Fatal(err)
	}
	if got, _ := w.pull("x:t"); len(got.Layers) != 3 {
		t.Errorf("%d layers", len(got.Layers))
	}
}

func TestTwoPullsShareTheWork(t *testing.T) {
	w := newWorld(t)
	made := w.push("x", "t", images.Options{Layers: 3, FilesPerLayer: 100, FileSize: 20000})
	other := w.push("y", "t", images.Options{Layers: 4, FilesPerLayer: 100, FileSize: 20000}) // the first three are x's
	gate := make(chan struct{})
	w.reset(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if slices.ContainsFunc(made.Layers, func(d ocispec.Descriptor) bool { return strings.HasSuffix(r.URL.Path, d.Digest.String()) }) {
				<-gate
			}
			h.ServeHTTP(rw, r)
		})
	})
	var group sync.WaitGroup
	for i := range 4 {
		name := []string{"x:t", "y:t"}[i%2]
		group.Go(func() {
			if _, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref(name)}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, "all pulls to join", func() bool {
		w.s.flights.mu.Lock()
		defer w.s.flights.mu.Unlock()
		n := 0
		for _, l := range made.Layers {
			if f := w.s.flights.active[l.Digest]; f != nil {
				n += len(f.sinks)
			}
		}
		return n == 12
	})
	close(gate)
	group.Wait()
	w.reset(nil)
	for _, l := range other.Layers {
		if _, err := w.store.Blobs.Size(l.Digest); err != nil {
			t.Error(err)
		}
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// throttle cuts all layers off when limit bytes have moved.
func throttle(limit int64, config digest.Digest, reached func()) func(http.Handler) http.Handler {
	var moved atomic.Int64
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method != "GET" || !strings.Contains(r.URL.Path, "/blobs/") || strings.HasSuffix(r.URL.Path, config.String()) {
				h.ServeHTTP(rw, r)
				return
			}
			h.ServeHTTP(&stopper{rw, &moved, limit, reached, r.Context()}, r)
		})
	}
}

type stopper struct {
	http.ResponseWriter
	moved   *atomic.Int64
	limit   int64
	reached func()
	ctx     context.Context
}

func (s *stopper) Write(p []byte) (int, error) {
	if s.moved.Add(int64(len(p))) > s.limit {
		s.reached()
		<-s.ctx.Done()
		return 0, s.ctx.Err()
	}
	n, err := s.ResponseWriter.Write(p)
	s.ResponseWriter.(*meter).ResponseWriter.(http.Flusher).Flush()
	return n, err
}

func TestAPullThatWasKilledGoesOn(t *testing.T) {
	w := newWorld(t)
	made := w.push("x", "t", images.Options{Layers: 4, FilesPerLayer: 200, FileSize: 150000, Compression: "none"})
	var total int64
	for _, l := range made.Layers {
		total += l.Size
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.reset(throttle(total/2, made.Config.Digest, cancel))
	began := time.Now()
	if _, err := w.s.Pull(ctx, PullRequest{Ref: w.ref("x:t")}, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled pull: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("cancelled after %s", took)
	}
	w.store.Blobs.Close()
	w.store.Layers.Close()
	w.open()
	w.reset(nil)
	w.pull("x:t")
	w.mu.Lock()
	moved := w.moved["GET blobs"]
	w.mu.Unlock()
	if moved > total*55/100 {
		t.Errorf("the second pull moved %d of %d bytes", moved, total)
	}
}

func TestDamagedBlob(t *testing.T) {
	for _, compression := range []string{"gzip", "none", "zstd"} {
		w := newWorld(t)
		made := w.push("x", "t", images.Options{Layers: 2, FilesPerLayer: 50, FileSize: 9000, Compression: compression})
		bad := made.Layers[1]
		w.reset(func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, bad.Digest.String()) {
					data := slices.Clone(made.Blobs[bad.Digest])
					data[len(data)/2] ^= 0x40
					rw.Write(data)
					return
				}
				h.ServeHTTP(rw, r)
			})
		})
		_, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:t")}, nil)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), bad.Digest.String()) || !strings.Contains(err.Error(), "arrived damaged") {
			t.Errorf("%s: %v", compression, err)
		}
		if left := leftovers(w.root); len(left) > 0 {
			t.Errorf("%s: left behind: %v", compression, left)
		}
	}
}

func TestHostileLayer(t *testing.T) {
	for _, name := range []string{"../escape", "a/../../escape"} {
		w := newWorld(t)
		var raw bytes.Buffer
		tw := tar.NewWriter(&raw)
		tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 1, Mode: 0o644})
		tw.Write([]byte("x"))
		tw.Close()
		made, err := images.Assemble(images.Options{}, raw.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if err := made.Push(w.srv.URL, "x", "t"); err != nil {
			t.Fatal(err)
		}
		_, err = w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:t")}, nil)
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "failed to register layer "+ids.Short(made.Layers[0].Digest.String())) {
			t.Errorf("%s: %v", name, err)
		}
		if left := leftovers(w.root); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestConfigThatDoesNotFit(t *testing.T) {
	w := newWorld(t)
	a, _ := images.Generate(images.Options{Layers: 1})
	b, _ := images.Generate(images.Options{Layers: 1, Seed: 1})
	// b's layer under a's config: the blob is right, its diffID is not.
	manifest := strings.ReplaceAll(string(a.Blobs[a.Manifest.Digest]), a.Layers[0].Digest.String(), b.Layers[0].Digest.String())
	manifest = strings.Replace(manifest, fmt.Sprint(a.Layers[0].Size), fmt.Sprint(b.Layers[0].Size), 1)
	for _, data := range [][]byte{a.Blobs[a.Config.Digest], b.Blobs[b.Layers[0].Digest]} {
		if err := images.PushBlob(w.srv.URL, "x", data); err != nil {
			t.Fatal(err)
		}
	}
	if err := images.PushManifest(w.srv.URL, "x", "t", ocispec.MediaTypeImageManifest, []byte(manifest)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:t")}, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("wrong diffID: %v", err)
	}
	if left := leftovers(w.root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	w.push("x", "t", images.Options{Layers: 4, FilesPerLayer: 100, FileSize: 60000})
	w.root = t.TempDir()
	if err := unix.Mount("tmpfs", w.root, "tmpfs", 0, "size=12m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(w.root, unix.MNT_DETACH) })
	w.open()
	_, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:t")}, nil)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), w.root) {
		t.Errorf("full disk: %v", err)
	}
	if left := leftovers(w.root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestIndexPlatforms(t *testing.T) {
	w := newWorld(t)
	other := "arm64"
	if runtime.GOARCH == "arm64" {
		other = "amd64"
	}
	mine, foreign := w.push("x", "mine", images.Options{Layers: 2}), w.push("x", "other", images.Options{Architecture: other, Seed: 1})
	fake, _ := images.Generate(images.Options{Seed: 5})
	note := fake.Manifest
	note.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	note.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	if err := fake.Push(w.srv.URL, "x", "note"); err != nil {
		t.Fatal(err)
	}
	d, data, err := images.Index([]*images.Image{foreign, mine}, note)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.PushManifest(w.srv.URL, "x", "multi", d.MediaType, data); err != nil {
		t.Fatal(err)
	}
	img, rec := w.pull("x:multi")
	if img.ID != mine.Config.Digest || img.Target.Digest != d.Digest {
		t.Errorf("pulled %s as %s", img.ID, img.Target.Digest)
	}
	if got := rec.lines("")[0]; got != "Digest: "+d.Digest.String() {
		t.Error(got)
	}
	img, err = w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:multi"), Platform: &ocispec.Platform{OS: "linux", Architecture: other}}, nil)
	if err != nil || img.ID != foreign.Config.Digest {
		t.Errorf("--platform %s: %v %v", other, img, err)
	}
	_, err = w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:multi"), Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, nil)
	if !errdefs.IsNotFound(err) || err.Error() != "no matching manifest for linux/s390x in the manifest list entries" {
		t.Errorf("no such platform: %v", err)
	}
	_, err = w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:mine"), Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, nil)
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "does not match the specified platform") {
		t.Errorf("other platform: %v", err)
	}
}

func TestRefusedManifests(t *testing.T) {
	w := newWorld(t)
	made := w.push("x", "t", images.Options{})
	m := string(made.Blobs[made.Manifest.Digest])
	for what, c := range map[string]struct{ manifest, want string }{
		"foreign layer": {strings.Replace(m, ocispec.MediaTypeImageLayerGzip, registry.DockerForeignLayer, 1), "foreign layer"},
		"chart":         {strings.Replace(m, ocispec.MediaTypeImageConfig, "application/vnd.cncf.helm.config.v1+json", 1), "not of a container image"},
		"odd layer":     {strings.Replace(m, ocispec.MediaTypeImageLayerGzip, "text/plain", 1), "not supported"},
	} {
		if err := images.PushManifest(w.srv.URL, "x", "bad", ocispec.MediaTypeImageManifest, []byte(c.manifest)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:bad")}, nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if left := leftovers(w.root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:none")}, nil); !errdefs.IsNotFound(err) ||
		!strings.HasPrefix(err.Error(), "manifest for "+w.host+"/x:none not found: manifest unknown: ") {
		t.Errorf("unknown tag: %v", err)
	}
}

func (w *world) tag(from, to string) {
	w.t.Helper()
	if err := w.store.Tag(reference.FamiliarString(w.ref(from)), w.ref(to).(reference.NamedTagged)); err != nil {
		w.t.Fatal(err)
	}
}

func TestPush(t *testing.T) {
	w := newWorld(t)
	made := w.push("from", "t", images.Options{Layers: 3, FilesPerLayer: 20})
	w.pull("from:t")
	w.tag("from:t", "to/here:v2")
	push := func(name string, all bool) *recorder {
		t.Helper()
		rec := &recorder{}
		if err := w.s.Push(t.Context(), PushRequest{Ref: w.ref(name), AllTags: all}, rec.sink); err != nil {
			t.Fatal(err)
		}
		return rec
	}
	rec := push("to/here:v2", false)
	closing := fmt.Sprintf("v2: digest: %s size: %d", made.Manifest.Digest, made.Manifest.Size)
	if diff := cmp.Diff([]string{"The push refers to repository [" + w.host + "/to/here]", closing}, rec.lines("")); diff != "" {
		t.Error(diff)
	}
	for _, l := range made.Layers {
		if diff := cmp.Diff([]string{"Preparing", "Mounted from from"}, rec.lines(ids.Short(l.Digest.String()))); diff != "" {
			t.Error(diff)
		}
	}
	if last := rec.all[len(rec.all)-1].Aux; last != (PushResult{"v2", made.Manifest.Digest.String(), int(made.Manifest.Size)}) {
		t.Errorf("aux %+v", last)
	}
	w.tag("from:t", "to/here:v1")
	rec = push("to/here", true)
	if diff := cmp.Diff([]string{"Preparing", "Layer already exists"}, rec.lines(ids.Short(made.Layers[0].Digest.String()))); diff != "" {
		t.Error(diff)
	}
	img, err := w.store.Get(reference.FamiliarString(w.ref("to/here:v2")))
	if err != nil || !slices.Contains(img.Digests, w.host+"/to/here@"+made.Manifest.Digest.String()) {
		t.Errorf("digests after push: %+v %v", img, err)
	}
	// To another registry everything has to move.
	far := newWorld(t)
	to, _ := reference.ParseNormalizedNamed(far.host + "/far:v1")
	if err := w.store.Tag(reference.FamiliarString(w.ref("from:t")), to.(reference.NamedTagged)); err != nil {
		t.Fatal(err)
	}
	rec = &recorder{}
	if err := w.s.Push(t.Context(), PushRequest{Ref: to}, rec.sink); err != nil {
		t.Fatal(err)
	}
	got := slices.DeleteFunc(rec.lines(ids.Short(made.Layers[0].Digest.String())), func(s string) bool { return s == "Pushing" })
	if diff := cmp.Diff([]string{"Preparing", "Pushed"}, got); diff != "" {
		t.Error(diff)
	}
	if img, _ := far.pull("far:v1"); img.Target.Digest != made.Manifest.Digest {
		t.Errorf("another digest came out: %s", img.Target.Digest)
	}
	err = w.s.Push(t.Context(), PushRequest{Ref: w.ref("to/here:none")}, nil)
	if !errdefs.IsNotFound(err) || err.Error() != "tag does not exist: "+w.host+"/to/here:none" {
		t.Errorf("unknown tag: %v", err)
	}
	err = w.s.Push(t.Context(), PushRequest{Ref: w.ref("none:x")}, nil)
	if !errdefs.IsNotFound(err) || err.Error() != "An image does not exist locally with the tag: "+w.host+"/none" {
		t.Errorf("unknown name: %v", err)
	}
}

func TestPullAllTags(t *testing.T) {
	w := newWorld(t)
	w.push("x", "a", images.Options{})
	w.push("x", "b", images.Options{Seed: 1})
	if _, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x"), AllTags: true}, nil); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"a", "b"} {
		if _, err := w.store.Get(w.host + "/x:" + tag); err != nil {
			t.Error(err)
		}
	}
}

func TestFit(t *testing.T) {
	p := func(s string) ocispec.Platform {
		parts := strings.Split(s+"///", "/")
		return ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	}
	for _, c := range []struct {
		want    string
		entries string // space separated
		choice  int    // -1: none
	}{
		{"linux/amd64", "linux/arm64 linux/amd64", 1},
		{"linux/amd64", "windows/amd64 linux/arm64", -1},
		{"linux/x86_64", "linux/amd64", 0},
		{"linux/arm64", "linux/arm/v7 linux/arm64/v8", 1},
		{"linux/aarch64", "linux/arm64", 0},
		{"linux/arm/v7", "linux/arm/v5 linux/arm/v6 linux/arm64", 1},
		{"linux/arm/v6", "linux/arm/v7 linux/arm/v5", 1},
		{"linux/arm", "linux/arm/v6 linux/arm/v7", 1},
		{"linux/amd64", "linux/amd64/v3 linux/amd64", 1},
		{"linux/amd64/v2", "linux/amd64 linux/amd64/v2", 1},
		{"linux/amd64/v2", "linux/amd64", 0},
	} {
		var ds []ocispec.Descriptor
		for i, s := range strings.Fields(c.entries) {
			pl := p(s)
			ds = append(ds, ocispec.Descriptor{Platform: &pl, Size: int64(i)})
		}
		got, err := choose(ds, p(c.want))
		if c.choice < 0 {
			if !errdefs.IsNotFound(err) {
				t.Errorf("%s of %s: %v", c.want, c.entries, err)
			}
			continue
		}
		if err != nil || got.Size != int64(c.choice) {
			t.Errorf("%s of %s: %d, %v", c.want, c.entries, got.Size, err)
		}
	}
}

func TestQueue(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 400_000)
	for _, stopAt := range []int{-1, 100, 3 << 20} {
		q := newQueue(t.Context())
		got := make(chan []byte, 1)
		go func() {
			r := io.Reader(q)
			if stopAt >= 0 {
				r = io.LimitReader(q, int64(stopAt))
			}
			b, _ := io.ReadAll(r)
			q.abandon()
			got <- b
		}()
		a := &arrival{}
		src := bytes.NewReader(data)
		err := a.pump(t.Context(), q, func(b []byte) (int, bool, error) { n, err := src.Read(b); return n, true, err }, nil)
		q.finish(err)
		b := <-got
		want := data
		if stopAt >= 0 {
			want = data[:stopAt]
		}
		if err != nil || !bytes.Equal(b, want) {
			t.Errorf("stop at %d: %d bytes, %v", stopAt, len(b), err)
		}
		q.release()
	}
}

func FuzzParse(f *testing.F) {
	img, err := images.Generate(images.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(img.Blobs[img.Manifest.Digest], img.Manifest.MediaType)
	f.Add([]byte(`{"manifests":[{"digest":"sha256:"}]}`), ocispec.MediaTypeImageIndex)
	f.Fuzz(func(t *testing.T, data []byte, mediaType string) {
		doc, err := parse(data, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data)})
		if err != nil {
			return
		}
		for _, d := range append(slices.Concat(doc.Layers, doc.Manifests), doc.Config) {
			if d.Digest != "" && d.Digest.Validate() != nil {
				t.Errorf("digest %q accepted", d.Digest)
			}
		}
	})
}

func TestPushOfAnIndex(t *testing.T) {
	w := newWorld(t)
	other := "arm64"
	if runtime.GOARCH == "arm64" {
		other = "amd64"
	}
	mine, foreign := w.push("x", "mine", images.Options{}), w.push("x", "other", images.Options{Architecture: other, Seed: 1})
	d, data, err := images.Index([]*images.Image{foreign, mine})
	if err != nil {
		t.Fatal(err)
	}
	if err := images.PushManifest(w.srv.URL, "x", "multi", d.MediaType, data); err != nil {
		t.Fatal(err)
	}
	w.pull("x:multi")
	push := func(to string) (PushResult, []any) {
		t.Helper()
		w.tag("x:multi", to)
		var aux []any
		if err := w.s.Push(t.Context(), PushRequest{Ref: w.ref(to)}, func(u progress.Update) {
			if u.Aux != nil {
				aux = append(aux, u.Aux)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return aux[len(aux)-1].(PushResult), aux
	}
	// One platform is here: its manifest goes, and the client is told.
	if res, aux := push("one:v"); res.Digest != mine.Manifest.Digest.String() || len(aux) != 2 {
		t.Errorf("part of an index: %+v", aux)
	}
	if _, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:multi"), Platform: &ocispec.Platform{OS: "linux", Architecture: other}}, nil); err != nil {
		t.Fatal(err)
	}
	if res, aux := push("all:v"); res.Digest != d.Digest.String() || len(aux) != 1 {
		t.Errorf("whole index: %+v", aux)
	}
}

func TestAPullThatJoinedDoesTheWorkWhenTheOtherFails(t *testing.T) {
	var f flights
	key := digest.FromString("x")
	started, fail := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- f.do(t.Context(), key, nil, func(context.Context, progress.Sink) error {
			close(started)
			<-fail
			return io.ErrUnexpectedEOF
		})
	}()
	<-started
	second := make(chan error, 1)
	go func() {
		second <- f.do(t.Context(), key, nil, func(context.Context, progress.Sink) error { return nil })
	}()
	waitFor(t, "the second to join", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.active[key] != nil && len(f.active[key].sinks) == 2
	})
	close(fail)
	if err := <-first; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
}
