package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"tare/internal/base/event"
	"tare/internal/base/filter"
	"tare/internal/network/rtnl"
)

var short = 300 * time.Millisecond

func TestPublishedPorts(t *testing.T) {
	m := open(t, testConfig(t), nil)
	client := outside(t, "client", "198.51.100.0/24", false)
	web := newBox(t, "web")
	j := web.join("bridge")
	j.Ports = network.PortMap{
		network.MustParsePort("80/tcp"): append(publishOn("", "18080"), publishOn("127.0.0.1", "18081")...),
		network.MustParsePort("80/udp"): publishOn("", "18080"),
		network.MustParsePort("81/tcp"): append(publishOn("198.51.100.1", "18082"), publishOn("", "")...),
	}
	got := mustJoin(t, m, j)
	web.serve(80)
	web.serve(81)
	sibling := newBox(t, "sibling")
	mustJoin(t, m, sibling.join("bridge"))
	gateway := got.Endpoints["bridge"].Gateway.String()

	for _, proto := range []string{"tcp", "udp"} {
		a, err := ask(proto, "127.0.0.1:18080", patience)
		if peer := wantReach(t, proto+" by loopback", a, err, "web"); peer != gateway {
			t.Errorf("server saw %s, want the gateway %s", peer, gateway)
		}
		a, err = ask(proto, "198.51.100.1:18080", patience)
		wantReach(t, proto+" by the host's address", a, err, "web")
		a, err = client.ask(proto, "198.51.100.1:18080", patience)
		if peer := wantReach(t, proto+" from outside", a, err, "web"); peer != "198.51.100.2" {
			t.Errorf("server saw %s, want the client's own address", peer)
		}
		a, err = web.ask(proto, gateway+":18080", patience)
		wantReach(t, proto+" from the container itself (hairpin)", a, err, "web")
		a, err = sibling.ask(proto, gateway+":18080", patience)
		wantReach(t, proto+" from a sibling by the host", a, err, "web")
	}
	a, err := ask("tcp", "127.0.0.1:18081", patience)
	wantReach(t, "port of 127.0.0.1", a, err, "web")
	a, err = client.ask("tcp", "198.51.100.1:18081", short)
	wantNoReach(t, "port of 127.0.0.1 from outside", a, err)
	a, err = client.ask("tcp", "198.51.100.1:18082", patience)
	wantReach(t, "port of the outer address", a, err, "web")
	a, err = ask("tcp", "127.0.0.1:18082", short)
	wantNoReach(t, "port of the outer address by loopback", a, err)

	free := got.Ports[network.MustParsePort("81/tcp")][1].HostPort
	a, err = client.ask("tcp", "198.51.100.1:"+free, patience)
	wantReach(t, "chosen port "+free, a, err, "web")

	// a container can't reach the host's loopback through the bridge (CVE-2020-8558)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	evil := newBox(t, "evil")
	mustJoin(t, m, evil.join("bridge"))
	err = evil.in(func() error {
		if err := rtnl.SetSysctl("ipv4/conf/all/route_localnet", "1"); err != nil {
			return err
		}
		out, err := exec.Command("sh", "-c", "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via "+gateway+" dev eth0").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err = evil.ask("tcp", l.Addr().String(), short)
	wantNoReach(t, "the host's loopback from a container", a, err)

	if err := m.Leave(context.Background(), web.id); err != nil {
		t.Fatal(err)
	}
	a, err = ask("tcp", "127.0.0.1:18080", short)
	wantNoReach(t, "port after Leave", a, err)
}

func TestPortTaken(t *testing.T) {
	m := open(t, testConfig(t), nil)
	a, b := newBox(t, "a"), newBox(t, "b")
	ja, jb := a.join("bridge"), b.join("bridge")
	ja.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18180")}
	jb.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18180")}
	first := mustJoin(t, m, ja)
	_, err := m.Join(context.Background(), jb)
	if err == nil || !strings.Contains(err.Error(), "driver failed programming external connectivity on endpoint b (") ||
		!strings.HasSuffix(err.Error(), "Bind for 0.0.0.0:18180 failed: port is already allocated") || !errdefs.IsInternal(err) {
		t.Errorf("second container: %v", err)
	}
	if n, _ := m.Get("bridge"); len(n.Containers) != 1 {
		t.Errorf("the failed container is still on the network: %v", n.Containers)
	}
	if _, err := net.Listen("tcp4", "0.0.0.0:18180"); err == nil {
		t.Error("another process may bind the port")
	}
	// its address is free again
	jb.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18180-18190")}
	got := mustJoin(t, m, jb)
	if p := got.Ports[network.MustParsePort("80")][0].HostPort; p != "18181" {
		t.Errorf("port %s, want the range's next, 18181", p)
	}
	if x, y := first.Endpoints["bridge"].IPAddress, got.Endpoints["bridge"].IPAddress; y != x.Next() {
		t.Errorf("addresses %s and %s", x, y)
	}
}

func TestNamesOnUserNetworks(t *testing.T) {
	cfg := testConfig(t)
	m := open(t, cfg, nil)
	mustCreate(t, m, "front", network.CreateRequest{})
	mustCreate(t, m, "back", network.CreateRequest{IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.99.0.0/24")}}}})
	web, db, other := newBox(t, "web"), newBox(t, "db"), newBox(t, "other")
	jw := web.join("front", "back")
	jw.Endpoints["back"] = &network.EndpointSettings{Aliases: []string{"www"}, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.99.0.77")}}
	gw := mustJoin(t, m, jw)
	gd := mustJoin(t, m, db.join("back"))
	mustJoin(t, m, other.join("front"))
	db.serve(80)
	web.serve(80)

	if got := string(gw.ResolvConf); got != "# Written by Tare.\nnameserver 127.0.0.11\nsearch example.com\noptions ndots:0\n" {
		t.Errorf("resolv.conf %q", got)
	}
	if !strings.HasSuffix(string(gw.Hosts), "10.99.0.77\tweb-host\n"+gw.Endpoints["front"].IPAddress.String()+"\tweb-host\n") {
		t.Errorf("hosts %q", gw.Hosts)
	}
	dbAddr := gd.Endpoints["back"].IPAddress.String()
	for _, c := range []struct {
		from *box
		name string
		want string
	}{
		{web, "db", dbAddr}, {web, "DB", dbAddr}, {web, "db.back", dbAddr}, {web, db.id[:12], dbAddr},
		{db, "www", "10.99.0.77"}, {db, "web", "10.99.0.77"}, {db, "web-host", "10.99.0.77"},
		{other, "web", gw.Endpoints["front"].IPAddress.String()},
	} {
		got, _, err := c.from.lookup(c.name)
		if err != nil || !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s asks for %s: %v, %v; want %s", c.from.name, c.name, got, err, c.want)
		}
	}
	a, err := web.ask("tcp", dbAddr+":80", patience)
	wantReach(t, "within a network", a, err, "db")
	a, err = other.ask("tcp", dbAddr+":80", short)
	wantNoReach(t, "from another network", a, err)
	a, err = ask("tcp", dbAddr+":80", patience)
	wantReach(t, "from the host", a, err, "db")

	m.Rename(db.id, "store")
	if got, _, err := web.lookup("store"); err != nil || len(got) != 1 {
		t.Errorf("new name: %v, %v", got, err)
	}

	// static address: twice, and outside
	for addr, want := range map[string]string{"10.99.0.77": "Address already in use", "10.98.0.1": "no configured subnet"} {
		j := newBox(t, "dup").join()
		j.Endpoints["back"] = &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(addr)}}
		if _, err := m.Join(context.Background(), j); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("address %s: %v", addr, err)
		}
	}

	// unknown names go to the host's upstream, as resolv.conf is now
	up := outside(t, "upstream", "203.0.113.0/24", false)
	err = up.in(func() error {
		p, err := net.ListenPacket("udp4", "203.0.113.2:53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { p.Close() })
		go func() {
			buf := make([]byte, 512)
			for {
				n, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				buf[2] |= 0x80 // a response, NXDOMAIN
				buf[3] |= 3
				p.WriteTo(buf[:n], from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.ResolvConf, []byte("nameserver 203.0.113.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, rcode, err := web.lookup("nowhere.example"); err != nil || rcode != 3 {
		t.Errorf("forwarded name: %v, %v", rcode, err)
	}
}

func TestMasqueradeAndInternal(t *testing.T) {
	m := open(t, testConfig(t), nil)
	internet := outside(t, "internet", "198.51.100.0/24", false) // no route back to containers
	internet.serve(80)
	mustCreate(t, m, "open", network.CreateRequest{})
	mustCreate(t, m, "shut", network.CreateRequest{Internal: true})
	mustCreate(t, m, "plain", network.CreateRequest{Options: map[string]string{optMasq: "false"}})
	for _, c := range []struct {
		net   string
		reach bool
	}{{"bridge", true}, {"open", true}, {"shut", false}, {"plain", false}} {
		b := newBox(t, "c"+c.net)
		mustJoin(t, m, b.join(c.net))
		a, err := b.ask("tcp", "198.51.100.2:80", map[bool]time.Duration{true: patience, false: short}[c.reach])
		if !c.reach {
			wantNoReach(t, "out of "+c.net, a, err)
			continue
		}
		if peer := wantReach(t, "out of "+c.net, a, err, "internet"); peer != "198.51.100.1" {
			t.Errorf("server saw %s, want the host", peer)
		}
	}
}

func TestICCOff(t *testing.T) {
	m := open(t, testConfig(t), nil)
	mustCreate(t, m, "apart", network.CreateRequest{Options: map[string]string{optICC: "false"}})
	a, b := newBox(t, "a"), newBox(t, "b")
	ja := a.join("apart")
	ja.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18280")}
	ga := mustJoin(t, m, ja)
	mustJoin(t, m, b.join("apart"))
	a.serve(80)
	e := ga.Endpoints["apart"]
	got, err := b.ask("tcp", e.IPAddress.String()+":80", short)
	wantNoReach(t, "sibling", got, err)
	got, err = a.ask("tcp", e.Gateway.String()+":80", short)
	wantNoReach(t, "unpublished port of the host", got, err)
	got, err = ask("tcp", "127.0.0.1:18280", patience)
	wantReach(t, "published port from the host", got, err, "a")
}

func TestConnectAndDisconnectLive(t *testing.T) {
	m := open(t, testConfig(t), nil)
	mustCreate(t, m, "n1", network.CreateRequest{})
	a, b := newBox(t, "a"), newBox(t, "b")
	ja := a.join("bridge")
	ja.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18380")}
	mustJoin(t, m, ja)
	gb := mustJoin(t, m, b.join("n1"))
	a.serve(80)
	b.serve(80)
	bAddr := gb.Endpoints["n1"].IPAddress.String()
	got, err := a.ask("tcp", bAddr+":80", short)
	wantNoReach(t, "before connect", got, err)

	if _, err := m.Connect(context.Background(), a.join(), "n1"); err != nil {
		t.Fatal(err)
	}
	got, err = a.ask("tcp", bAddr+":80", patience)
	wantReach(t, "after connect", got, err, "b")
	if names, _, err := a.lookup("b"); err != nil || !slices.Equal(names, []string{bAddr}) {
		t.Errorf("name after connect: %v %v", names, err)
	}
	now := m.Current(a.id)
	if conf, hosts := now.ResolvConf, now.Hosts; !strings.Contains(string(conf), "127.0.0.11") || strings.Count(string(hosts), "a-host") != 2 {
		t.Errorf("files after connect: %s %s", conf, hosts)
	}
	if _, err := m.Connect(context.Background(), a.join(), "n1"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("second connect: %v", err)
	}
	// the published port follows the default route
	if err := m.Disconnect(context.Background(), a.id, "bridge"); err != nil {
		t.Fatal(err)
	}
	got, err = ask("tcp", "127.0.0.1:18380", patience)
	wantReach(t, "published port on the other network", got, err, "a")
	if err := m.Disconnect(context.Background(), a.id, "n1"); err != nil {
		t.Fatal(err)
	}
	got, err = a.ask("tcp", bAddr+":80", short)
	wantNoReach(t, "after disconnect", got, err)
	if err := m.Disconnect(context.Background(), a.id, "n1"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("second disconnect: %v", err)
	}
}

func TestNoneEndsWithTheFirstRealNetwork(t *testing.T) {
	m := open(t, testConfig(t), nil)
	mustCreate(t, m, "n1", network.CreateRequest{})
	a := newBox(t, "a")
	mustJoin(t, m, a.join("none"))
	if _, err := m.Connect(context.Background(), a.join(), "n1"); err != nil {
		t.Fatal(err)
	}
	if names, _, err := a.lookup("a"); err != nil || len(names) != 1 {
		t.Errorf("name after connect: %v %v", names, err)
	}
	if n, _ := m.Get("none"); len(n.Containers) != 0 {
		t.Errorf("still in none: %v", n.Containers)
	}
}

// A bridge whose only port went away and came back has to work at once, not when the kernel's link watch wakes up.
func TestFirstPacketAfterJoin(t *testing.T) {
	m := open(t, testConfig(t), nil)
	n, _ := m.Get("bridge")
	l, err := net.Listen("tcp4", n.IPAM.Config[0].Gateway.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 60 {
		b := newBox(t, "b")
		mustJoin(t, m, b.join("bridge"))
		start := time.Now()
		err := b.in(func() error {
			c, err := net.DialTimeout("tcp4", l.Addr().String(), patience)
			if err == nil {
				c.Close()
			}
			return err
		})
		if d := time.Since(start); err != nil || d > 900*time.Millisecond {
			t.Fatalf("first connection: %v after %v", err, d)
		}
		b.kill()
		if err := m.Leave(context.Background(), b.id); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoEnginesSideBySide(t *testing.T) {
	m1, m2 := open(t, testConfig(t), nil), open(t, testConfig(t), nil)
	n1, _ := m1.Get("bridge")
	n2, _ := m2.Get("bridge")
	if n1.IPAM.Config[0].Subnet.Overlaps(n2.IPAM.Config[0].Subnet) {
		t.Errorf("both have %v", n1.IPAM.Config[0].Subnet)
	}
	a, b := newBox(t, "a"), newBox(t, "b")
	ja := a.join("bridge")
	ja.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18480")}
	mustJoin(t, m1, ja)
	jb := b.join("bridge")
	jb.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18481")}
	gb := mustJoin(t, m2, jb)
	a.serve(80)
	b.serve(80)
	got, err := ask("tcp", "127.0.0.1:18480", patience)
	wantReach(t, "first engine", got, err, "a")
	got, err = ask("tcp", "127.0.0.1:18481", patience)
	wantReach(t, "second engine", got, err, "b")
	got, err = a.ask("tcp", gb.Endpoints["bridge"].IPAddress.String()+":80", short)
	wantNoReach(t, "between engines", got, err)
	got, err = a.ask("tcp", n1.IPAM.Config[0].Gateway.String()+":18481", patience)
	wantReach(t, "published port of the other engine", got, err, "b")
	if err := Destroy(m2.cfg.Instance, ""); err != nil {
		t.Fatal(err)
	}
	got, err = ask("tcp", "127.0.0.1:18480", patience)
	wantReach(t, "first engine after the second is gone", got, err, "a")
}

func TestCrash(t *testing.T) {
	cfg := testConfig(t)
	m := open(t, cfg, nil)
	mustCreate(t, m, "net", network.CreateRequest{Labels: map[string]string{"a": "b"}})
	alive, dead := newBox(t, "alive"), newBox(t, "dead")
	ja := alive.join("net")
	ja.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18580")}
	ga := mustJoin(t, m, ja)
	jd := dead.join("net")
	jd.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18581")}
	mustJoin(t, m, jd)
	alive.serve(80)
	deadLink := m.sandboxes[dead.id].endpoints[0].link
	conn, err := net.Dial("udp4", "127.0.0.1:18580")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	m.Close() // lets go of sockets as kill -9 does, and leaves all else
	n := open(t, cfg, map[string]int{alive.id: alive.pid})
	if linkExists(t, deadLink) {
		t.Error("the dead container's link is still there")
	}
	got, err := ask("tcp", "127.0.0.1:18580", patience)
	wantReach(t, "published port after restart", got, err, "alive")
	if _, err := net.Listen("tcp4", "0.0.0.0:18580"); err == nil {
		t.Error("the live container's port is free")
	}
	if l, err := net.Listen("tcp4", "0.0.0.0:18581"); err != nil {
		t.Errorf("the dead container's port is not free: %v", err)
	} else {
		l.Close()
	}
	if names, _, err := alive.lookup("alive"); err != nil || len(names) != 1 {
		t.Errorf("names after restart: %v %v", names, err)
	}
	in, err := n.Get("net")
	if err != nil || len(in.Containers) != 1 || in.Containers[alive.id].Name != "alive" || in.Labels["a"] != "b" {
		t.Errorf("network after restart: %+v, %v", in, err)
	}
	fresh := newBox(t, "fresh")
	gf := mustJoin(t, n, fresh.join("net"))
	if gf.Endpoints["net"].IPAddress == ga.Endpoints["net"].IPAddress {
		t.Error("the live container's address was given away")
	}
	if err := n.Leave(context.Background(), alive.id); err != nil {
		t.Fatal(err)
	}
	if err := n.Leave(context.Background(), fresh.id); err != nil {
		t.Fatal(err)
	}
	if err := n.Remove(context.Background(), "net"); err != nil {
		t.Fatal(err)
	}
	// a bridge whose record was lost is found by its mark
	id := mustCreate(t, n, "lost", network.CreateRequest{})
	if err := os.Remove(filepath.Join(cfg.Root, id+".json")); err != nil {
		t.Fatal(err)
	}
	n.Close()
	open(t, cfg, nil)
	if linkExists(t, "br-"+id[:12]) {
		t.Error("a bridge without record is still there")
	}
}

func TestTenThousandPorts(t *testing.T) {
	m := open(t, testConfig(t), nil)
	b := newBox(t, "rtp")
	j := b.join("bridge")
	j.Ports = network.PortMap{}
	for p := 20000; p < 30000; p++ {
		j.Ports[network.MustParsePort(fmt.Sprintf("%d/udp", p))] = publishOn("", fmt.Sprint(p))
	}
	start := time.Now()
	mustJoin(t, m, j)
	joined := time.Since(start)
	b.serve(29999)
	got, err := ask("udp", "127.0.0.1:29999", patience)
	wantReach(t, "the last port", got, err, "rtp")
	rules, err := exec.Command("nft", "list", "chain", "inet", tableName(m.cfg.Instance), "ports").CombinedOutput()
	if n := strings.Count(string(rules), "dnat"); err != nil || n != 2 {
		t.Errorf("%d rules, want 2 (%v): %s", n, err, rules)
	}
	start = time.Now()
	m.Leave(context.Background(), b.id)
	t.Logf("joined in %v, left in %v", joined, time.Since(start))
	if joined > 3*time.Second {
		t.Errorf("joining took %v", joined)
	}
}

func TestCreateListRemove(t *testing.T) {
	bus := &event.Bus{}
	events := bus.Subscribe()
	m, err := Open(context.Background(), testConfig(t), nil, bus)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx := context.Background()
	subnet := netip.MustParsePrefix("10.77.0.0/16")
	ipam := func(c network.IPAMConfig) *network.IPAM { return &network.IPAM{Config: []network.IPAMConfig{c}} }
	yes := true
	id := mustCreate(t, m, "mine", network.CreateRequest{Labels: map[string]string{"k": "v"}, Options: map[string]string{optName: "brmine", optMTU: "1400"},
		IPAM: ipam(network.IPAMConfig{Subnet: subnet, IPRange: netip.MustParsePrefix("10.77.5.0/24"), Gateway: netip.MustParseAddr("10.77.0.1"),
			AuxAddress: map[string]netip.Addr{"printer": netip.MustParseAddr("10.77.5.0")}})})
	if !linkExists(t, "brmine") {
		t.Error("no link with the wished name")
	}
	b := newBox(t, "b")
	got := mustJoin(t, m, b.join("mine"))
	if a := got.Endpoints["mine"].IPAddress.String(); a != "10.77.5.1" {
		t.Errorf("address %s, want the range's first that is not auxiliary", a)
	}
	b.in(func() error {
		l, err := rtnl.Links()
		if i := slices.IndexFunc(l, func(l rtnl.Link) bool { return l.Name == "eth0" }); err != nil || i < 0 || l[i].MTU != 1400 {
			t.Errorf("links %+v, want eth0 with MTU 1400", l)
		}
		return nil
	})
	for _, c := range []struct {
		what, name string
		req        network.CreateRequest
		class      func(error) bool
		text       string
	}{
		{"name taken", "mine", network.CreateRequest{}, errdefs.IsConflict, "network with name mine already exists"},
		{"predefined", "host", network.CreateRequest{}, errdefs.IsPermissionDenied, "operation is not permitted on predefined host network"},
		{"overlap", "o", network.CreateRequest{IPAM: ipam(network.IPAMConfig{Subnet: netip.MustParsePrefix("10.77.8.0/24")})}, errdefs.IsPermissionDenied,
			"Pool overlaps with other one on this address space"},
		{"overlap with the host", "o", network.CreateRequest{IPAM: ipam(network.IPAMConfig{Subnet: netip.MustParsePrefix("127.0.0.0/16")})}, errdefs.IsPermissionDenied,
			"Pool overlaps"},
		{"host bits", "o", network.CreateRequest{IPAM: ipam(network.IPAMConfig{Subnet: netip.MustParsePrefix("10.9.0.1/16")})}, errdefs.IsInvalidArgument, "it should be 10.9.0.0/16"},
		{"gateway", "o", network.CreateRequest{IPAM: ipam(network.IPAMConfig{Subnet: netip.MustParsePrefix("10.9.0.0/16"), Gateway: netip.MustParseAddr("10.8.0.1")})}, errdefs.IsInvalidArgument, "invalid gateway"},
		{"IPv6", "o", network.CreateRequest{EnableIPv6: &yes}, errdefs.IsNotImplemented, "IPv6"},
		{"driver", "o", network.CreateRequest{Driver: "foo"}, errdefs.IsNotFound, `plugin "foo" not found`},
		{"macvlan", "o", network.CreateRequest{Driver: "macvlan"}, errdefs.IsNotImplemented, "macvlan"},
		{"option", "o", network.CreateRequest{Options: map[string]string{"x": "y"}}, errdefs.IsInvalidArgument, `no option "x"`},
		{"link exists", "o", network.CreateRequest{Options: map[string]string{optName: "lo"}}, errdefs.IsConflict, "exists already"},
	} {
		if _, _, err := m.Create(ctx, c.name, c.req); err == nil || !c.class(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if n, err := m.Get(id[:8]); err != nil || n.Name != "mine" || n.Containers[b.id].IPv4Address.String() != "10.77.5.1/16" {
		t.Errorf("Get by prefix: %+v %v", n, err)
	}
	for _, c := range []struct {
		f    filter.Args
		want string
	}{
		{nil, "bridge host mine none"}, {filter.Args{"driver": {"null"}}, "none"}, {filter.Args{"label": {"k=v"}}, "mine"},
		{filter.Args{"type": {"custom"}}, "mine"}, {filter.Args{"name": {"^m"}}, "mine"}, {filter.Args{"id": {id[:5]}}, "mine"},
		{filter.Args{"dangling": {"true"}}, ""}, {filter.Args{"dangling": {"false"}}, "bridge host mine none"},
	} {
		list, err := m.List(c.f)
		var names []string
		for _, n := range list {
			names = append(names, n.Name)
		}
		if err != nil || strings.Join(names, " ") != c.want {
			t.Errorf("List(%v) = %v, %v; want %s", c.f, names, err, c.want)
		}
	}
	if err := m.Remove(ctx, "mine"); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("remove in use: %v", err)
	}
	if err := m.Remove(ctx, "bridge"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("remove bridge: %v", err)
	}
	m.Leave(ctx, b.id)
	mustCreate(t, m, "used", network.CreateRequest{})
	if gone, err := m.Prune(ctx, nil, map[string]bool{"used": true}); err != nil || !slices.Equal(gone, []string{"mine"}) {
		t.Errorf("Prune = %v, %v", gone, err)
	}
	if linkExists(t, "brmine") {
		t.Error("the pruned network's link is still there")
	}
	var seen []string
	for len(events.C) > 0 {
		e := <-events.C
		seen = append(seen, e.Action+" "+e.Attributes["name"])
	}
	if want := []string{"create mine", "connect mine", "disconnect mine", "create used", "destroy mine", "prune "}; !slices.Equal(seen, want) {
		t.Errorf("events %q, want %q", seen, want)
	}
}

func TestHostAndNone(t *testing.T) {
	m := open(t, testConfig(t), nil)
	for _, n := range []string{"host", "none"} {
		b := newBox(t, "in-"+n)
		got := mustJoin(t, m, b.join(n))
		if in, _ := m.Get(n); len(in.Containers) != 1 || !strings.Contains(string(got.ResolvConf), "192.0.2.53") || len(got.Hosts) == 0 {
			t.Errorf("%s: %+v %q", n, in, got.ResolvConf)
		}
	}
	if _, err := m.Join(context.Background(), newBox(t, "x").join("host", "bridge")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("host and bridge: %v", err)
	}
}

func TestUndoneWhenJoinFails(t *testing.T) {
	m := open(t, testConfig(t), nil)
	b := newBox(t, "b")
	b.kill()
	j := b.join("bridge")
	j.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18680")}
	if _, err := m.Join(context.Background(), j); err == nil {
		t.Fatal("joined a dead process")
	}
	if l, err := net.Listen("tcp4", "0.0.0.0:18680"); err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		l.Close()
	}
	if n, _ := m.Get("bridge"); len(n.Containers) != 0 {
		t.Errorf("endpoints left: %v", n.Containers)
	}
	if _, err := os.Stat(m.sandboxPath(b.id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("record left: %v", err)
	}
}

func BenchmarkPrepareJoinLeave(b *testing.B) {
	for _, c := range []struct {
		name, net string
		ports     network.PortMap
	}{
		{"bridge", "bridge", nil},
		{"user", "user", nil},
		{"port", "bridge", network.PortMap{network.MustParsePort("80"): publishOn("", "")}},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := open(b, testConfig(b), nil)
			mustCreate(b, m, "user", network.CreateRequest{})
			var prepare, join, leave time.Duration
			for b.Loop() {
				b.StopTimer()
				x := newBox(b, "x")
				j := x.join(c.net)
				j.Ports = c.ports
				b.StartTimer()
				t0 := time.Now()
				if _, err := m.Prepare(context.Background(), j); err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				if _, err := m.Join(context.Background(), j); err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				m.Leave(context.Background(), j.Container)
				t3 := time.Now()
				b.StopTimer()
				x.kill()
				m.wiring.cleanup.Wait()
				b.StartTimer()
				prepare, join, leave = prepare+t1.Sub(t0), join+t2.Sub(t1), leave+t3.Sub(t2)
			}
			n := float64(b.N)
			b.ReportMetric(float64(prepare.Microseconds())/n, "prepare-µs")
			b.ReportMetric(float64(join.Microseconds())/n, "join-µs")
			b.ReportMetric(float64(leave.Microseconds())/n, "leave-µs")
		})
	}
}
