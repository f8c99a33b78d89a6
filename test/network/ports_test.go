package network

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

func TestPublish(t *testing.T) {
	e := start(t)
	m := newMachine(t)
	p := freePorts(t, 8)
	at := func(host any, port int) string { return fmt.Sprintf("%v:%d", host, port) }

	e.Docker("network", "create", "n1")
	for i, network := range []string{"bridge", "n1"} {
		name, port := "on-"+network, p+i
		serve(e, name, "--network", network, "-p", at("", port)[1:]+":80")
		wantGet(t, at("127.0.0.1", port), name)
		wantGet(t, at(m.Host, port), name)
		if got, err := m.get(at(m.Host, port)); got != name {
			t.Errorf("from another machine: %q, %v", got, err)
		}
		if got := wget(e, name, "http://"+at(m.Host, port)+"/"); got != name {
			t.Errorf("from the container itself: %q", got)
		}
		if got := e.Docker("port", name, "80"); !strings.HasPrefix(got, at("0.0.0.0", port)) {
			t.Errorf("docker port: %q", got)
		}
	}
	if got := wget(e, "on-bridge", "http://"+at(m.Host, p+1)+"/"); got != "on-n1" {
		t.Errorf("from one network to another's published port: %q", got)
	}

	serve(e, "local", "-p", at("127.0.0.1", p+2)+":80")
	wantGet(t, at("127.0.0.1", p+2), "local")
	if got, err := m.get(at(m.Host, p+2)); err == nil {
		t.Errorf("127.0.0.1's port answers %q to another machine", got)
	}

	serve(e, "range", "-p", fmt.Sprintf("%d-%d:80", p, p+3))
	if got := e.Docker("port", "range", "80"); !strings.HasSuffix(strings.Split(got, "\n")[0], fmt.Sprint(":", p+3)) {
		t.Errorf("first free port of a range: %q", got)
	}
	wantGet(t, at("127.0.0.1", p+3), "range")

	serve(e, "random", "-p", "80")
	wantGet(t, published(e, "random", "80/tcp"), "random")
	serve(e, "all", "-P")
	wantGet(t, published(e, "all", "80/tcp"), "all")

	idle(e, "udp", "-p", fmt.Sprintf("%d:5353/udp", p+4))
	echoUDP(e, "udp", 5353, "udp")
	for _, host := range []string{"127.0.0.1", m.Host.String()} {
		if got, err := askUDP(at(host, p+4)); got != "udp" {
			t.Errorf("udp at %s: %q, %v", host, got, err)
		}
	}
	if err := m.do(func() error {
		if got, err := askUDP(at(m.Host, p+4)); got != "udp" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	}); err != nil {
		t.Error("udp from another machine:", err)
	}

	// What ps shows is what there is.
	if got := e.Docker("ps", "-a", "--filter", "name=local", "--format", "{{.Ports}}"); !strings.Contains(got, at("127.0.0.1", p+2)+"->80/tcp") {
		t.Errorf("ps: %q", got)
	}
	e.Docker("stop", "local")
	if got := e.Docker("ps", "-a", "--filter", "name=local", "--format", "{{.Ports}}"); got != "" {
		t.Errorf("ps of a stopped container shows ports: %q", got)
	}
	if _, err := get(at("127.0.0.1", p+2)); err == nil {
		t.Error("a stopped container's port answers")
	}
}

// published is where the host's loopback reaches a container's port.
func published(e *harness.Engine, name, port string) string {
	e.T.Helper()
	_, number, _ := strings.Cut(strings.Split(e.Docker("port", name, port), "\n")[0], ":")
	return "127.0.0.1:" + number
}

func TestPortTaken(t *testing.T) {
	e := start(t)
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	free := freePorts(t, 1)
	r := e.Try(nil, "run", "-d", "--name", "late", "-p", fmt.Sprintf("%d:81", free), "-p", fmt.Sprintf("%d:80", port), image, "sleep", "1000")
	if want := fmt.Sprintf("driver failed programming external connectivity on endpoint late"); r.Code != 125 || !strings.Contains(r.Stderr, want) ||
		!strings.Contains(r.Stderr, fmt.Sprintf("Bind for 0.0.0.0:%d failed: port is already allocated", port)) {
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	if got := e.Docker("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Ports}}"); got != "late created " {
		t.Errorf("ps: %q", got)
	}
	if got := e.Docker("network", "inspect", "-f", "{{len .Containers}}", "bridge"); got != "0" {
		t.Errorf("the network still has %s containers", got)
	}
	if again, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", free)); err != nil {
		t.Errorf("the other port is still held: %v", err)
	} else {
		again.Close()
	}
	l.Close()
	e.Docker("start", "late")
}

// TestEngineKilled: what is published and named outlives the engine, and its successor can take it back.
func TestEngineKilled(t *testing.T) {
	e := start(t)
	p := freePorts(t, 2)
	e.Docker("network", "create", "n1")
	serve(e, "web", "--network", "n1", "-p", fmt.Sprintf("%d:80", p))
	idle(e, "shell", "--network", "n1")
	addr := fmt.Sprintf("127.0.0.1:%d", p)
	e.Kill()
	wantGet(t, addr, "web") // without any engine
	e.Launch()
	wantGet(t, addr, "web")
	if got := wget(e, "shell", "http://web/"); got != "web" {
		t.Errorf("names after the engine's restart: %q", got)
	}
	if got := e.Docker("port", "web", "80"); !strings.HasPrefix(got, fmt.Sprintf("0.0.0.0:%d", p)) {
		t.Errorf("docker port: %q", got)
	}
	if r := e.Try(nil, "run", "--rm", "-p", fmt.Sprintf("%d:80", p), image, "hostname"); r.Code != 125 {
		t.Errorf("the port was given away: %+v", r)
	}
	if got := e.Docker("network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "n1"); !slices.Equal(slices.Sorted(slices.Values(strings.Fields(got))), []string{"shell", "web"}) {
		t.Errorf("inspect lists %q", got)
	}
	idle(e, "later", "--network", "n1")
	if got := wget(e, "later", "http://web/"); got != "web" {
		t.Errorf("from a later container: %q", got)
	}
	e.Docker("rm", "-f", "web")
	if _, err := get(addr); err == nil {
		t.Error("the port of a removed container answers")
	}
}

// TestTwoEngines: the same names for containers and networks, nobody disturbs the other.
func TestTwoEngines(t *testing.T) {
	a, b := start(t), start(t)
	p := freePorts(t, 2)
	for i, e := range []*harness.Engine{a, b} {
		e.Docker("network", "create", "net")
		serve(e, "web", "--network", "net", "-p", fmt.Sprintf("%d:80", p+i))
		idle(e, "shell", "--network", "net")
	}
	if x, y := address(a, "web", "net"), address(b, "web", "net"); x == y {
		t.Errorf("both have %s", x)
	}
	check := func(i int, e *harness.Engine) {
		t.Helper()
		wantGet(t, fmt.Sprintf("127.0.0.1:%d", p+i), "web")
		if got := resolve(e, "shell", "web"); !slices.Equal(got, []string{address(e, "web", "net")}) {
			t.Errorf("engine %d: web is %v", i, got)
		}
	}
	check(0, a)
	check(1, b)
	if r := b.Try(nil, "run", "--rm", "-p", fmt.Sprintf("%d:80", p), image, "hostname"); !strings.Contains(r.Stderr, "port is already allocated") {
		t.Errorf("the other engine's port: %+v", r)
	}
	a.Docker("rm", "-f", "web", "shell")
	a.Docker("network", "rm", "net")
	check(1, b)
}

func TestOut(t *testing.T) {
	e := start(t)
	m := newMachine(t)
	m.serve(8080)
	e.Docker("network", "create", "n1")
	e.Docker("network", "create", "--internal", "inside")
	for _, network := range []string{"bridge", "n1"} {
		idle(e, "on-"+network, "--network", network)
		if got := wget(e, "on-"+network, fmt.Sprintf("http://%s:8080/", m.Addr)); got != m.Host.String() {
			t.Errorf("from %s the machine sees %q, want the host's %s", network, got, m.Host)
		}
	}
	idle(e, "locked", "--network", "inside")
	if got := wget(e, "locked", fmt.Sprintf("http://%s:8080/", m.Addr)); got == m.Host.String() {
		t.Error("an internal network leads out")
	}
}
