package engineapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	buildtypes "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
	"tare/internal/base/progress"
	"tare/internal/build"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/image"
	"tare/internal/image/layer"
	"tare/internal/image/transfer"
)

// fakeContainers knows one container, "c1". It records the calls that change something.
type fakeContainers struct {
	mu      sync.Mutex // guards calls
	calls   []string
	created enginecontainer.CreateRequest
	exit    chan container.WaitResponse
	process net.Conn // the other end of the attached stream
	log     string
	tty     bool
	keys    []byte
	noInput bool
}

const fakeID = "4f2c0e9d1b7a4f2c0e9d1b7a4f2c0e9d1b7a4f2c0e9d1b7a4f2c0e9d1b7a4f2c"

func (f *fakeContainers) call(parts ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.Join(parts, " "))
	return nil
}

func (f *fakeContainers) known(ref string) error {
	if ref != "c1" {
		return fault.NotFound("No such container: %s", ref)
	}
	return nil
}

func (f *fakeContainers) Create(_ context.Context, req enginecontainer.CreateRequest) (container.CreateResponse, error) {
	f.created = req
	return container.CreateResponse{ID: fakeID}, nil
}

func (f *fakeContainers) Start(_ context.Context, ref string) error {
	if ref == "running" {
		return fault.NotModified("container is already started")
	}
	return f.known(ref)
}

func (f *fakeContainers) Stop(_ context.Context, ref, signal string, timeout *int) error {
	t := "default"
	if timeout != nil {
		t = time.Duration(*timeout * int(time.Second)).String()
	}
	f.call("stop", ref, signal, t)
	return f.known(ref)
}
func (f *fakeContainers) Restart(_ context.Context, ref, _ string, _ *int) error { return f.known(ref) }
func (f *fakeContainers) Kill(_ context.Context, ref, signal string) error {
	f.call("kill", ref, signal)
	if signal == "NONSENSE" {
		return fault.Invalid("invalid signal: %s", signal)
	}
	return f.known(ref)
}
func (f *fakeContainers) Pause(_ context.Context, ref string) error {
	return fault.Conflict("container %s is not running", ref)
}
func (f *fakeContainers) Unpause(_ context.Context, ref string) error { return f.known(ref) }
func (f *fakeContainers) Rename(_ context.Context, ref, name string) error {
	f.call("rename", ref, name)
	return f.known(ref)
}
func (f *fakeContainers) Update(_ context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	return container.UpdateResponse{}, f.known(ref)
}
func (f *fakeContainers) Remove(_ context.Context, ref string, o enginecontainer.RemoveOptions) error {
	if o.Force && o.Volumes {
		f.call("remove all", ref)
	}
	return f.known(ref)
}
func (f *fakeContainers) Prune(context.Context, filter.Args) ([]string, uint64, error) {
	return nil, 12, nil
}
func (f *fakeContainers) List(_ context.Context, o enginecontainer.ListOptions) ([]container.Summary, error) {
	if len(o.Filters) > 0 {
		if err := o.Filters.Only("name"); err != nil {
			return nil, err
		}
	}
	return []container.Summary{{ID: fakeID, Names: []string{"/c1"}, ImageID: string(fakeImage.ID), State: container.StateRunning, SizeRw: 7}}, nil
}
func (f *fakeContainers) Inspect(_ context.Context, ref string, _ bool) (container.InspectResponse, error) {
	return container.InspectResponse{
		ID: fakeID, Config: &container.Config{Image: "img"},
		NetworkSettings: &container.NetworkSettings{SandboxID: "sb", Networks: map[string]*network.EndpointSettings{
			"bridge": {IPPrefixLen: 16, EndpointID: "ep"},
			"net1":   {Aliases: []string{"a"}},
		}},
	}, f.known(ref)
}
func (f *fakeContainers) Top(_ context.Context, ref string, args []string) (container.TopResponse, error) {
	return container.TopResponse{Titles: args, Processes: [][]string{}}, f.known(ref)
}
func (f *fakeContainers) Wait(_ context.Context, ref string, c container.WaitCondition) (<-chan container.WaitResponse, error) {
	return f.exit, f.known(ref)
}
func (f *fakeContainers) Attach(_ context.Context, ref string, o enginecontainer.AttachOptions) (*enginecontainer.Stream, error) {
	if err := f.known(ref); err != nil {
		return nil, err
	}
	ours, theirs := socketpair()
	f.process = theirs
	s := &enginecontainer.Stream{Conn: ours, Terminal: f.tty, DetachKeys: f.keys}
	if o.Logs {
		s.Past = strings.NewReader("past ")
	}
	return s, nil
}
func (f *fakeContainers) Resize(_ context.Context, ref string, width, height uint16) error {
	if width == 80 && height == 24 {
		f.call("resize", ref)
	}
	return f.known(ref)
}
func (f *fakeContainers) Stats(_ context.Context, ref string) (container.StatsResponse, error) {
	f.call("stats")
	f.mu.Lock()
	defer f.mu.Unlock()
	var s container.StatsResponse
	s.ID, s.CPUStats.SystemUsage = fakeID, uint64(len(f.calls))
	return s, f.known(ref)
}
func (f *fakeContainers) Open(_ context.Context, ref string) (*enginecontainer.Files, error) {
	return &enginecontainer.Files{ID: fakeID, LogPath: f.log, Terminal: f.tty, Running: func() bool { return false }, Release: func() { f.call("released") }}, f.known(ref)
}
func (f *fakeContainers) Connect(_ context.Context, network, ref string, _ *network.EndpointSettings) error {
	f.call("connect", network, ref)
	return nil
}
func (f *fakeContainers) Disconnect(_ context.Context, network, ref string, force bool) error {
	return fault.Forbidden("container %s is not connected to network %s", ref, network)
}

// socketpair returns the two ends of a stream.
func socketpair() (*net.UnixConn, *net.UnixConn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		if err != nil {
			panic(err)
		}
		f.Close()
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

var fakeImage = &image.Image{
	ID:      digest.FromString("config"),
	Names:   []string{"nginx:1.25"},
	Digests: []string{"nginx@" + digest.FromString("manifest").String()},
	Size:    100, Created: time.Unix(1000, 0).UTC(),
	Layers: []layer.Layer{{DiffID: digest.FromString("l1"), Size: 60}, {DiffID: digest.FromString("l2"), Size: 40}},
}

type fakeImages struct{ calls []string }

func (f *fakeImages) Get(ref string) (*image.Image, error) {
	if strings.HasPrefix(ref, "nginx") || ref == "localhost:5000/a/b:c" {
		return fakeImage, nil
	}
	return nil, fault.NotFound("No such image: %s", ref)
}
func (f *fakeImages) List() []*image.Image {
	dangling := &image.Image{ID: digest.FromString("other"), Size: 60, Created: time.Unix(2000, 0), Layers: fakeImage.Layers[:1]}
	return []*image.Image{dangling, fakeImage}
}
func (f *fakeImages) Disk() (image.Disk, error) {
	return image.Disk{Layers: map[digest.Digest]int64{fakeImage.Layers[0].DiffID: 60, fakeImage.Layers[1].DiffID: 40}, Total: 100}, nil
}
func (f *fakeImages) Lower(*image.Image) ([]string, error) { return []string{"/l2", "/l1"}, nil }
func (f *fakeImages) Tag(ref string, name reference.NamedTagged) error {
	f.calls = append(f.calls, "tag "+ref+" "+name.String())
	return nil
}
func (f *fakeImages) Remove(ref string, force, prune bool) ([]image.Removed, error) {
	if ref == "held" {
		return nil, fault.Conflict("conflict: unable to delete held (must be forced)")
	}
	return []image.Removed{{Untagged: ref}, {Deleted: "sha256:x"}}, nil
}
func (f *fakeImages) Prune(filter.Args) ([]image.Removed, int64, error) { return nil, 5, nil }

type fakeTransfers struct {
	auth     *registry.AuthConfig
	ref      string
	failMid  bool
	failSoon bool
	blocked  chan struct{} // closed when a pull saw its context end
}

func (f *fakeTransfers) Pull(ctx context.Context, req transfer.PullRequest, p progress.Sink) (*image.Image, error) {
	f.auth, f.ref = req.Auth, req.Ref.String()
	if f.failSoon {
		return nil, fault.NotFound("manifest for x not found: manifest unknown")
	}
	p.Status("latest", "Pulling from x")
	if f.blocked != nil {
		<-ctx.Done()
		close(f.blocked)
		return nil, ctx.Err()
	}
	p.Report(progress.Update{ID: "abc", Action: "Downloading", Current: 5, Total: 10})
	if f.failMid {
		return nil, fault.Unavailable("the line is cut")
	}
	return fakeImage, nil
}
func (f *fakeTransfers) Push(_ context.Context, req transfer.PushRequest, p progress.Sink) error {
	f.ref = req.Ref.String()
	p.Report(progress.Update{Aux: map[string]any{"Tag": "v1", "Size": 3}})
	return nil
}

type fakeArchives struct{ loaded string }

func (f *fakeArchives) Save(_ context.Context, refs []string, w io.Writer) error {
	io.WriteString(w, "tar of "+strings.Join(refs, "+"))
	return nil
}
func (f *fakeArchives) Load(_ context.Context, r io.Reader, p progress.Sink) ([]string, error) {
	p.Status("", "loading")
	data, err := io.ReadAll(r)
	f.loaded = string(data)
	return []string{"nginx:1.25"}, err
}
func (f *fakeArchives) Import(_ context.Context, r io.Reader, config *image.Config, name reference.NamedTagged, p progress.Sink) (*image.Image, error) {
	io.Copy(io.Discard, r)
	return fakeImage, nil
}

type fakeBuilds struct{ req build.Request }

func (f *fakeBuilds) Build(ctx context.Context, req build.Request, out build.Output) (digest.Digest, error) {
	f.req = req
	io.Copy(io.Discard, req.Context)
	out.Stream("Step 1/1 : FROM scratch\n")
	if req.Target == "broken" {
		return "", fault.Invalid("dockerfile parse error line 1: unknown instruction: FORM")
	}
	return fakeImage.ID, nil
}
func (f *fakeBuilds) Cache() ([]buildtypes.CacheRecord, error) {
	return []buildtypes.CacheRecord{{ID: "k", Size: 9}}, nil
}
func (f *fakeBuilds) Prune(context.Context, bool, filter.Args, build.Keep) ([]string, int64, error) {
	return []string{"k"}, 9, nil
}

type fakeNetworks struct{ inUse map[string]bool }

func (f *fakeNetworks) Create(_ context.Context, name string, req network.CreateRequest) (string, string, error) {
	if name == "taken" {
		return "", "", fault.Conflict("network with name taken already exists")
	}
	return "nid", "", nil
}
func (f *fakeNetworks) Get(ref string) (network.Inspect, error) {
	if ref != "net1" {
		return network.Inspect{}, fault.NotFound("network %s not found", ref)
	}
	return network.Inspect{Network: network.Network{Name: "net1", ID: "nid", Scope: "local"}}, nil
}
func (f *fakeNetworks) List(filter.Args) ([]network.Inspect, error) {
	n, _ := f.Get("net1")
	return []network.Inspect{n}, nil
}
func (f *fakeNetworks) Remove(context.Context, string) error { return nil }
func (f *fakeNetworks) Prune(_ context.Context, _ filter.Args, inUse map[string]bool) ([]string, error) {
	f.inUse = inUse
	return []string{"net1"}, nil
}

type fakeVolumes struct{}

func (fakeVolumes) Create(_ context.Context, req volume.CreateRequest) (*volume.Volume, error) {
	return &volume.Volume{Name: req.Name, Driver: "local", Scope: "local"}, nil
}
func (fakeVolumes) Get(name string) (*volume.Volume, error) {
	return nil, fault.NotFound("get %s: no such volume", name)
}
func (fakeVolumes) List(filter.Args) ([]*volume.Volume, error) {
	return []*volume.Volume{{Name: "v", Mountpoint: "/nonexistent"}}, nil
}
func (fakeVolumes) Usage() ([]*volume.Volume, error) {
	return []*volume.Volume{{Name: "data", Driver: "local", UsageData: &volume.UsageData{Size: 5}}}, nil
}
func (fakeVolumes) Remove(context.Context, string, bool) error                   { return nil }
func (fakeVolumes) Prune(context.Context, filter.Args) ([]string, uint64, error) { return nil, 0, nil }

type fakeRegistry struct{}

func (fakeRegistry) Login(_ context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	if a.Password != "secret" {
		return registry.AuthResponse{}, fault.Unauthorized("unauthorized: incorrect username or password")
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}
func (fakeRegistry) Inspect(_ context.Context, ref reference.Named, _ *registry.AuthConfig) (registry.DistributionInspect, error) {
	return registry.DistributionInspect{}, nil
}

// door is a server of fakes on a unix socket.
type door struct {
	t          *testing.T
	containers *fakeContainers
	execs      *fakeExecs
	images     *fakeImages
	transfers  *fakeTransfers
	archives   *fakeArchives
	builds     *fakeBuilds
	networks   *fakeNetworks
	bus        *event.Bus
	socket     string
	client     *http.Client
}

func newDoor(t *testing.T) *door {
	d := &door{
		t: t, containers: &fakeContainers{exit: make(chan container.WaitResponse, 1)}, execs: &fakeExecs{}, images: &fakeImages{},
		transfers: &fakeTransfers{}, archives: &fakeArchives{}, builds: &fakeBuilds{}, networks: &fakeNetworks{}, bus: &event.Bus{},
	}
	h := New(Services{
		Containers: d.containers, Execs: d.execs, Images: d.images, Archives: d.archives, Transfers: d.transfers, Registry: fakeRegistry{},
		Networks: d.networks, Volumes: fakeVolumes{}, Builds: d.builds, Events: d.bus,
		Info:    func() system.Info { return system.Info{ID: "engine"} },
		Version: func() system.VersionResponse { return system.VersionResponse{Version: "1.2.3"} },
		Debugf:  t.Logf,
	})
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d.socket = dir + "/s"
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(srv.Close)
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", d.socket) }}
	t.Cleanup(tr.CloseIdleConnections)
	d.client = &http.Client{Transport: tr}
	return d
}

// do sends a request and reads the whole answer. body is nil, a string, or a value to send as JSON.
func (d *door) do(method, path string, body any, headers ...string) (*http.Response, string) {
	d.t.Helper()
	var r io.Reader
	ct := ""
	switch b := body.(type) {
	case nil:
	case string:
		r, ct = strings.NewReader(b), "application/json"
	default:
		data, err := json.Marshal(b)
		if err != nil {
			d.t.Fatal(err)
		}
		r, ct = bytes.NewReader(data), "application/json"
	}
	req, err := http.NewRequest(method, "http://tare"+path, r)
	if err != nil {
		d.t.Fatal(err)
	}
	if ct != "" {
		req.Header.Set("Content-Type", ct)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, string(data)
}

// want checks status and that the answer contains all of parts.
func (d *door) want(method, path string, body any, status int, parts ...string) string {
	d.t.Helper()
	res, got := d.do(method, path, body)
	if res.StatusCode != status {
		d.t.Errorf("%s %s: status %d, want %d: %s", method, path, res.StatusCode, status, got)
	}
	for _, p := range parts {
		if !strings.Contains(got, p) {
			d.t.Errorf("%s %s: %q is missing in %s", method, path, p, got)
		}
	}
	return got
}
