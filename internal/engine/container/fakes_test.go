package container

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/engine/volume"
	"tare/internal/image"
	tarenetwork "tare/internal/network"
	"tare/internal/runtime"
)

// fakeRuntime is a supervisor in memory. It lives longer than the services that use it, as the real one.
type fakeRuntime struct {
	mu       sync.Mutex
	states   map[string]*runtime.State
	exits    chan runtime.Exit
	seq      uint64
	startErr error           // what Start returns
	onStart  func(id string) // called within Start
	signal   func(id string, sig int) error
	calls    []string
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{states: map[string]*runtime.State{}, exits: make(chan runtime.Exit, 100)}
}

func (f *fakeRuntime) note(s string) { f.calls = append(f.calls, s) }

func (f *fakeRuntime) Create(ctx context.Context, req runtime.Create) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("create")
	f.states[req.ID] = &runtime.State{ID: req.ID, Status: runtime.Created, Pid: os.Getpid(), Bundle: req.Bundle}
	return os.Getpid(), nil
}

func (f *fakeRuntime) Start(ctx context.Context, id string) error {
	f.mu.Lock()
	f.note("start")
	err, hook := f.startErr, f.onStart
	if err == nil {
		f.states[id].Status, f.states[id].StartedAt = runtime.Running, time.Now()
	}
	f.mu.Unlock()
	if hook != nil {
		hook(id)
	}
	return err
}

// exit ends a container's process.
func (f *fakeRuntime) exit(id string, code int) {
	f.mu.Lock()
	f.seq++
	x := runtime.Exit{Ref: runtime.Ref{Container: id}, Code: code, At: time.Now(), Seq: f.seq}
	f.states[id].Status, f.states[id].Exit, f.states[id].Pid = runtime.Stopped, &x, 0
	c := f.exits
	f.mu.Unlock()
	if c != nil {
		c <- x
	}
}

func (f *fakeRuntime) Attach(ctx context.Context, req runtime.Attach) (*net.UnixConn, error) {
	a, b, err := socketPair()
	if err == nil {
		b.Write([]byte("hello"))
		b.Close()
	}
	return a, err
}

func (f *fakeRuntime) Signal(ctx context.Context, ref runtime.Ref, sig int) error {
	f.mu.Lock()
	hook := f.signal
	f.mu.Unlock()
	if hook != nil {
		return hook(ref.Container, sig)
	}
	go f.exit(ref.Container, 128+sig)
	return nil
}

func (f *fakeRuntime) Resize(ctx context.Context, ref runtime.Ref, w, h uint16) error { return nil }
func (f *fakeRuntime) Pause(ctx context.Context, id string) error                     { return nil }
func (f *fakeRuntime) Resume(ctx context.Context, id string) error                    { return nil }

func (f *fakeRuntime) Delete(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("delete")
	delete(f.states, id)
	return nil
}

func (f *fakeRuntime) List(ctx context.Context) ([]runtime.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []runtime.State
	for _, s := range f.states {
		out = append(out, *s)
	}
	return out, nil
}

func (f *fakeRuntime) Exits() <-chan runtime.Exit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.exits
}

// cut simulates the end of the engine's connection; connect a new one.
func (f *fakeRuntime) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.exits)
	f.exits = nil
}

func (f *fakeRuntime) connect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exits = make(chan runtime.Exit, 100)
	for _, s := range f.states {
		if s.Exit != nil {
			f.exits <- *s.Exit
		}
	}
}

type fakeImages struct {
	mu    sync.Mutex
	img   *image.Image
	lower string
	holds map[string]bool
}

func (f *fakeImages) Get(ref string) (*image.Image, error) {
	if ref == "app" || ref == "app:latest" || ref == f.img.ID.String() {
		return f.img, nil
	}
	return nil, fault.NotFound("No such image: %s", ref)
}
func (f *fakeImages) Lower(*image.Image) ([]string, error) { return []string{f.lower}, nil }
func (f *fakeImages) Hold(h string, _ ...digest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds[h] = true
}
func (f *fakeImages) Release(h string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.holds, h)
}

type fakeNetworks struct {
	mu   sync.Mutex
	in   map[string]*tarenetwork.Joined // sandboxes
	live map[string]int
}

func (f *fakeNetworks) Get(ref string) (network.Inspect, error) {
	if slices.Contains([]string{"bridge", "mynet"}, ref) {
		return network.Inspect{Network: network.Network{Name: ref, ID: "id-" + ref}}, nil
	}
	return network.Inspect{}, fault.NotFound("network %s not found", ref)
}
func (f *fakeNetworks) Prepare(ctx context.Context, j tarenetwork.Join) (*tarenetwork.Joined, error) {
	return f.Join(ctx, j)
}
func (f *fakeNetworks) Join(ctx context.Context, j tarenetwork.Join) (*tarenetwork.Joined, error) {
	f.mu.Lock()
	out := &tarenetwork.Joined{Endpoints: map[string]*network.EndpointSettings{}, Ports: j.Ports, Hosts: []byte("127.0.0.1\tlocalhost\n"), ResolvConf: []byte("nameserver 10.0.0.1\n")}
	for name := range j.Endpoints {
		out.Endpoints[name] = &network.EndpointSettings{NetworkID: "id-" + name, IPAddress: netip.MustParseAddr("172.17.0.2")}
	}
	f.in[j.Container] = out
	f.mu.Unlock()
	return f.Current(j.Container), nil
}
func (f *fakeNetworks) Leave(ctx context.Context, c string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.in, c)
	return nil
}
func (f *fakeNetworks) Connect(ctx context.Context, j tarenetwork.Join, ref string) (*network.EndpointSettings, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := &network.EndpointSettings{NetworkID: "id-" + ref}
	f.in[j.Container].Endpoints[ref] = got
	return got, nil
}
func (f *fakeNetworks) Disconnect(ctx context.Context, c, ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.in[c].Endpoints, ref)
	return nil
}
func (f *fakeNetworks) Current(c string) *tarenetwork.Joined {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.in[c]
	if now == nil {
		return nil
	}
	out := *now
	out.Endpoints = maps.Clone(now.Endpoints)
	return &out
}
func (f *fakeNetworks) Rename(c, name string) {}

// world is all that a service runs in, over restarts of it.
type world struct {
	t        testing.TB
	data     string
	runtime  *fakeRuntime
	images   *fakeImages
	networks *fakeNetworks
	bus      *event.Bus
	events   *event.Subscription
	s        *Service
}

func newWorld(t testing.TB) *world {
	data := t.TempDir()
	lower := filepath.Join(data, "lower")
	for _, d := range []string{"/etc", "/data", "/srv/app"} {
		if err := os.MkdirAll(lower+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(lower+"/data/seed", []byte("from the image"), 0o640)
	os.WriteFile(lower+"/etc/passwd", []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"), 0o644)
	img := &image.Image{ID: digest.FromString("app")}
	img.Config.OS, img.Config.Architecture = "linux", "amd64"
	img.Config.Config = dockerspec.DockerOCIImageConfig{}
	img.Config.Config.Cmd, img.Config.Config.Env = []string{"serve"}, []string{"FROM=image", "PATH=/bin"}
	img.Config.Config.Volumes = map[string]struct{}{"/data": {}}
	w := &world{t: t, data: data, runtime: newFakeRuntime(), bus: &event.Bus{}, networks: &fakeNetworks{in: map[string]*tarenetwork.Joined{}},
		images: &fakeImages{img: img, lower: lower, holds: map[string]bool{}}}
	w.events = w.bus.Subscribe()
	w.open()
	t.Cleanup(func() { w.close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	volumes, err := volume.Open(filepath.Join(w.data, "volumes"), w.bus)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s, err = Open(context.Background(), Config{
		DataRoot: w.data, Instance: "test", Images: w.images, Runtime: w.runtime, Volumes: volumes, Bus: w.bus, InitProgram: "/usr/bin/tare-run",
		OpenNetworks: func(_ context.Context, live map[string]int) (Networks, error) {
			w.networks.live = live
			return w.networks, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// close ends the service as a kill would: nothing is told to the containers.
func (w *world) close() {
	if w.s != nil {
		w.runtime.cut()
		w.s.Close()
		w.s = nil
	}
}

func (w *world) restart() {
	w.close()
	w.runtime.connect()
	w.open()
}

func (w *world) create(name string, change func(*CreateRequest)) string {
	w.t.Helper()
	req := CreateRequest{Name: name, Config: &container.Config{Image: "app"}, HostConfig: &container.HostConfig{}}
	if change != nil {
		change(&req)
	}
	res, err := w.s.Create(context.Background(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.ID
}

func (w *world) start(ref string) {
	w.t.Helper()
	if err := w.s.Start(context.Background(), ref); err != nil {
		w.t.Fatal(err)
	}
}

// event waits for one action of containers.
func (w *world) event(action string) event.Event {
	w.t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case e := <-w.events.C:
			if e.Type == "container" && e.Action == action {
				return e
			}
		case <-limit:
			w.t.Fatalf("no event %s", action)
		}
	}
}

func (w *world) wait(ref string, c container.WaitCondition) container.WaitResponse {
	w.t.Helper()
	ch, err := w.s.Wait(context.Background(), ref, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return receive(w.t, ch)
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func (w *world) status(ref string) *container.State {
	w.t.Helper()
	i, err := w.s.Inspect(context.Background(), ref, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return i.State
}

// settle waits for what follows an exit.
func (w *world) settle(ref string) {
	w.t.Helper()
	e, err := w.s.index.find(ref)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := e.settle(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}
