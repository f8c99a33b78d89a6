package engineapi

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
)

// fakeExecs has the exec "e1" of `cat` and "missing", whose program isn't there.
type fakeExecs struct{ process net.Conn }

func (f *fakeExecs) Create(_ context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	return "e1", nil
}
func (f *fakeExecs) Start(_ context.Context, id string, req container.ExecStartRequest) (*enginecontainer.Stream, error) {
	switch {
	case id == "missing":
		return nil, fault.Invalid(`OCI runtime exec failed: exec: "nope": executable file not found in $PATH`)
	case id == "started":
		return nil, fault.Conflict("exec started has already run")
	case req.Detach:
		return nil, nil
	}
	ours, theirs := socketpair()
	f.process = theirs
	return &enginecontainer.Stream{Conn: ours}, nil
}
func (f *fakeExecs) Inspect(_ context.Context, id string) (container.ExecInspectResponse, error) {
	if id == "gone" {
		return container.ExecInspectResponse{}, fault.NotFound("No such exec instance: gone")
	}
	code := new(int)
	if id == "missing" {
		*code = 127
	}
	return container.ExecInspectResponse{ID: id, ExitCode: code, OpenStdin: true, ProcessConfig: &container.ExecProcessConfig{}}, nil
}
func (f *fakeExecs) Resize(context.Context, string, uint16, uint16) error { return nil }
func (f *fakeExecs) Wait(context.Context, string) (int, error)            { return 0, nil }

func TestVersions(t *testing.T) {
	d := newDoor(t)
	d.want("GET", "/_ping", nil, 200, "OK")
	d.want("GET", "/v1.24/_ping", nil, 200, "OK")
	d.want("GET", "/v1.23/_ping", nil, 400, "client version 1.23 is too old. Minimum supported API version is 1.24")
	d.want("GET", "/v1.999/_ping", nil, 400, "client version 1.999 is too new. Maximum supported API version is "+MaxVersion)
	d.want("GET", "/v1.50/nothing", nil, 404, `{"message":"page not found"}`)
	d.want("GET", "/vx/_ping", nil, 404, "page not found")
	d.want("POST", "/_ping", nil, 404, "page not found")
	res, body := d.do("HEAD", "/_ping", nil)
	if body != "" || res.StatusCode != 200 {
		t.Errorf("HEAD /_ping: %d %q", res.StatusCode, body)
	}
	for k, v := range map[string]string{"Api-Version": MaxVersion, "Ostype": "linux", "Docker-Experimental": "false", "Builder-Version": "1", "Swarm": "inactive", "Server": "Tare/1.2.3 (linux)"} {
		if res.Header.Get(k) != v {
			t.Errorf("header %s is %q, want %q", k, res.Header.Get(k), v)
		}
	}
}

func TestRoutesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, rt := range routes(Services{}) {
		key := rt.method + " " + rt.pattern
		if seen[key] {
			t.Errorf("%s stands twice in the table", key)
		}
		seen[key] = true
	}
}

func TestContainerVerbs(t *testing.T) {
	d := newDoor(t)
	d.want("POST", "/containers/c1/start", nil, 204)
	d.want("POST", "/containers/running/start", nil, 304)
	d.want("POST", "/containers/x/start", nil, 404, `{"message":"No such container: x"}`)
	d.want("POST", "/v1.50/containers/c1/stop?t=3&signal=SIGINT", nil, 204)
	d.want("POST", "/containers/c1/stop", nil, 204)
	d.want("POST", "/containers/c1/stop?t=soon", nil, 400, "invalid timeout")
	d.want("POST", "/containers/c1/kill?signal=NONSENSE", nil, 400, "invalid signal: NONSENSE")
	d.want("POST", "/containers/c1/pause", nil, 409)
	d.want("POST", "/containers/c1/rename?name=new", nil, 204)
	d.want("POST", "/containers/c1/update", "{}", 200, `{"Warnings":[]}`)
	d.want("POST", "/containers/c1/resize?h=24&w=80", nil, 200)
	d.want("POST", "/containers/c1/resize?h=x&w=80", nil, 400, "invalid resize height")
	d.want("DELETE", "/containers/c1?force=1&v=1", nil, 204)
	d.want("POST", "/containers/prune", nil, 200, `"ContainersDeleted":[]`, `"SpaceReclaimed":12`)
	d.want("GET", "/containers/json?filters={bad", nil, 400, "invalid filter")
	d.want("GET", `/containers/json?filters={"nonsense":["x"]}`, nil, 400, "invalid filter 'nonsense'")
	d.want("GET", "/containers/c1/top?ps_args=-o+pid", nil, 200, `"Titles":["-o","pid"]`)
	d.want("GET", "/containers/c1/attach/ws", nil, 400)
	want := []string{"stop c1 SIGINT 3s", "stop c1  default", "kill c1 NONSENSE", "rename c1 new", "resize c1", "remove all c1"}
	if diff := cmp.Diff(want, d.containers.calls); diff != "" {
		t.Error(diff)
	}
}

func TestCreate(t *testing.T) {
	d := newDoor(t)
	d.want("POST", "/containers/create?name=n&platform=linux/arm64/v8", map[string]any{"Image": "img", "HostConfig": map[string]any{"NetworkMode": "net1"}}, 201, `"Id":"`+fakeID, `"Warnings":[]`)
	c := d.containers.created
	if c.Name != "n" || c.Config.Image != "img" || c.HostConfig.NetworkMode != "net1" || c.Platform.Architecture != "arm64" || c.Platform.Variant != "" {
		t.Errorf("created: %+v", c)
	}
	d.want("POST", "/containers/create", nil, 400, "invalid JSON")
	d.want("POST", "/containers/create", "{", 400, "invalid JSON")
	d.want("POST", "/containers/create", `{"Image":1}`, 400, "invalid JSON: ")
	d.want("POST", "/containers/create", `{"Image":"a"} {}`, 400, "unexpected content after JSON")
	d.want("POST", "/containers/create", `{}`, 400, "config cannot be empty")
	d.want("POST", "/containers/create", `{"Image":"`+strings.Repeat("x", maxBody)+`"}`, 413)
	res, body := d.do("POST", "/containers/create", "{}", "Content-Type", "application/xml")
	if res.StatusCode != 400 || !strings.Contains(body, "unsupported Content-Type header (application/xml)") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	// A MAC address of the whole container becomes its network's.
	d.want("POST", "/v1.43/containers/create", `{"Image":"img","MacAddress":"02:42:ac:11:00:09","HostConfig":{"NetworkMode":"net1","Mounts":[{"Type":"bind","BindOptions":null}]}}`, 201)
	c = d.containers.created
	if mac := c.Networking.EndpointsConfig["net1"].MacAddress.String(); mac != "02:42:ac:11:00:09" || !c.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive {
		t.Errorf("created by an old client: %q %+v", mac, c.HostConfig.Mounts[0])
	}
	// What this container is asked for is left as it is.
	d.want("POST", "/v1.39/containers/create", `{"Image":"img"}`, 201)
	if d.containers.created.HostConfig.IpcMode != "shareable" {
		t.Errorf("ipc mode %q", d.containers.created.HostConfig.IpcMode)
	}
}

func TestOldInspect(t *testing.T) {
	d := newDoor(t)
	d.want("GET", "/v1.52/containers/c1/json", nil, 200, `"NetworkSettings":{"SandboxID":"sb"`)
	got := d.want("GET", "/v1.51/containers/c1/json", nil, 200, `"NetworkSettings":{"Bridge":"","SandboxID":"sb"`, `"EndpointID":"ep"`, `"IPPrefixLen":16`, `"SecondaryIPAddresses":null`, `"OnBuild":null`)
	if !strings.HasPrefix(got, `{"Id":"`) {
		t.Errorf("the order of members changed: %.60s", got)
	}
	d.want("GET", "/v1.44/containers/c1/json", nil, 200, `"Aliases":["a","`+fakeID[:12]+`"]`)
	d.want("GET", "/v1.50/containers/x/json", nil, 404, "No such container: x")
}

func TestWaitAnswersAtOnce(t *testing.T) {
	d := newDoor(t)
	d.want("POST", "/containers/c1/wait?condition=never", nil, 400, `invalid condition: \"never\"`)
	res, err := d.client.Post("http://tare/containers/c1/wait", "", nil)
	if err != nil {
		t.Fatal(err) // returns only because the headers were flushed: nothing exited yet
	}
	defer res.Body.Close()
	d.containers.exit <- container.WaitResponse{StatusCode: 3}
	data, _ := io.ReadAll(res.Body)
	if string(data) != "{\"StatusCode\":3}\n" {
		t.Errorf("got %q", data)
	}
}

// hijacked sends a request that takes the connection over, and returns it after the head of the answer.
func (d *door) hijacked(path, body string, upgrade bool) (*net.UnixConn, *bufio.Reader, *http.Response) {
	d.t.Helper()
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	req, _ := http.NewRequest("POST", "http://tare"+path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if upgrade {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "tcp")
	}
	if err := req.Write(c); err != nil {
		d.t.Fatal(err)
	}
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, req)
	if err != nil {
		d.t.Fatal(err)
	}
	return c.(*net.UnixConn), br, res
}

func TestAttach(t *testing.T) {
	d := newDoor(t)
	c, br, res := d.hijacked("/containers/c1/attach?stream=1&stdin=1&stdout=1&logs=1", "", true)
	if res.StatusCode != 101 || res.Status != "101 UPGRADED" || res.Header.Get("Content-Type") != "application/vnd.docker.multiplexed-stream" || res.Header.Get("Upgrade") != "tcp" || res.Header.Get("Api-Version") == "" {
		t.Errorf("answer %s %v", res.Status, res.Header)
	}
	// Input ends, output goes on: the client closes only its half.
	io.WriteString(c, "typed")
	c.CloseWrite()
	if in, err := io.ReadAll(d.containers.process); err != nil || string(in) != "typed" {
		t.Errorf("the process got %q, %v", in, err)
	}
	io.WriteString(d.containers.process, "answer")
	d.containers.process.Close()
	if out, err := io.ReadAll(br); err != nil || string(out) != "past answer" {
		t.Errorf("the client got %q, %v", out, err)
	}
}

func TestAttachWithoutUpgrade(t *testing.T) {
	d := newDoor(t)
	d.containers.tty = true
	_, br, res := d.hijacked("/v1.40/containers/c1/attach?stream=1&stdout=1", "", false)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Errorf("answer %s %v", res.Status, res.Header)
	}
	io.WriteString(d.containers.process, "raw")
	d.containers.process.Close()
	if out, _ := io.ReadAll(br); string(out) != "raw" {
		t.Errorf("the client got %q", out)
	}
	_, _, res = d.hijacked("/containers/x/attach?stream=1", "", true)
	if res.StatusCode != 404 {
		t.Errorf("attach to nothing: %s", res.Status)
	}
}

func TestAttachEndsWithClient(t *testing.T) {
	d := newDoor(t)
	c, _, _ := d.hijacked("/containers/c1/attach?stream=1&stdout=1", "", true)
	c.CloseWrite() // as docker does without -i
	c.Close()
	d.containers.process.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(d.containers.process); err != nil {
		t.Errorf("the attachment is still there after its client went away: %v", err)
	}
}

func TestDetachKeys(t *testing.T) {
	d := newDoor(t)
	d.containers.tty, d.containers.keys = true, []byte{16, 17}
	c, br, _ := d.hijacked("/containers/c1/attach?stream=1&stdin=1&stdout=1", "", true)
	io.WriteString(c, "a\x10b\x10\x10\x11after")
	if in, _ := io.ReadAll(d.containers.process); string(in) != "a\x10b\x10" {
		t.Errorf("the process got %q", in)
	}
	if out, _ := io.ReadAll(br); len(out) > 0 {
		t.Errorf("the client got %q", out)
	}
}

func TestExec(t *testing.T) {
	d := newDoor(t)
	d.want("POST", "/containers/c1/exec", `{"Cmd":["cat"]}`, 201, `{"Id":"e1"}`)
	d.want("POST", "/containers/c1/exec", `{}`, 400, "No exec command specified")
	d.want("POST", "/exec/gone/start", `{}`, 404)
	d.want("POST", "/exec/started/start", `{}`, 409)
	d.want("POST", "/exec/e1/start", `{"Detach":true}`, 200)
	c, br, res := d.hijacked("/exec/e1/start", `{"Detach":false}`, true)
	if res.StatusCode != 101 {
		t.Fatalf("answer %s", res.Status)
	}
	io.WriteString(c, "x")
	c.CloseWrite()
	in, _ := io.ReadAll(d.execs.process)
	d.execs.process.Write(in)
	d.execs.process.Close()
	if out, _ := io.ReadAll(br); string(out) != "x" {
		t.Errorf("the client got %q", out)
	}
	// A program that isn't there: told in the stream, on stderr.
	_, br, res = d.hijacked("/exec/missing/start", `{}`, true)
	out, _ := io.ReadAll(br)
	if res.StatusCode != 101 || len(out) < 8 || out[0] != 2 || !strings.Contains(string(out), `exec: "nope"`) {
		t.Errorf("answer %s: %q", res.Status, out)
	}
}

func TestLogs(t *testing.T) {
	d := newDoor(t)
	d.want("GET", "/containers/c1/logs", nil, 400, "you must choose at least one stream")
	d.want("GET", "/containers/c1/logs?stdout=1", nil, 501, "configured logging driver does not support reading")
	d.containers.log = filepath.Join(t.TempDir(), "log")
	os.WriteFile(d.containers.log, []byte(`{"log":"out\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}
{"log":"err\n","stream":"stderr","time":"2026-01-02T03:04:06Z"}
`), 0o600)
	got := d.want("GET", "/containers/c1/logs?stdout=1&stderr=1", nil, 200)
	if got != "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n" {
		t.Errorf("frames %q", got)
	}
	got = d.want("GET", "/containers/c1/logs?stdout=1&stderr=1&tail=1&timestamps=1", nil, 200)
	if got != "\x02\x00\x00\x00\x00\x00\x00\x232026-01-02T03:04:06.000000000Z err\n" {
		t.Errorf("with times %q", got)
	}
	d.containers.tty = true
	if got = d.want("GET", "/containers/c1/logs?stdout=1", nil, 200); got != "out\n" {
		t.Errorf("with a terminal %q", got)
	}
	if !strings.Contains(strings.Join(d.containers.calls, ","), "released") {
		t.Error("the container's files are still held")
	}
}

func TestStats(t *testing.T) {
	defer func(old time.Duration) { statsInterval = old }(statsInterval)
	statsInterval = time.Millisecond
	d := newDoor(t)
	d.want("GET", "/containers/x/stats", nil, 404)
	d.want("GET", "/containers/c1/stats?stream=1&one-shot=1", nil, 400, "cannot have stream=true and one-shot=true")
	d.want("GET", "/containers/c1/stats?stream=0&one-shot=1", nil, 200, `"precpu_stats":{"cpu_usage":{"total_usage":0`)
	var s container.StatsResponse
	json.Unmarshal([]byte(d.want("GET", "/containers/c1/stats?stream=0", nil, 200)), &s)
	if s.PreCPUStats.SystemUsage == 0 || s.PreCPUStats.SystemUsage >= s.CPUStats.SystemUsage {
		t.Errorf("samples %+v", s)
	}
	res, err := d.client.Get("http://tare/containers/c1/stats")
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(res.Body)
	for range 3 {
		if err := dec.Decode(&s); err != nil {
			t.Fatal(err)
		}
	}
	res.Body.Close()
}

func TestEvents(t *testing.T) {
	d := newDoor(t)
	at := time.Unix(1700000000, 5)
	d.bus.Publish(event.Event{Type: "container", Action: "start", ID: "abc", Attributes: map[string]string{"name": "web", "image": "nginx:1.25", "a": "b"}, Time: at})
	d.bus.Publish(event.Event{Type: "container", Action: "exec_start: sh", ID: "abc", Attributes: map[string]string{"name": "web"}, Time: at.Add(time.Second)})
	d.bus.Publish(event.Event{Type: "network", Action: "connect", ID: "n1", Attributes: map[string]string{"name": "net"}, Time: at.Add(2 * time.Second)})
	const window = "since=1700000000&until=1700000003"
	for _, tt := range []struct {
		filters string
		want    int
	}{
		{``, 3}, {`{"type":["network"]}`, 1}, {`{"container":["ab"]}`, 2}, {`{"container":["web"]}`, 2}, {`{"event":["exec_start"]}`, 1},
		{`{"event":["start","connect"]}`, 2}, {`{"image":["nginx"]}`, 1}, {`{"label":["a=b"]}`, 1}, {`{"type":{"network":true}}`, 1}, {`{"scope":["swarm"]}`, 0},
	} {
		got := d.want("GET", "/events?"+window+"&filters="+tt.filters, nil, 200)
		if n := strings.Count(got, "\n"); n != tt.want {
			t.Errorf("%s: %d events, want %d:\n%s", tt.filters, n, tt.want, got)
		}
	}
	d.want("GET", `/events?filters={"x":["y"]}`, nil, 400, "invalid filter 'x'")
	d.want("GET", "/events?since=1700000009&until=1700000003", nil, 400, "cannot be after")
	d.want("GET", "/v1.51/events?"+window+`&filters={"event":["start"]}`, nil, 200, `{"status":"start","id":"abc","from":"nginx:1.25","Type":"container"`, `"timeNano":1700000000000000005`)
	res, body := d.do("GET", "/events?"+window, nil, "Accept", "application/json-seq")
	if res.Header.Get("Content-Type") != "application/json-seq" || strings.Count(body, "\x1e") != 3 {
		t.Errorf("%v %q", res.Header, body)
	}
	// A live stream: its headers come before any event.
	live, err := d.client.Get("http://tare/events")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Body.Close()
	d.bus.Publish(event.Event{Type: "volume", Action: "create", ID: "v"})
	line, err := bufio.NewReader(live.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, `"Actor":{"ID":"v","Attributes":{}}`) {
		t.Errorf("%q %v", line, err)
	}
}

func TestImages(t *testing.T) {
	d := newDoor(t)
	got := d.want("GET", "/images/json", nil, 200, `"RepoTags":["nginx:1.25"]`, `"Containers":1`, `"RepoTags":[]`)
	if strings.Contains(got, "VirtualSize") {
		t.Error("VirtualSize in a new answer")
	}
	d.want("GET", "/v1.43/images/json", nil, 200, `"VirtualSize":100`, `"Containers":-1`)
	for filters, want := range map[string]int{
		`{"dangling":["true"]}`: 1, `{"dangling":["false"]}`: 1, `{"reference":["nginx"]}`: 1, `{"reference":["ngin*:1.*"]}`: 1, `{"reference":["redis"]}`: 0,
		`{"since":["nginx"]}`: 1, `{"before":["nginx"]}`: 0, `{"until":["1500"]}`: 1,
	} {
		var list []any
		json.Unmarshal([]byte(d.want("GET", "/images/json?filters="+filters, nil, 200)), &list)
		if len(list) != want {
			t.Errorf("%s: %d images, want %d", filters, len(list), want)
		}
	}
	d.want("GET", `/images/json?filters={"x":["y"]}`, nil, 400)
	d.want("GET", "/images/localhost:5000/a/b:c/json", nil, 200, `"GraphDriver":{"Data":{"LowerDir":"/l2:/l1"},"Name":"overlay2"}`)
	d.want("GET", "/images/redis/json", nil, 404, "No such image: redis")
	d.want("GET", "/v1.40/images/nginx/json", nil, 200, `"ContainerConfig":{`, `"VirtualSize":100`, `"Cmd":null`, `"Hostname":""`, `"Parent":""`)
	d.want("GET", "/images/nginx/history", nil, 200, `"Size":40`, `"Id":"<missing>"`, `"Tags":["nginx:1.25"]`)
	d.want("POST", "/images/nginx/tag?repo=localhost:5000/x&tag=v2", nil, 201)
	d.want("POST", "/images/nginx/tag?repo=UPPER", nil, 400, "invalid reference format")
	if diff := cmp.Diff([]string{"tag nginx localhost:5000/x:v2"}, d.images.calls); diff != "" {
		t.Error(diff)
	}
	d.want("DELETE", "/images/a/b:c", nil, 200, `[{"Untagged":"a/b:c"},{"Deleted":"sha256:x"}]`)
	d.want("DELETE", "/images/held", nil, 409, "must be forced")
	d.want("GET", "/images/nginx/get", nil, 200, "tar of nginx")
	d.want("GET", "/images/get?names=nginx&names=nginx:1.25", nil, 200, "tar of nginx+nginx:1.25")
	d.want("GET", "/images/get?names=redis", nil, 404)
	d.want("POST", "/images/load", "tar", 200, "Loaded image: nginx:1.25")
	if d.archives.loaded != "tar" {
		t.Errorf("loaded %q", d.archives.loaded)
	}
	d.want("GET", "/images/search?term=x", nil, 501)
}

func TestPull(t *testing.T) {
	d := newDoor(t)
	a, _ := json.Marshal(registry.AuthConfig{Username: "u", Password: "p"})
	res, body := d.do("POST", "/images/create?fromImage=nginx&tag=1.25", nil, "X-Registry-Auth", base64.URLEncoding.EncodeToString(a))
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" || !strings.Contains(body, `"progressDetail":{"current":5,"total":10}`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if d.transfers.ref != "docker.io/library/nginx:1.25" || d.transfers.auth == nil || d.transfers.auth.Username != "u" {
		t.Errorf("pulled %s with %v", d.transfers.ref, d.transfers.auth)
	}
	res, _ = d.do("POST", "/images/create?fromImage=nginx", nil, "X-Registry-Auth", "%%%")
	if res.StatusCode != 400 {
		t.Errorf("bad credentials: %d", res.StatusCode)
	}
	d.transfers.failMid = true
	d.want("POST", "/images/create?fromImage=nginx&tag=latest", nil, 200, `"errorDetail":{"message":"the line is cut"},"error":"the line is cut"`)
	d.transfers.failSoon = true
	d.want("POST", "/images/create?fromImage=nginx&tag=latest", nil, 404, "manifest unknown")
	d.want("POST", "/images/create", nil, 400)
	d.want("POST", "/images/localhost:5000/x/push?tag=v1", nil, 200, `"aux":{"Size":3,"Tag":"v1"}`)
	if d.transfers.ref != "localhost:5000/x:v1" {
		t.Errorf("pushed %s", d.transfers.ref)
	}
}

func TestCancelledPull(t *testing.T) {
	d := newDoor(t)
	d.transfers.blocked = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://tare/images/create?fromImage=nginx", nil)
	res, err := d.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	select {
	case <-d.transfers.blocked:
	case <-time.After(10 * time.Second):
		t.Error("the pull goes on without its client")
	}
}

func TestBuild(t *testing.T) {
	d := newDoor(t)
	got := d.want("POST", `/build?t=a:b&t=c&buildargs={"X":"1","Y":null}&labels={"l":"m"}&target=final&memory=1024&ulimits=[{"Name":"nofile","Soft":1,"Hard":2}]&nocache=1`, "context", 200, "Step 1/1", `"aux":{"ID":"sha256:`)
	if !strings.HasSuffix(got, "\r\n") {
		t.Errorf("the stream ends with %q", got)
	}
	r := d.builds.req
	if len(r.Tags) != 2 || *r.BuildArgs["X"] != "1" || r.BuildArgs["Y"] != nil || r.Labels["l"] != "m" || r.Memory != 1024 || !r.NoCache || r.Ulimits[0].Type != "RLIMIT_NOFILE" || !r.RemoveSteps {
		t.Errorf("request %+v", r)
	}
	if got = d.want("POST", "/build?q=1", "context", 200); got != `{"stream":"`+fakeImage.ID.String()+`\n"}`+"\r\n" {
		t.Errorf("quiet: %q", got)
	}
	d.want("POST", "/build?target=broken", "context", 200, `"errorDetail":{"message":"dockerfile parse error line 1: unknown instruction: FORM"}`)
	d.want("POST", "/build?target=broken&q=1", "context", 400, "unknown instruction: FORM")
	d.want("POST", "/build?version=2", "context", 501, "DOCKER_BUILDKIT=0")
	d.want("POST", "/build?squash=1", "context", 501, "squash=1")
	d.want("POST", `/build?cachefrom=["x"]`, "context", 200, "--cache-from has no effect")
	if got = d.want("POST", "/build?cachefrom=[]", "context", 200); strings.Contains(got, "cache-from") {
		t.Errorf("without cache sources: %s", got)
	}
	d.want("POST", "/build?buildargs=[", "context", 400, "error reading buildargs")
	d.want("POST", "/build/prune", nil, 200, `"CachesDeleted":["k"]`)
	d.want("POST", "/v1.40/build/prune?keep-storage=5", nil, 200, "CachesDeleted")
	d.want("POST", "/session", nil, 501, "DOCKER_BUILDKIT=0")
}

func TestNetworksVolumesAndTheRest(t *testing.T) {
	d := newDoor(t)
	d.want("GET", "/networks", nil, 200, `[{"Name":"net1"`)
	d.want("GET", "/networks/net1", nil, 200, `"Containers":{}`)
	d.want("GET", "/networks/net1?scope=swarm", nil, 404)
	d.want("POST", "/networks/create", `{"Name":"n"}`, 201, `{"Id":"nid","Warning":""}`)
	d.want("POST", "/networks/create", `{"Name":"taken"}`, 409)
	d.want("POST", "/networks/create", `{}`, 400)
	d.want("POST", "/networks/net1/connect", `{"Container":"c1"}`, 200)
	d.want("POST", "/networks/net1/disconnect", `{"Container":"c1"}`, 403)
	d.want("POST", "/networks/prune", nil, 200, `{"NetworksDeleted":["net1"]}`)
	d.want("DELETE", "/networks/net1", nil, 204)

	d.want("GET", "/volumes", nil, 200, `"Volumes":[{`, `"Warnings":[]`)
	d.want("GET", "/volumes/x", nil, 404, "get x: no such volume")
	d.want("POST", "/volumes/create", `{"Name":"v"}`, 201, `"Name":"v"`)
	d.want("POST", "/volumes/create", nil, 201)
	d.want("DELETE", "/volumes/v", nil, 204)
	d.want("POST", "/volumes/prune", nil, 200, `"VolumesDeleted":[]`)

	d.want("GET", "/info", nil, 200, `"Containers":1`, `"ContainersRunning":1`, `"Images":2`)
	d.want("POST", "/auth", `{"username":"u","password":"secret"}`, 200, "Login Succeeded")
	d.want("POST", "/auth", `{"username":"u","password":"wrong"}`, 401)
	d.want("GET", "/distribution/a/b:c/json", nil, 200, `"Platforms":[]`)
	d.want("GET", "/plugins", nil, 200, "[]")
	d.want("GET", "/plugins/a/b/json", nil, 404)
	d.want("GET", "/services", nil, 503, "This node is not a swarm manager")
	d.want("POST", "/swarm/leave", nil, 503, "This node is not part of a swarm")
	d.want("POST", "/swarm/init", "{}", 501)

	got := d.want("GET", "/system/df", nil, 200, `"ImageUsage":{"ActiveCount":1,"TotalCount":2,"TotalSize":100}`, `"ContainerUsage":{"ActiveCount":1`)
	if strings.Contains(got, "Items") {
		t.Errorf("items without verbose: %s", got)
	}
	d.want("GET", "/system/df?verbose=1&type=container", nil, 200, `"Items":[{"Id":"`)
	d.want("GET", "/system/df?type=nonsense", nil, 400)
	got = d.want("GET", "/v1.43/system/df", nil, 200, `{"LayersSize":100,"Images":[{`, `"Containers":[{`, `"Volumes":[{`, `"BuildCache":[{`, `"VirtualSize":100`)
	if strings.Contains(got, "ImageUsage") {
		t.Errorf("new members in an old answer: %s", got)
	}
}

func FuzzKeyWatch(f *testing.F) {
	f.Add([]byte("a\x10b\x10\x11c"), []byte{16, 17})
	f.Fuzz(func(t *testing.T, in, keys []byte) {
		if len(keys) == 0 {
			return
		}
		out, err := io.ReadAll(&keyWatch{r: strings.NewReader(string(in)), keys: keys})
		if err == nil && string(out) != string(in) {
			t.Errorf("%q became %q", in, out)
		}
	})
}
