package network

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
)

// dockerRules writes what a Docker engine has on a host where it turned forwarding on: a FORWARD chain that drops, and the
// chain for the administrator with one rule of theirs.
func dockerRules(t *testing.T) (read func() []string) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	drop := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	user := c.AddChain(&nftables.Chain{Name: "DOCKER-USER", Table: table})
	forward := c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: user.Name}}})
	c.AddRule(&nftables.Rule{Table: table, Chain: user, UserData: userdata.AppendString(nil, userdata.TypeComment, "theirs"), Exprs: []expr.Any{&expr.Counter{}}})
	c.AddRule(&nftables.Rule{Table: table, Chain: user, UserData: userdata.AppendString(nil, userdata.TypeComment, "return"),
		Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictReturn}}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	})
	return func() (list []string) {
		rules, err := c.GetRules(table, user)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			list = append(list, comment)
		}
		return list
	}
}

func TestBesideDocker(t *testing.T) {
	for _, order := range []string{"docker first", "docker later"} {
		t.Run(order, func(t *testing.T) {
			var read func() []string
			if order == "docker first" {
				read = dockerRules(t)
			}
			far := outside(t, "far", "198.51.100.0/24", false)
			defaultRoute(t, "198.51.100.2")
			m := open(t, testConfig(t), nil)
			mustCreate(t, m, "net", network.CreateRequest{})
			a, b := newBox(t, "a"), newBox(t, "b")
			ja := a.join("net")
			ja.Ports = network.PortMap{network.MustParsePort("80"): publishOn("", "18680")}
			ga := mustJoin(t, m, ja)
			mustJoin(t, m, b.join("bridge"))
			a.serve(80)
			far.serve(80)
			if order == "docker later" {
				read = dockerRules(t)
			}
			want := []string{"theirs", tableName(m.cfg.Instance), "return"}
			for deadline := time.Now().Add(5 * time.Second); !slices.Equal(read(), want); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("DOCKER-USER has %q, want %q", read(), want)
				}
			}
			got, err := a.ask("tcp", "198.51.100.2:80", patience)
			wantReach(t, "outside", got, err, "far")
			got, err = far.ask("tcp", "198.51.100.1:18680", patience)
			wantReach(t, "published port from outside", got, err, "a")
			got, err = b.ask("tcp", ga.Endpoints["net"].IPAddress.String()+":80", short)
			wantNoReach(t, "another network", got, err)
			for _, box := range []*box{a, b} {
				if err := m.Leave(t.Context(), box.id); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if got := read(); !slices.Equal(got, []string{"theirs", "return"}) {
				t.Errorf("after the end DOCKER-USER has %q", got)
			}
		})
	}
}

// defaultRoute lets the host's packets leave by way of a neighbour.
func defaultRoute(t *testing.T, via string) {
	t.Helper()
	r := &netlink.Route{Gw: net.ParseIP(via)}
	if err := netlink.RouteAdd(r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.RouteDel(r) })
}
