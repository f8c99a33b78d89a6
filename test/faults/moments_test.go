package faults

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"tare/internal/test/harness"
	"tare/internal/test/images"
)

// operation is something that the engine is killed in.
type operation struct {
	name string
	prep func(*scene) error // what has to be there before
	do   func(*scene) error // nil also if it was done already
}

// scene is an engine with an image to run, and images to pull and load.
type scene struct {
	*harness.Engine
	ctx     context.Context
	program []string // the engine's command line
	archive []byte   // a docker save of "loaded"
	n       int      // makes builds differ
}

const victim = "victim"

// startTakes is about how long the engine takes until it answers.
const startTakes = 60 * time.Millisecond

// often are the operations that the engine is killed in all the time, seldom those that take turns.
var (
	often = []operation{
		{"pull", nil, (*scene).pull},
		{"build", nil, (*scene).build},
		{"create", nil, (*scene).create},
		{"start", (*scene).create, (*scene).start},
		{"rm", (*scene).run, (*scene).remove},
	}
	seldom = []operation{
		{"load", nil, (*scene).load},
		{"stop", (*scene).run, func(s *scene) error { return s.post("/containers/" + victim + "/stop?t=0") }},
		{"exec", (*scene).run, (*scene).exec},
		{"commit", (*scene).run, func(s *scene) error { return s.post("/commit?container=" + victim + "&repo=committed") }},
		{"network create", nil, (*scene).network},
		{"restart", (*scene).run, func(s *scene) error { return s.post("/containers/" + victim + "/restart?t=0") }},
		{"rmi", (*scene).pull, func(s *scene) error { return s.call("DELETE", "/images/"+s.Registry()+"/big?force=1", "", nil) }},
		{"volume", (*scene).volume, func(s *scene) error { return s.call("DELETE", "/volumes/"+victim, "", nil) }},
	}
)

// TestKilledAtRandomMoments kills the engine in the middle of things. The next start has to be clean, the same operation
// has to succeed then, and after it is undone nothing may be left.
func TestKilledAtRandomMoments(t *testing.T) {
	rng := dice(t)
	s := newScene(t)
	clean := footprint(s.Engine)
	took := map[string]time.Duration{}
	for i := range *moments {
		var op operation
		if k := i % (len(often) + 1); k < len(often) {
			op = often[k]
		} else {
			op = seldom[i/(len(often)+1)%len(seldom)]
		}
		if _, ok := took[op.name]; !ok { // once to its end
			s.prepare(op)
			began := time.Now()
			if err := op.do(s); err != nil {
				t.Fatalf("%s: %v\n%s", op.name, err, s.Log())
			}
			took[op.name] = time.Since(began)
			s.undo(op.name, clean)
		}
		s.moment(op, rng, took[op.name], clean)
		if t.Failed() {
			t.Fatalf("moment %d", i)
		}
	}
	t.Logf("operations take %v", took)
}

func newScene(t *testing.T) *scene {
	s := &scene{Engine: start(t), ctx: context.Background()}
	s.Tools()
	big, err := images.Generate(images.Options{Layers: 6, FilesPerLayer: 40, FileSize: 60 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Push("http://"+s.Registry(), "big", "latest"); err != nil {
		t.Fatal(err)
	}
	other, err := images.Generate(images.Options{Layers: 4, FilesPerLayer: 40, FileSize: 60 << 10, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Push("http://"+s.Registry(), "loaded", "latest"); err != nil {
		t.Fatal(err)
	}
	s.Docker("pull", "-q", s.Registry()+"/loaded")
	file := filepath.Join(s.Dir, "loaded.tar")
	s.Docker("save", "-o", file, s.Registry()+"/loaded")
	if s.archive, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	s.Docker("rmi", s.Registry()+"/loaded")
	s.Docker("run", "--rm", "tools", "true") // the supervisor is up
	s.Kill()
	relaunch(s.Engine)
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	s.program = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	return s
}

// beginStart kills an engine that has begun to start.
func (s *scene) beginStart(after time.Duration) {
	s.T.Helper()
	cmd := exec.Command(s.program[0], s.program[1:]...)
	if err := cmd.Start(); err != nil {
		s.T.Fatal(err)
	}
	time.Sleep(after) // the moment
	cmd.Process.Kill()
	cmd.Wait()
}

func (s *scene) prepare(op operation) {
	s.T.Helper()
	if op.prep == nil {
		return
	}
	if err := op.prep(s); err != nil {
		s.T.Fatalf("before %s: %v", op.name, err)
	}
}

// moment kills the engine once.
func (s *scene) moment(op operation, rng *rand.Rand, took time.Duration, clean []string) {
	s.T.Helper()
	s.prepare(op)
	after := time.Duration(rng.Float64() * 1.1 * float64(took))
	done := make(chan error, 1)
	go func() { done <- op.do(s) }()
	time.Sleep(after) // the moment
	s.Kill()
	err := <-done
	what := fmt.Sprintf("%s, killed after %v of %v (%v)", op.name, after, took, err)
	for range rng.IntN(3) {
		again := time.Duration(rng.Float64() * float64(startTakes))
		s.beginStart(again)
		what += fmt.Sprintf(", start killed after %v", again)
	}
	relaunch(s.Engine)
	s.consistent(what)
	if rng.IntN(3) > 0 { // else nobody tries again
		if err := op.do(s); err != nil {
			s.T.Errorf("%s: once more: %v", what, err)
		}
		s.consistent(what + ", once more")
	}
	s.undo(what, clean)
}

// undo removes what operations made; nothing may be left.
func (s *scene) undo(what string, clean []string) {
	s.T.Helper()
	for _, path := range []string{"/images/" + s.Registry() + "/big", "/images/built", "/images/committed", "/images/" + s.Registry() + "/loaded"} {
		if err := s.call("DELETE", path+"?force=1", "", nil); err != nil {
			s.T.Errorf("%s: cleaning up: %v", what, err)
		}
	}
	if err := purge(s.ctx, s.Engine); err != nil {
		s.T.Errorf("%s: cleaning up: %v", what, err)
	}
	if strings.HasPrefix(what, "pull") && slices.ContainsFunc(fresh(clean, footprint(s.Engine)), func(l string) bool { return strings.HasPrefix(l, "file images/ingest/sha256-") }) {
		// What a cut pull leaves is for the next one, which uses it up.
		if err := errors.Join(s.pull(), s.call("DELETE", "/images/"+s.Registry()+"/big", "", nil)); err != nil {
			s.T.Errorf("%s: pull and remove: %v", what, err)
		}
	}
	nothingNew(s.Engine, what, clean)
}

// consistent compares what the engine tells of itself with what it has.
func (s *scene) consistent(what string) {
	s.T.Helper()
	s.settled()
	list, err := s.Client.ContainerList(s.ctx, client.ContainerListOptions{All: true})
	if err != nil {
		s.T.Fatalf("%s: %v", what, err)
	}
	running := 0
	known := map[string]bool{}
	for _, c := range list.Items {
		known[c.ID] = true
		if c.State == "running" {
			running++
		}
	}
	count := map[string]int{}
	for _, line := range footprint(s.Engine) {
		f := strings.Fields(line)
		switch {
		case f[0] == "mount", f[0] == "cgroup", f[0] == "process":
			count[f[0]]++
		case strings.HasPrefix(line, "link veth"):
			count["veth"]++
		case f[0] == "nft" && (f[2] == "ports" || f[2] == "address_ports"):
			count["published"]++
		case f[0] == "file" && strings.Contains(line, "/.tmp-"):
			s.T.Errorf("%s: a temporary file: %s", what, line)
		case f[0] == "file" && strings.HasPrefix(f[1], "containers/"):
			if id := strings.Split(f[1], "/")[1]; !known[id] {
				s.T.Errorf("%s: a file of no container: %s", what, line)
			}
		}
	}
	for _, kind := range []string{"mount", "veth", "published", "process"} {
		want := running
		if kind == "mount" {
			want = 0
		}
		if count[kind] != want {
			s.T.Errorf("%s: %d × %s, want %d\n\t%s", what, count[kind], kind, want, strings.Join(slices.DeleteFunc(footprint(s.Engine), func(l string) bool { return strings.HasPrefix(l, "file") }), "\n\t"))
		}
	}
	if running == 0 && count["cgroup"] > 0 {
		s.T.Errorf("%s: cgroups are left", what)
	}
	for _, name := range []string{s.Registry() + "/big", "built", "committed", s.Registry() + "/loaded"} { // there as a whole, or not there
		r, err := s.Client.ImageInspect(s.ctx, name)
		if err != nil {
			continue
		}
		for _, layer := range r.RootFS.Layers {
			if _, err := os.Stat(filepath.Join(s.DataRoot, "layers", strings.TrimPrefix(layer, "sha256:"), "fs")); err != nil {
				s.T.Errorf("%s: image %s is half: %v", what, name, err)
			}
		}
		if a, err := ask(s.Engine, "GET", "/images/"+name+"/get", "", nil); err != nil || a.status != 200 || len(a.body) < 10240 {
			s.T.Errorf("%s: image %s cannot be saved: %d %v", what, name, a.status, err)
		}
	}
	s.usage(what)
}

// usage compares `system df` with the disk.
func (s *scene) usage(what string) {
	s.T.Helper()
	u, err := s.Client.DiskUsage(s.ctx, client.DiskUsageOptions{Images: true, Containers: true, BuildCache: true, Volumes: true, Verbose: true})
	if err != nil {
		s.T.Errorf("%s: system df: %v", what, err)
		return
	}
	dirs := func(root string) int {
		n := 0
		entries, _ := os.ReadDir(filepath.Join(s.DataRoot, root))
		for _, e := range entries {
			if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				n++
			}
		}
		return n
	}
	if n := dirs("containers"); n != len(u.Containers.Items) {
		s.T.Errorf("%s: %d folders of containers, system df knows %d", what, n, len(u.Containers.Items))
	}
	if n := dirs("volumes"); n != len(u.Volumes.Items) {
		s.T.Errorf("%s: %d folders of volumes, system df knows %d", what, n, len(u.Volumes.Items))
	}
}

// settled waits until what goes on in the background after an answer is done.
func (s *scene) settled() {
	s.T.Helper()
	last := footprint(s.Engine)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		now := footprint(s.Engine)
		if slices.Equal(last, now) {
			return
		}
		last = now
	}
}

// call sends a request whose end is success, or to find things as they should be.
func (s *scene) call(method, path, contentType string, body io.Reader) error {
	a, err := ask(s.Engine, method, path, contentType, body)
	if err != nil {
		return err
	}
	switch {
	case method == "DELETE" && a.status == 404, a.status == 304:
		return nil
	case a.status >= 400:
		return fmt.Errorf("%s %s: %d %s", method, path, a.status, a.body)
	case strings.Contains(a.body, `"error"`):
		return errors.New(a.body)
	}
	return nil
}

func (s *scene) post(path string) error { return s.call("POST", path, "application/json", nil) }

func (s *scene) pull() error {
	return s.post("/images/create?fromImage=" + url.QueryEscape(s.Registry()+"/big") + "&tag=latest")
}

func (s *scene) load() error {
	return s.call("POST", "/images/load", "application/x-tar", bytes.NewReader(s.archive))
}

func (s *scene) build() error {
	s.n++
	dockerfile := fmt.Sprintf("FROM tools\nCOPY file /etc/file\nENV N=%d\nRUN write /etc/one $N\nRUN write /etc/two && sleep 0.05\nRUN rm /etc/one && mkdir /srv\n", s.n)
	return s.call("POST", "/build?t=built&rm=1", "application/x-tar", contextTar(map[string]string{"Dockerfile": dockerfile, "file": strings.Repeat("content ", 1<<15)}))
}

func (s *scene) create() error {
	body := `{"Image":"tools","Cmd":["sleep","1000"],"ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1"}]}}}`
	err := s.call("POST", "/containers/create?name="+victim, "application/json", strings.NewReader(body))
	if err != nil && strings.Contains(err.Error(), "is already in use by container") {
		return nil
	}
	return err
}

func (s *scene) start() error { return s.post("/containers/" + victim + "/start") }

func (s *scene) run() error { return errors.Join(s.create(), s.start()) }

func (s *scene) remove() error {
	return s.call("DELETE", "/containers/"+victim+"?force=1&v=1", "", nil)
}

func (s *scene) exec() error {
	x, err := s.Client.ExecCreate(s.ctx, victim, client.ExecCreateOptions{Cmd: []string{"true"}})
	if err != nil {
		return err
	}
	return s.call("POST", "/exec/"+x.ID+"/start", "application/json", strings.NewReader(`{"Detach":true}`))
}

func (s *scene) network() error {
	err := s.call("POST", "/networks/create", "application/json", strings.NewReader(`{"Name":"`+victim+`","Driver":"bridge"}`))
	if err != nil && strings.Contains(err.Error(), "already exists") {
		return nil
	}
	return err
}

func (s *scene) volume() error {
	return s.call("POST", "/volumes/create", "application/json", strings.NewReader(`{"Name":"`+victim+`"}`))
}

// contextTar is a build context of files with given contents.
func contextTar(files map[string]string) *bytes.Buffer {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, text := range files {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))})
		io.WriteString(w, text)
	}
	w.Close()
	return &buf
}
