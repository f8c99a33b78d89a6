// Package network holds real engines and containers to what users of networks expect: names that resolve,
// ports that are published, addresses that stay, nothing left behind.
//
//	server    a busybox container that answers HTTP on port 80 with its own name
//	machine   a network namespace with a veth of its own to the host: another computer, in play
package network

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tare/internal/network/rtnl"
	"tare/internal/test/harness"
)

const image = "busybox:test"

// start starts an engine that has the host's busybox as an image.
func start(t *testing.T, args ...string) *harness.Engine {
	t.Helper()
	e := harness.Start(t, args...)
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "www"} {
		w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755})
	}
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))})
	w.Write(program)
	for _, name := range []string{"sh", "httpd", "wget", "nslookup", "cat", "stat", "ip", "hostname", "sleep", "timeout", "nc", "netstat", "grep"} {
		w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r := e.Try(&buf, "import", "-c", "ENV PATH=/bin", "-c", "EXPOSE 80", "-", image); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	return e
}

const serving = "hostname > /www/index.html; exec httpd -f -h /www"

// serve runs a server; flags are those of docker run.
func serve(e *harness.Engine, name string, flags ...string) {
	e.T.Helper()
	e.Docker(slices.Concat([]string{"run", "-d", "--stop-timeout", "0", "--name", name, "--hostname", name}, flags, []string{image, "sh", "-c", serving})...)
	e.Until("listening of "+name, func() bool {
		return e.Try(nil, "exec", name, "wget", "-qO-", "http://127.0.0.1/").Stdout == name+"\n"
	})
}

// idle runs a container that does nothing.
func idle(e *harness.Engine, name string, flags ...string) {
	e.T.Helper()
	e.Docker(slices.Concat([]string{"run", "-d", "--stop-timeout", "0", "--name", name}, flags, []string{image, "sleep", "1000"})...)
}

func in(e *harness.Engine, name string, cmd ...string) string {
	e.T.Helper()
	return e.Docker(append([]string{"exec", name}, cmd...)...)
}

// wget asks for a page from inside a container.
func wget(e *harness.Engine, from, url string) string {
	e.T.Helper()
	r := e.Try(nil, "exec", from, "timeout", "3", "wget", "-qO-", url)
	return strings.TrimSpace(r.Stdout + r.Stderr)
}

// resolve asks the container's name server for IPv4 addresses.
func resolve(e *harness.Engine, from, name string) []string {
	e.T.Helper()
	out := e.Try(nil, "exec", from, "nslookup", "-type=a", name).Stdout
	_, answer, _ := strings.Cut(out, "\n\n")
	var list []string
	for line := range strings.Lines(answer) {
		if a, ok := strings.CutPrefix(line, "Address: "); ok {
			list = append(list, strings.TrimSpace(a))
		}
	}
	return list
}

func address(e *harness.Engine, name, network string) string {
	e.T.Helper()
	return e.Docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network), name)
}

// get asks for a page from the calling thread's namespace.
func get(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
	all, err := io.ReadAll(c)
	_, body, _ := strings.Cut(string(all), "\r\n\r\n")
	return strings.TrimSpace(body), err
}

func wantGet(t *testing.T, addr, want string) {
	t.Helper()
	if got, err := get(addr); got != want {
		t.Errorf("%s answers %q, %v; want %q", addr, got, err, want)
	}
}

// freePort is one that nobody has, and the n-1 after it too.
func freePorts(t *testing.T, n int) int {
	t.Helper()
next:
	for range 100 {
		first := 20000 + rand.IntN(10000)
		for p := first; p < first+n; p++ {
			l, err := net.Listen("tcp", ":"+strconv.Itoa(p))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return first
	}
	t.Fatal("no free ports")
	return 0
}

// machine is a namespace beyond the host.
type machine struct {
	t    *testing.T
	pid  int
	ns   *rtnl.Namespace
	Addr netip.Addr // its own
	Host netip.Addr // the host's end
	veth string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	c := exec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	ns, err := rtnl.NamespaceOf(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	// TEST-NET-2's neighbour for benchmarks, RFC 2544: nobody's outside laboratories
	n := rand.IntN(1 << 14)
	base := netip.AddrFrom4([4]byte{198, 18 + byte(n>>13), byte(n >> 5), byte(n << 3)})
	m := &machine{t: t, pid: c.Process.Pid, ns: ns, Host: base.Next(), Addr: base.Next().Next(), veth: fmt.Sprintf("tm%x", rand.Uint32())}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: m.veth}, PeerName: "eth0", PeerNamespace: netlink.NsPid(c.Process.Pid)}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(link) })
	if err := up(m.veth, m.Host); err != nil {
		t.Fatal(err)
	}
	if err := m.do(func() error {
		if err := up("lo", netip.Addr{}); err != nil {
			return err
		}
		return up("eth0", m.Addr)
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

func up(name string, addr netip.Addr) error {
	h, err := netlink.NewHandle() // the calling thread's namespace, not the package's first
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if addr.IsValid() {
		if err := h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(29, 32)}}); err != nil {
			return err
		}
	}
	return h.LinkSetUp(l)
}

// do runs f in the machine.
func (m *machine) do(f func() error) error { return inside(m.ns, f) }

func inside(ns *rtnl.Namespace, f func() error) error {
	home, err := rtnl.OwnNamespace()
	if err != nil {
		return err
	}
	defer home.Close()
	return ns.Do(home, f)
}

func (m *machine) get(addr string) (got string, err error) {
	err = m.do(func() (err error) { got, err = get(addr); return err })
	return got, err
}

// serve answers HTTP in the machine with the asker's address.
func (m *machine) serve(port int) {
	m.t.Helper()
	var l net.Listener
	if err := m.do(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		m.t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		io.WriteString(w, host)
	})}
	go s.Serve(l)
	m.t.Cleanup(func() { s.Close() })
}

// echoUDP answers datagrams inside a container with its text, until the test ends.
func echoUDP(e *harness.Engine, name string, port int, text string) {
	e.T.Helper()
	pid, err := strconv.Atoi(e.Docker("inspect", "-f", "{{.State.Pid}}", name))
	if err != nil {
		e.T.Fatal(err)
	}
	ns, err := rtnl.NamespaceOf(pid)
	if err != nil {
		e.T.Fatal(err)
	}
	defer ns.Close()
	var p net.PacketConn
	if err := inside(ns, func() (err error) {
		p, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		e.T.Fatal(err)
	}
	e.T.Cleanup(func() { p.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			p.WriteTo([]byte(text), from)
		}
	}()
}

// askUDP sends a datagram and returns the answer.
func askUDP(addr string) (string, error) {
	c, err := net.Dial("udp4", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}
