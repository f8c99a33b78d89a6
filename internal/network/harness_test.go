package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"tare/internal/base/event"
	"tare/internal/base/ids"
	"tare/internal/network/dns"
	"tare/internal/network/rtnl"
)

// The tests run in a network namespace of their own, which plays the host: whatever happens, nothing stays behind.
func TestMain(m *testing.M) {
	const mark = "TARE_NETWORK_TEST_NAMESPACE"
	if os.Getenv(mark) == "" {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.Env = append(os.Environ(), mark+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		err := c.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	c, err := rtnl.Open()
	if err == nil {
		var b rtnl.Batch
		b.SetUp("lo")
		err = c.Do(&b)
		c.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var instances int

// testConfig is a fresh instance with a resolv.conf of its own.
func testConfig(t testing.TB) Config {
	t.Helper()
	instances++
	dir := t.TempDir()
	conf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 192.0.2.53\nsearch example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Root: filepath.Join(dir, "networks"), Instance: fmt.Sprintf("t%d", instances), Firewall: true, IPForward: true,
		IPMasq: true, ICC: true, ResolvConf: conf}
	t.Cleanup(func() {
		if err := Destroy(cfg.Instance, cfg.Root); err != nil {
			t.Error(err)
		}
	})
	return cfg
}

func open(t testing.TB, cfg Config, live map[string]int) *Manager {
	t.Helper()
	m, err := Open(context.Background(), cfg, live, &event.Bus{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// box is a process in a namespace of its own.
type box struct {
	t    testing.TB
	id   string
	name string
	pid  int
	ns   *rtnl.Namespace
	kill func()
}

func newBox(t testing.TB, name string) *box {
	t.Helper()
	c := exec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ns, err := rtnl.NamespaceOf(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, id: ids.New(), name: name, pid: c.Process.Pid, ns: ns}
	done := false
	b.kill = func() {
		if !done {
			done = true
			c.Process.Kill()
			c.Wait()
			ns.Close()
		}
	}
	t.Cleanup(b.kill)
	return b
}

func (b *box) join(nets ...string) Join {
	j := Join{Container: b.id, Name: b.name, Hostname: b.name + "-host", Pid: b.pid, Endpoints: map[string]*network.EndpointSettings{}}
	for _, n := range nets {
		j.Endpoints[n] = nil
	}
	return j
}

func mustJoin(t testing.TB, m *Manager, j Join) *Joined {
	t.Helper()
	got, err := m.Join(context.Background(), j)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Leave(context.Background(), j.Container) })
	return got
}

func mustCreate(t testing.TB, m *Manager, name string, req network.CreateRequest) string {
	t.Helper()
	id, _, err := m.Create(context.Background(), name, req)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// in runs f on a thread in the box.
func (b *box) in(f func() error) error {
	home, err := rtnl.OwnNamespace()
	if err != nil {
		return err
	}
	defer home.Close()
	return b.ns.Do(home, f)
}

// serve answers on addr inside the box, TCP and UDP, with the box's name and the peer's address.
func (b *box) serve(port int) {
	b.t.Helper()
	err := b.in(func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			return err
		}
		b.t.Cleanup(func() { l.Close(); p.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, b.name+" "+c.RemoteAddr().String())
				c.Close()
			}
		}()
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				p.WriteTo([]byte(b.name+" "+from.String()), from)
			}
		}()
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

const patience = 5 * time.Second

// ask connects from the calling thread's namespace and returns what the server says.
func ask(proto, addr string, timeout time.Duration) (string, error) {
	c, err := net.DialTimeout(proto+"4", addr, timeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	if proto == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		return string(buf[:n]), err
	}
	all, err := io.ReadAll(c)
	return string(all), err
}

func (b *box) ask(proto, addr string, timeout time.Duration) (got string, err error) {
	err = b.in(func() (err error) { got, err = ask(proto, addr, timeout); return err })
	return got, err
}

// wantReach checks that addr answers with server's name, and returns the address that the server saw.
func wantReach(t testing.TB, what string, got string, err error, server string) (peer string) {
	t.Helper()
	name, peer, _ := strings.Cut(got, " ")
	if err != nil || name != server {
		t.Errorf("%s: got %q, %v; want an answer of %s", what, got, err, server)
	}
	peer, _, _ = strings.Cut(peer, ":")
	return peer
}

func wantNoReach(t testing.TB, what, got string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: %q answered, want nothing", what, got)
	}
}

// lookup asks the box's own name server.
func (b *box) lookup(name string) (addrs []string, rcode dnsmessage.RCode, err error) {
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 42, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	raw, err := q.Pack()
	if err != nil {
		return nil, 0, err
	}
	err = b.in(func() error {
		c, err := net.DialTimeout("udp4", netip.AddrPortFrom(dns.Addr, dns.Port).String(), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(raw); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:n]); err != nil {
			return err
		}
		rcode = m.RCode
		for _, a := range m.Answers {
			if r, ok := a.Body.(*dnsmessage.AResource); ok {
				addrs = append(addrs, netip.AddrFrom4(r.A).String())
			}
		}
		return nil
	})
	return addrs, rcode, err
}

// outside is a machine beyond the host: its own veth to the host, 198.51.100.2 there and .1 here; the host is its gateway only if
// routed.
func outside(t testing.TB, name string, subnet string, routed bool) *box {
	t.Helper()
	b := newBox(t, name)
	p := netip.MustParsePrefix(subnet)
	here, there := p.Addr().Next(), p.Addr().Next().Next()
	home, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	br := "x" + randomName()
	var batch rtnl.Batch
	batch.AddBridge(br, "test", net.HardwareAddr{2, 0, 0, 1, 2, 3}, 0)
	if err := home.Do(&batch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c, err := rtnl.Open()
		if err == nil {
			defer c.Close()
			var b rtnl.Batch
			b.DelLink(br)
			err = c.Do(&b)
		}
		if err != nil {
			t.Error(err)
		}
	})
	index, err := home.Index(br)
	if err != nil {
		t.Fatal(err)
	}
	batch = rtnl.Batch{}
	batch.AddAddr(index, netip.PrefixFrom(here, p.Bits()))
	batch.SetUp(br)
	batch.AddVeth(rtnl.Veth{Name: "v" + br, Master: index, PeerName: "eth0", PeerMAC: net.HardwareAddr{2, 0, 0, 1, 2, 4}, PeerNS: b.ns.FD(), MTU: 1500})
	if err := home.Do(&batch); err != nil {
		t.Fatal(err)
	}
	err = b.in(func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		index, err := c.Index("eth0")
		if err != nil {
			return err
		}
		var in rtnl.Batch
		in.SetUp("lo")
		in.AddAddr(index, netip.PrefixFrom(there, p.Bits()))
		in.SetUp("eth0")
		if routed {
			in.Gateway(index, here)
		}
		return c.Do(&in)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func publishOn(hostIP string, hostPort string) []network.PortBinding {
	b := network.PortBinding{HostPort: hostPort}
	if hostIP != "" {
		b.HostIP = netip.MustParseAddr(hostIP)
	}
	return []network.PortBinding{b}
}

// linkExists looks in the test's host.
func linkExists(t testing.TB, name string) bool {
	t.Helper()
	c, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Index(name)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		t.Fatal(err)
	}
	return err == nil
}
