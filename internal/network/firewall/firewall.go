// Package firewall keeps one nftables table for one engine, over netlink and without any program.
//
//	publish   a host port that leads to a container's port
//	network   a bridge and its subnet, as far as packets are concerned
//
// The rules are few and fixed; networks and published ports are elements of sets and maps:
//
//	prerouting  to a local address? → ports: look up {address, protocol, port}, then {protocol, port}; dnat
//	output      the same for what the host itself sends
//	raw         from our bridges to 127/8: drop (CVE-2020-8558; replies still carry the bridge's own address here)
//	forward     within one bridge: accept · from or to an internal network: drop ·
//	            to our bridges: replies and published ports accept, the rest drop
//	            accepted, or to the outside: marked for Beside
//	postrouting from a subnet to the outside: masquerade · to a published port from a subnet or from 127/8: masquerade
//
// Redirect is apart: a table of one rule in a container's namespace.
//
// Nothing here touches a table that is not ours, but for one rule in the chain that Docker leaves to others (Beside).
// Other rules still apply after ours: an accept ends only our own chain.
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Network is what the rules know of a network.
type Network struct {
	Bridge   string
	Subnets  []netip.Prefix // IPv4
	Masq     bool           // hide addresses behind the host's when packets leave
	Internal bool           // no way in or out
}

// Publish is one published port. It is comparable.
type Publish struct {
	HostIP netip.Addr // unspecified: every local address
	Proto  uint8      // IPPROTO_TCP, …
	Port   uint16
	To     netip.AddrPort
}

// Table is one engine's nftables table. Safe for concurrent use; every change is one netlink batch, all or nothing.
type Table struct {
	mu    sync.Mutex // one batch at a time
	conn  *nftables.Conn
	table *nftables.Table
	watch *netlink.Conn // nil before Beside and after Close

	uplinkNames []string

	bridges, same, internal, uplinks, nets, masq, ports, addrPorts *nftables.Set
}

// element lists are attributes of at most 64 KiB
const chunk = 1000

// a batch goes to the kernel as one message: 32 MiB are some 500,000 ports
const batchSize = 32 << 20

// Open prepares the table called name in the network namespace of the calling thread. Nothing is written before Reset.
// Uplinks are the links that lead out of the host; the kernel tells those that are no bridges.
func Open(name string, uplinks ...string) (*Table, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(batchSize), c.SetReadBuffer(batchSize))
	}))
	if err != nil {
		return nil, fmt.Errorf("cannot open nftables: %w", err)
	}
	t := &Table{conn: conn, uplinkNames: uplinks, table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}}
	key := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	addrKey := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	t.bridges = &nftables.Set{Table: t.table, Name: "bridges", KeyType: nftables.TypeIFName}
	t.uplinks = &nftables.Set{Table: t.table, Name: "uplinks", KeyType: nftables.TypeIFName}
	t.internal = &nftables.Set{Table: t.table, Name: "internal", KeyType: nftables.TypeIFName}
	t.same = &nftables.Set{Table: t.table, Name: "same", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)}
	t.nets = &nftables.Set{Table: t.table, Name: "nets", KeyType: nftables.TypeIPAddr, Interval: true}
	t.masq = &nftables.Set{Table: t.table, Name: "masquerade", KeyType: nftables.TypeIPAddr, Interval: true}
	t.ports = &nftables.Set{Table: t.table, Name: "ports", IsMap: true, Concatenation: true, KeyType: key, DataType: target}
	t.addrPorts = &nftables.Set{Table: t.table, Name: "address_ports", IsMap: true, Concatenation: true, KeyType: addrKey, DataType: target}
	return t, nil
}

// Close lets go of the socket; the rules stay.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.watch != nil {
		err = t.watch.Close()
		t.watch = nil
	}
	return errors.Join(err, t.conn.CloseLasting())
}

// Reset replaces the table's content in one transaction. Tracked connections keep their translation.
func (t *Table) Reset(networks []Network, ports []Publish) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn.AddTable(t.table) // so that the deletion finds one
	t.conn.DelTable(t.table)
	t.conn.AddTable(t.table)
	for _, s := range []*nftables.Set{t.bridges, t.internal, t.uplinks, t.same, t.nets, t.masq, t.ports, t.addrPorts} {
		if err := t.conn.AddSet(s, nil); err != nil {
			return fmt.Errorf("cannot declare nft set %s: %w", s.Name, err)
		}
	}
	for _, name := range t.uplinkNames {
		if err := t.conn.SetAddElements(t.uplinks, []nftables.SetElement{{Key: ifname(name)}}); err != nil {
			return fmt.Errorf("cannot encode nft elements: %w", err)
		}
	}
	t.rules()
	for _, n := range networks {
		if err := t.network(n, t.conn.SetAddElements); err != nil {
			return err
		}
	}
	if err := t.publish(ports, t.conn.SetAddElements); err != nil {
		return err
	}
	return t.flush("write nft table")
}

// AddNetwork lets the rules know a network.
func (t *Table) AddNetwork(n Network) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.network(n, t.conn.SetAddElements); err != nil {
		return err
	}
	return t.flush("add network to nft table")
}

// RemoveNetwork takes the network away as it was added.
func (t *Table) RemoveNetwork(n Network) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.network(n, t.conn.SetDeleteElements); err != nil {
		return err
	}
	return t.flush("remove network from nft table")
}

// AddPorts publishes ports, RemovePorts takes exactly those away.
func (t *Table) AddPorts(ports []Publish) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.publish(ports, t.conn.SetAddElements); err != nil {
		return err
	}
	return t.flush("publish ports in nft table")
}

// RemovePorts withdraws published ports.
func (t *Table) RemovePorts(ports []Publish) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.publish(ports, t.conn.SetDeleteElements); err != nil {
		return err
	}
	return t.flush("withdraw ports from nft table")
}

// Delete removes the table, and what Beside wrote; a missing one is no error.
func (t *Table) Delete() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.dismiss(); err != nil {
		return err
	}
	t.conn.AddTable(t.table)
	t.conn.DelTable(t.table)
	return t.flush("delete nft table")
}

func (t *Table) flush(what string) error {
	if err := t.conn.Flush(); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cannot %s %s: somebody else changed it: %w", what, t.table.Name, err)
		}
		return fmt.Errorf("cannot %s %s: %w", what, t.table.Name, err)
	}
	return nil
}

type change func(*nftables.Set, []nftables.SetElement) error

func (t *Table) network(n Network, do change) error {
	name := ifname(n.Bridge)
	err := errors.Join(
		do(t.bridges, []nftables.SetElement{{Key: name}}),
		do(t.same, []nftables.SetElement{{Key: append(ifname(n.Bridge), name...)}}))
	if n.Internal {
		err = errors.Join(err, do(t.internal, []nftables.SetElement{{Key: name}}))
	}
	for _, p := range n.Subnets {
		span := []nftables.SetElement{{Key: p.Masked().Addr().AsSlice()}, {Key: after(p).AsSlice(), IntervalEnd: true}}
		err = errors.Join(err, do(t.nets, span))
		if n.Masq && !n.Internal {
			err = errors.Join(err, do(t.masq, span))
		}
	}
	return err
}

func (t *Table) publish(ports []Publish, do change) error {
	var all, some []nftables.SetElement
	for _, p := range ports {
		key := append([]byte{p.Proto, 0, 0, 0}, port(p.Port)...)
		value := append(p.To.Addr().AsSlice(), port(p.To.Port())...)
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			some = append(some, nftables.SetElement{Key: append(p.HostIP.AsSlice(), key...), Val: value})
		} else {
			all = append(all, nftables.SetElement{Key: key, Val: value})
		}
	}
	for _, s := range []struct {
		set  *nftables.Set
		list []nftables.SetElement
	}{{t.ports, all}, {t.addrPorts, some}} {
		for list := s.list; len(list) > 0; {
			n := min(chunk, len(list))
			if err := do(s.set, list[:n]); err != nil {
				return fmt.Errorf("cannot encode nft elements: %w", err)
			}
			list = list[n:]
		}
	}
	return nil
}

// ifname is a name as the kernel compares it, padded with zeros.
func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

// port is a port as part of a concatenation: network order, padded to a register.
func port(p uint16) []byte { return append(binaryutil.BigEndian.PutUint16(p), 0, 0) }

// after is the first address behind a subnet.
func after(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a).Next()
}

func (t *Table) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio nftables.ChainPriority) *nftables.Chain {
	return t.conn.AddChain(&nftables.Chain{Name: name, Table: t.table, Type: kind, Hooknum: hook, Priority: &prio})
}

func (t *Table) rule(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: c, Exprs: all})
}

// The registers: 1 is a whole one (and the 32-bit registers 8 to 11 are its parts), 2 the next.
const (
	reg1  = unix.NFT_REG_1
	reg2  = unix.NFT_REG_2
	reg01 = unix.NFT_REG32_01
	reg02 = unix.NFT_REG32_02
)

func (t *Table) rules() {
	ports := t.conn.AddChain(&nftables.Chain{Name: "ports", Table: t.table})
	pre := t.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	out := t.chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest)
	raw := t.chain("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	// one before everybody else's filters, which may ask for the mark
	forward := t.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter-1)
	post := t.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)

	dnat := []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg01}}
	t.rule(ports, ip4(), daddr(), l4proto(reg01), dport(reg02), lookUp(t.addrPorts), dnat)
	t.rule(ports, ip4(), l4proto(reg1), dport(reg01), lookUp(t.ports), dnat)

	jump := []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: ports.Name}}
	t.rule(pre, toLocal(), jump)
	t.rule(out, toLocal(), jump)

	t.rule(raw, in(t.bridges), ip4(), firstByte(daddrOffset, 127), verdict(expr.VerdictDrop))

	t.rule(forward, inOut(t.same), pass())
	t.rule(forward, in(t.internal), verdict(expr.VerdictDrop))
	t.rule(forward, outTo(t.internal, false), verdict(expr.VerdictDrop))
	t.rule(forward, outTo(t.bridges, false), ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), pass())
	t.rule(forward, outTo(t.bridges, false), translated(), pass())
	t.rule(forward, outTo(t.bridges, false), verdict(expr.VerdictDrop))
	t.rule(forward, in(t.bridges), toNoBridge(), pass())
	t.rule(forward, in(t.bridges), outTo(t.uplinks, false), pass())

	masquerade := []expr.Any{&expr.Masq{}}
	t.rule(post, outTo(t.bridges, true), ip4(), saddrIn(t.masq), masquerade)
	t.rule(post, outTo(t.bridges, false), translated(), ip4(), saddrIn(t.nets), masquerade)
	t.rule(post, outTo(t.bridges, false), translated(), ip4(), firstByte(saddrOffset, 127), masquerade)
}

// offsets in the IPv4 header
const (
	saddrOffset = 12
	daddrOffset = 16
)

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func ip4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

func toLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func daddr() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: daddrOffset, Len: 4}}
}

func l4proto(reg uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}
}

func dport(reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

func lookUp(m *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}}
}

func firstByte(offset uint32, b byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{b}},
	}
}

func saddrIn(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: saddrOffset, Len: 4},
		&expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID},
	}
}

func in(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
		&expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID},
	}
}

func outTo(s *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg1},
		&expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID, Invert: invert},
	}
}

func inOut(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg2},
		&expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID},
	}
}

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

// translated matches connections whose destination was rewritten (IPS_DST_NAT).
func translated() []expr.Any { return ctBits(expr.CtKeySTATUS, 1<<5) }
