package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
	"tare/internal/base/progress"
	"tare/internal/build/execute"
	"tare/internal/image"
	"tare/internal/image/layer"
	"tare/internal/image/transfer"
)

// recorder is an executor that writes what a tiny language says: "write FILE TEXT", "fail N", "say TEXT", "hang", "linger".
type recorder struct {
	mu    sync.Mutex
	ran   []execute.Process
	hangs chan struct{} // told when a "hang" or "linger" begins
	ends  chan struct{} // lets "linger" end
}

func (r *recorder) Recover(context.Context) error { return nil }
func (r *recorder) Run(ctx context.Context, p execute.Process, out io.Writer) (int, error) {
	r.mu.Lock()
	r.ran = append(r.ran, p)
	r.mu.Unlock()
	// What a runtime does: mount points appear.
	os.MkdirAll(filepath.Join(p.Root.Upper, "etc"), 0o755)
	for _, d := range []string{"proc", "sys", "dev"} {
		os.Mkdir(filepath.Join(p.Root.Upper, d), 0o755)
	}
	for _, f := range []string{"etc/hosts", "etc/resolv.conf"} {
		os.WriteFile(filepath.Join(p.Root.Upper, f), nil, 0o644)
	}
	words := strings.SplitN(p.Args[len(p.Args)-1], " ", 3)
	switch words[0] {
	case "write":
		os.MkdirAll(filepath.Dir(filepath.Join(p.Root.Upper, words[1])), 0o755)
		return 0, os.WriteFile(filepath.Join(p.Root.Upper, words[1]), []byte(words[2]), 0o644)
	case "copy": // cp -a, out of the topmost of the lower layers that has it
		for _, l := range p.Root.Lower {
			data, err := os.ReadFile(filepath.Join(l, words[1]))
			if err != nil {
				continue
			}
			st, _ := os.Stat(filepath.Join(l, words[1]))
			to := filepath.Join(p.Root.Upper, words[2])
			os.WriteFile(to, data, 0o644)
			return 0, os.Chtimes(to, st.ModTime(), st.ModTime())
		}
		return 1, nil
	case "fail":
		var n int
		fmt.Sscan(words[1], &n)
		return n, nil
	case "say":
		fmt.Fprintln(out, strings.Join(words[1:], " "))
	case "linger": // ends a while after it was told to
		r.hangs <- struct{}{}
		<-ctx.Done()
		<-r.ends
		return 0, ctx.Err()
	case "hang":
		select {
		case r.hangs <- struct{}{}:
		case <-ctx.Done():
		}
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, nil
}

// hub is a Puller without a network: it "pulls" by building FROM scratch.
type hub struct {
	t      *testing.T
	store  *image.Store
	pulled []string
	with   func(*image.Config)
}

func (r *hub) Pull(ctx context.Context, req transfer.PullRequest, p progress.Sink) (*image.Image, error) {
	r.pulled = append(r.pulled, req.Ref.String())
	if strings.Contains(req.Ref.String(), "missing") {
		return nil, fault.NotFound("pull access denied for missing, repository does not exist or may require 'docker login'")
	}
	p.Status("", "Pulling from somewhere")
	upper := filepath.Join(r.t.TempDir(), "upper")
	os.MkdirAll(filepath.Join(upper, "etc"), 0o755)
	os.WriteFile(filepath.Join(upper, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\napp:x:10:20::/home/app:/bin/sh\n"), 0o644)
	l, err := r.store.Commit(ctx, upper)
	if err != nil {
		return nil, err
	}
	c := &image.Config{}
	c.Platform = hostPlatform()
	c.Config.Env = []string{"PATH=/bin", "FROM_BASE=yes"}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []digest.Digest{l.DiffID}
	if r.with != nil {
		r.with(c)
	}
	names, err := parseTags([]string{req.Ref.String()})
	if err != nil {
		return nil, err
	}
	return r.store.Put(c, []layer.Layer{l}, names...)
}

// printed is an Output that keeps everything.
type printed struct {
	text   strings.Builder
	status []string
}

func (p *printed) Stream(s string)                      { p.text.WriteString(s) }
func (p *printed) Status(id, action string, _, _ int64) { p.status = append(p.status, action) }

// world is a builder over a real store.
type world struct {
	t     *testing.T
	root  string
	store *image.Store
	exec  *recorder
	reg   *hub
	s     *Service
}

func newWorld(t *testing.T) *world {
	root, err := os.MkdirTemp("", "tare-build-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	w := &world{t: t, root: root}
	w.open()
	return w
}

// open is a start of the engine.
func (w *world) open() {
	w.t.Helper()
	store, err := image.Open(w.root, &event.Bus{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store, w.exec = store, &recorder{hangs: make(chan struct{}), ends: make(chan struct{})}
	w.reg = &hub{t: w.t, store: store}
	w.s, err = open(w.t.Context(), Config{DataRoot: w.root, Images: store, Layers: store.Layers, Puller: w.reg, Bus: &event.Bus{}}, w.exec)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.s.Close() })
	if _, err := store.Sweep(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// tarOf packs files, given as name, content, name, content, …
func tarOf(t *testing.T, files ...string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), ModTime: time.Unix(1_500_000_000, 0)})
		io.WriteString(w, files[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func (w *world) build(req Request, files ...string) (*image.Image, *printed, error) {
	w.t.Helper()
	out := &printed{}
	req.Context = tarOf(w.t, files...)
	id, err := w.s.Build(w.t.Context(), req, out)
	if err != nil {
		return nil, out, err
	}
	img, err := w.store.Get(id.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return img, out, nil
}

func (w *world) must(req Request, files ...string) (*image.Image, *printed) {
	w.t.Helper()
	img, out, err := w.build(req, files...)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, out.text.String())
	}
	return img, out
}

// files lists what an image's layers hold.
func (w *world) files(img *image.Image) (out []string) {
	for i, l := range img.Layers {
		dir := w.store.Layers.Dir(l.DiffID)
		filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if rel, _ := filepath.Rel(dir, p); rel != "." && !d.IsDir() {
				out = append(out, fmt.Sprint(i, " ", rel))
			}
			return nil
		})
	}
	return out
}

const simple = `FROM base
ENV A=1
COPY a /dir/
RUN write out result
RUN say nothing changes
LABEL x=y
CMD ["run"]
`

func TestBuildAndRebuild(t *testing.T) {
	w := newWorld(t)
	img, out := w.must(Request{Tags: []string{"made:1", "other"}, Labels: map[string]string{"z": "w"}}, "Dockerfile", simple, "a", "content")
	text := out.text.String()
	for _, want := range []string{"Step 1/7 : FROM base\n", "Step 5/7 : RUN say nothing changes\nnothing changes\n ---> ", "Step 7/7 : CMD [\"run\"]\n ---> ",
		"Successfully built " + img.ID.Encoded()[:12] + "\nSuccessfully tagged made:1\nSuccessfully tagged other:latest\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("output lacks %q:\n%s", want, text)
		}
	}
	if d := cmp.Diff([]string{"0 etc/passwd", "1 dir/a", "2 out"}, w.files(img)); d != "" {
		t.Error(d)
	}
	var history []string
	for _, h := range img.Config.History {
		history = append(history, fmt.Sprint(h.CreatedBy, " ", h.EmptyLayer))
	}
	if d := cmp.Diff([]string{"ENV A=1 true", "COPY a /dir/ # buildkit false", "RUN /bin/sh -c write out result # buildkit false",
		"RUN /bin/sh -c say nothing changes # buildkit true", "LABEL x=y true", `CMD ["run"] true`}, history); d != "" {
		t.Error(d)
	}
	c := img.Config.Config
	if d := cmp.Diff([]any{[]string{"PATH=/bin", "FROM_BASE=yes", "A=1"}, map[string]string{"x": "y", "z": "w"}, []string{"run"}}, []any{c.Env, c.Labels, c.Cmd}); d != "" {
		t.Error(d)
	}
	if p := w.exec.ran[0]; p.Cwd != "/" || !strings.Contains(strings.Join(p.Env, " "), "A=1 SOURCE_DATE_EPOCH=315532800 HOME=/root") {
		t.Errorf("process %+v", p)
	}

	again, out := w.must(Request{Labels: map[string]string{"z": "w"}}, "Dockerfile", simple, "a", "content")
	if again.ID != img.ID || len(w.exec.ran) != 2 || strings.Count(out.text.String(), "Using cache") != 3 {
		t.Errorf("rebuild: id %s, want %s; ran %d; %s", again.ID, img.ID, len(w.exec.ran), out.text.String())
	}
	w.s.Close()
	w.open() // the engine starts again
	again, _ = w.must(Request{Labels: map[string]string{"z": "w"}}, "Dockerfile", simple, "a", "content")
	if again.ID != img.ID || len(w.exec.ran) != 0 {
		t.Errorf("after a restart: id %s, ran %d", again.ID, len(w.exec.ran))
	}
	if _, out := w.must(Request{}, "Dockerfile", simple, "a", "changed"); len(w.exec.ran) != 2 {
		t.Errorf("changed file: %s", out.text.String())
	}
	w.must(Request{NoCache: true}, "Dockerfile", simple, "a", "content")
	if len(w.exec.ran) != 4 {
		t.Error("no-cache ran nothing")
	}
	if left, _ := os.ReadDir(filepath.Join(w.root, "build/tmp")); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestBuildErrors(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name, file, want string
		req              Request
		class            func(error) bool
	}{
		{name: "no Dockerfile", want: "Cannot locate specified Dockerfile: web.df", req: Request{Dockerfile: "web.df"}},
		{name: "Dockerfile outside", want: "Cannot locate specified Dockerfile: ../x", req: Request{Dockerfile: "../x"}},
		{name: "bad tag", file: simple, want: "invalid reference format", req: Request{Tags: []string{"UPPER"}}},
		{name: "tag with digest", file: simple, want: "build tag cannot contain a digest", req: Request{Tags: []string{"a@" + digest.FromString("x").String()}}},
		{name: "bad platform", file: simple, want: "cannot build for windows/amd64", req: Request{Platform: "windows/amd64"}},
		{name: "container's network", file: simple, want: "can't share the network of a container", req: Request{Network: "container:x"}, class: errdefs.IsNotImplemented},
		{name: "missing base", file: "FROM missing\n", want: "pull access denied for missing", class: errdefs.IsNotFound},
		{name: "missing file", file: "FROM scratch\nCOPY x /\n", want: "COPY failed: file not found in build context or excluded by .dockerignore: stat x: file does not exist", class: errdefs.IsNotFound},
		{name: "failing RUN", file: "FROM base\nRUN fail 7\n", want: "The command '/bin/sh -c fail 7' returned a non-zero code: 7", class: func(err error) bool {
			var x *ExitError
			return errors.As(err, &x) && x.ExitCode() == 7
		}},
		{name: "unknown user", file: "FROM base\nUSER nope\nRUN x\n", want: "unable to find user nope"},
		{name: "unknown owner", file: "FROM base\nCOPY --chown=nope Dockerfile /\n", want: "COPY failed: invalid user nope"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.class == nil {
				tt.class = errdefs.IsInvalidArgument
			}
			_, _, err := w.build(tt.req, "Dockerfile", tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !tt.class(err) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("broken context", func(t *testing.T) {
		_, err := w.s.Build(t.Context(), Request{Context: strings.NewReader(strings.Repeat("no tar ", 200))}, &printed{})
		if !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	})
	if left, _ := os.ReadDir(filepath.Join(w.root, "build/tmp")); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestFailureOfALaterStageIsTold(t *testing.T) {
	w := newWorld(t)
	_, out, err := w.build(Request{}, "Dockerfile", "FROM base AS a\nRUN hang\nFROM base AS b\nRUN fail 1\nFROM a\nCOPY --from=b / /\n")
	if err == nil || !strings.Contains(out.text.String(), "Step 4/6 : RUN fail 1\n") {
		t.Errorf("%v\n%s", err, out.text.String())
	}
}

func TestOnlyNeededStages(t *testing.T) {
	w := newWorld(t)
	df := "FROM missing AS unused\nRUN fail 1\nFROM base AS tool\nRUN write tool x\nFROM scratch AS web\nCOPY --from=tool /tool /bin/tool\nFROM missing\n"
	img, _ := w.must(Request{Target: "web"}, "Dockerfile", df)
	if d := cmp.Diff([]string{"0 bin/tool"}, w.files(img)); d != "" {
		t.Error(d)
	}
}

func TestOnBuild(t *testing.T) {
	w := newWorld(t)
	w.must(Request{Tags: []string{"trigger"}}, "Dockerfile", "FROM base\nONBUILD COPY a /triggered/\nONBUILD ENV T=1\n")
	img, out := w.must(Request{}, "Dockerfile", "FROM trigger\nRUN write last x\n", "a", "content")
	if d := cmp.Diff([]string{"0 etc/passwd", "1 triggered/a", "2 last"}, w.files(img)); d != "" {
		t.Errorf("%s\n%s", d, out.text.String())
	}
	if c := img.Config.Config; len(c.OnBuild) != 0 || c.Env[len(c.Env)-1] != "T=1" {
		t.Errorf("config %+v", c)
	}
}

func TestIgnoreFiles(t *testing.T) {
	w := newWorld(t)
	img, _ := w.must(Request{}, "Dockerfile", "FROM scratch\nCOPY . /\n", "a", "1", "b.log", "2", ".dockerignore", "*.log\nDockerfile\n.dockerignore\n")
	if d := cmp.Diff([]string{"0 a"}, w.files(img)); d != "" {
		t.Error(d)
	}
	img, _ = w.must(Request{Dockerfile: "x/df"}, "x/df", "FROM scratch\nCOPY . /\n", "a", "1", "b.log", "2", ".dockerignore", "*.log\n", "x/df.dockerignore", "a\nx\n.dockerignore")
	if d := cmp.Diff([]string{"0 b.log"}, w.files(img)); d != "" {
		t.Error(d)
	}
}

func TestAdd(t *testing.T) {
	served := 0
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		served++
		if r.URL.Path == "/none" {
			http.NotFound(rw, r)
			return
		}
		io.WriteString(rw, "from the net")
	}))
	defer srv.Close()
	w := newWorld(t)
	inner, _ := io.ReadAll(tarOf(t, "in/side", "x", "top", "y"))
	hostile, _ := io.ReadAll(tarOf(t, "../../escape", "x"))
	img, _ := w.must(Request{}, "Dockerfile", "FROM scratch\nADD t.tar plain /d/\nADD "+srv.URL+"/dir/f?q /net/\n", "t.tar", string(inner), "plain", "p")
	if d := cmp.Diff([]string{"0 d/in/side", "0 d/plain", "0 d/top", "1 net/f"}, w.files(img)); d != "" {
		t.Error(d)
	}
	sum := digest.FromString("from the net").String()
	w.must(Request{}, "Dockerfile", "FROM scratch\nADD --checksum="+sum+" "+srv.URL+"/f /f\n")
	for want, df := range map[string]string{
		"digest mismatch":         "FROM scratch\nADD --checksum=" + digest.FromString("other").String() + " " + srv.URL + "/f /f\n",
		"with status 404":         "FROM scratch\nADD " + srv.URL + "/none /f\n",
		"cannot determine file":   "FROM scratch\nADD " + srv.URL + "/ /d/\n",
		"leads out of its root":   "FROM scratch\nADD hostile.tar /\n",
		"must be a directory and": "FROM scratch\nADD p* /d\n",
	} {
		if _, _, err := w.build(Request{}, "Dockerfile", df, "hostile.tar", string(hostile), "p1", "", "p2", ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if _, err := os.Stat("/escape"); err == nil {
		t.Error("a tar escaped")
	}
}

func TestRemoteContext(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ctx.tar" {
			io.Copy(rw, tarOf(t, "Dockerfile", "FROM scratch\nCOPY a /\n", "a", "x"))
			return
		}
		io.WriteString(rw, "FROM base\nENV R=1\n")
	}))
	defer srv.Close()
	w := newWorld(t)
	for url, want := range map[string]string{srv.URL + "/ctx.tar": "", srv.URL + "/Dockerfile": "", "ftp://x/y": "not supported", "git@x:-y": "failed to fetch"} {
		_, err := w.s.Build(t.Context(), Request{Remote: url}, &printed{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestBasesArePulledWhenAsked(t *testing.T) {
	w := newWorld(t)
	w.must(Request{}, "Dockerfile", "FROM base\n")
	_, out := w.must(Request{}, "Dockerfile", "FROM base\n")
	if len(w.reg.pulled) != 1 || len(out.status) != 0 {
		t.Errorf("pulled %v", w.reg.pulled)
	}
	_, out = w.must(Request{Pull: true}, "Dockerfile", "FROM base\n")
	if len(w.reg.pulled) != 2 || len(out.status) == 0 {
		t.Errorf("pulled %v", w.reg.pulled)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-w.exec.hangs
		cancel()
	}()
	_, err := w.s.Build(ctx, Request{Context: tarOf(t, "Dockerfile", "FROM base\nRUN hang\n")}, &printed{})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.root, "build/tmp")); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// The same inputs make the same image: on another day, in another folder, on another host, whatever is cached there.
func TestReproducible(t *testing.T) {
	const df = `FROM scratch AS one
WORKDIR /w
COPY --link src/ /src/
COPY src/a src/b ./
RUN write made/by/run text
RUN copy /src/a /kept
FROM scratch
COPY --from=one / /
ADD x.tar /x/
COPY <<EOF /inline
text
EOF
`
	unpacked, err := io.ReadAll(tarOf(t, "in/tar", "x"))
	if err != nil {
		t.Fatal(err)
	}
	day := func(d int) func() io.Reader {
		return func() io.Reader {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			for _, f := range [][2]string{{"Dockerfile", df}, {"src/a", "content of a"}, {"src/b", "content of b"}, {"x.tar", string(unpacked)}} {
				tw.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1])), ModTime: time.Now().AddDate(0, 0, d)})
				io.WriteString(tw, f[1])
			}
			tw.Close()
			return &b
		}
	}
	made := map[digest.Digest]bool{}
	build := func(w *world, context func() io.Reader) {
		t.Helper()
		id, err := w.s.Build(t.Context(), Request{Context: context()}, &printed{})
		if err != nil {
			t.Fatal(err)
		}
		made[id] = true
	}
	first, second := newWorld(t), newWorld(t)
	build(first, day(-1000))
	build(second, day(1)) // a checkout from the future
	if _, _, err := first.s.Prune(t.Context(), true, nil, Keep{}); err != nil {
		t.Fatal(err)
	}
	build(first, day(0)) // on layers that the image still holds
	build(second, day(-5))
	if len(made) != 1 {
		t.Errorf("%d images of the same inputs", len(made))
	}
	for _, epoch := range []string{"1000000000", "1000000001"} {
		id, err := first.s.Build(t.Context(), Request{Context: day(0)(), BuildArgs: map[string]*string{"SOURCE_DATE_EPOCH": &epoch}}, &printed{})
		if err != nil {
			t.Fatal(err)
		}
		if img, err := first.store.Get(id.String()); err != nil || fmt.Sprint(img.Config.Created.Unix()) != epoch {
			t.Errorf("created %v, want %s (%v)", img.Config.Created, epoch, err)
		}
		made[id] = true
	}
	if len(made) != 3 {
		t.Errorf("%d images, want one for each time", len(made))
	}
}

// What a build used that was just cancelled is pruned too: prune waits until the build has let go.
func TestPruneAfterCancel(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.s.Build(ctx, Request{Context: tarOf(t, "Dockerfile", "FROM base\nRUN write one 1\nRUN linger\n")}, &printed{})
	}()
	<-w.exec.hangs
	cancel()
	pruned := make(chan []string)
	go func() {
		ids, _, err := w.s.Prune(t.Context(), true, nil, Keep{})
		if err != nil {
			t.Error(err)
		}
		pruned <- ids
	}()
	select {
	case ids := <-pruned:
		t.Errorf("pruned %d records while the build was still ending", len(ids))
	case <-time.After(50 * time.Millisecond):
		close(w.exec.ends)
		if ids := <-pruned; len(ids) != 1 {
			t.Errorf("pruned %v", ids)
		}
	}
	<-ended
}

func TestPruneKeeps(t *testing.T) {
	w := newWorld(t)
	text := strings.Repeat("x", 60_000)
	for _, n := range []string{"one", "two", "three", "four"} {
		w.must(Request{Tags: []string{"x"}}, "Dockerfile", "FROM base\nRUN write "+n+" "+text+"\n")
		if _, err := w.store.Remove("x", true, true); err != nil {
			t.Fatal(err)
		}
	}
	w.must(Request{Tags: []string{"x"}}, "Dockerfile", "FROM base\nRUN write one "+text+"\n") // used again
	if _, err := w.store.Remove("x", true, true); err != nil {
		t.Fatal(err)
	}
	left := func() (out []string) {
		for _, r := range w.s.cache.List() {
			out = append(out, strings.Fields(r.About)[4])
		}
		return out
	}
	for _, tt := range []struct {
		keep Keep
		want []string
	}{
		{Keep{Reserved: 1 << 30}, []string{"one", "two", "three", "four"}},
		{Keep{Most: 175_000}, []string{"one", "four"}},
		{Keep{Most: 1, Reserved: 90_000}, []string{"one"}},
		{Keep{Free: 1}, []string{"one"}},
		{Keep{Free: 1 << 60}, nil},
	} {
		if _, _, err := w.s.Prune(t.Context(), true, nil, tt.keep); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, left()); d != "" {
			t.Errorf("%+v: %s", tt.keep, d)
		}
	}
}

func TestCacheMountsAndPrune(t *testing.T) {
	w := newWorld(t)
	img, _ := w.must(Request{Tags: []string{"kept"}}, "Dockerfile", "FROM base\nRUN --mount=type=cache,id=c,target=/c write a 12345\n")
	if m := w.exec.ran[0].Mounts; len(m) != 1 || m[0].Destination != "/c" {
		t.Fatalf("mounts %+v", m)
	}
	os.WriteFile(filepath.Join(w.exec.ran[0].Mounts[0].Source, "f"), make([]byte, 10000), 0o644)
	types := func() (out []string) {
		list, err := w.s.Cache()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			out = append(out, fmt.Sprint(r.Type, " shared ", r.Shared, " inuse ", r.InUse))
		}
		return out
	}
	if d := cmp.Diff([]string{"exec.cachemount shared false inuse false", "regular shared true inuse false"}, types()); d != "" {
		t.Error(d)
	}
	if _, _, err := w.s.Prune(t.Context(), false, filter.Args{"nope": {"x"}}, Keep{}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if ids, _, err := w.s.Prune(t.Context(), true, filter.Args{"until": {"1h"}}, Keep{}); err != nil || len(ids) != 0 {
		t.Errorf("%v, %v", ids, err)
	}
	ids, won, err := w.s.Prune(t.Context(), false, nil, Keep{})
	if err != nil || len(ids) != 1 || won < 10000 {
		t.Errorf("pruned %v, %d bytes, %v", ids, won, err)
	}
	if _, err := w.store.Remove("kept", true, true); err != nil {
		t.Fatal(err)
	}
	last := img.Layers[len(img.Layers)-1].DiffID
	if _, err := w.store.Layers.Get(last); err != nil {
		t.Errorf("the cache's hold was ignored: %v", err)
	}
	if ids, _, err = w.s.Prune(t.Context(), true, nil, Keep{}); err != nil || len(ids) != 1 {
		t.Errorf("pruned %v, %v", ids, err)
	}
	if _, err := w.store.Layers.Get(last); !errdefs.IsNotFound(err) {
		t.Errorf("layer is still there: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.root, "build/*/*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOpenSweeps(t *testing.T) {
	w := newWorld(t)
	os.MkdirAll(filepath.Join(w.root, "build/tmp/step-1/upper/x"), 0o755)
	w.s.Close()
	w.open()
	if left, _ := os.ReadDir(filepath.Join(w.root, "build/tmp")); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// Names in an image are no options of a mount: a folder "x:/etc" is not the host's /etc.
func TestHostileMountNames(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"x:/etc", "x:y:z"} {
		for _, mode := range []string{"ro", "rw"} {
			w.must(Request{}, "Dockerfile", "FROM base AS b\nRUN write "+name+"/f text\nRUN write "+name+"/g more\nFROM base\nRUN --mount=type=bind,from=b,\"source=/"+strings.ReplaceAll(name, `\`, `\\`)+"\",target=/t,"+mode+" say "+mode+"\n")
			p := w.exec.ran[len(w.exec.ran)-1]
			m := p.Mounts[len(p.Mounts)-1]
			if m.Type != "bind" || !strings.HasPrefix(m.Source, w.root) {
				t.Errorf("%s %s: mount %+v", name, mode, m)
			}
		}
	}
}

func TestRunUsesMounts(t *testing.T) {
	w := newWorld(t)
	w.must(Request{}, "Dockerfile", `FROM base AS b
RUN write d/f text
FROM base
WORKDIR /w
USER app
RUN --mount=type=bind,source=s,target=in --mount=type=bind,from=b,source=/d/f,target=/f --mount=type=tmpfs,target=/t,size=1m --network=none say x
`, "s/a", "content")
	p := w.exec.ran[len(w.exec.ran)-1]
	var got []string
	for _, m := range p.Mounts {
		got = append(got, m.Type+" "+m.Destination)
	}
	if d := cmp.Diff([]string{"bind /w/in", "bind /f", "tmpfs /t"}, got); d != "" {
		t.Error(d)
	}
	if p.Network != "none" || p.User.UID != 10 || p.User.GID != 20 || p.Cwd != "/w" {
		t.Errorf("process %+v", p)
	}
}
