// Package rtnl speaks route netlink (rtnetlink(7)): links, addresses and routes.
//
//	batch    requests that travel to the kernel in one system call, each answered by one acknowledgement
//	conn     a socket, bound for ever to the network namespace of the thread that opened it
//
// The kernel works a request off inside sendmsg, so a batch is one system call that does all and a few
// that pick up answers which are already there. A veth whose peer is born in
// its namespace, with master, MTU and hardware address in the same request, takes under a millisecond;
// created here and moved there it takes twenty.
package rtnl

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Batch collects requests. The zero value is ready to use; it may be sent once.
type Batch struct {
	buf    []byte
	start  int      // of the request being built
	titles []string // what each request does, for its error
	// gone tells of requests that delete what others delete as well: the kernel takes a veth away with its namespace.
	gone map[int]bool
}

// Len is the number of requests.
func (b *Batch) Len() int { return len(b.titles) }

func (b *Batch) begin(title string, kind uint16, flags uint16) {
	b.start = len(b.buf)
	b.titles = append(b.titles, title)
	b.buf = append(b.buf, make([]byte, unix.SizeofNlMsghdr)...)
	h := b.buf[b.start:]
	binary.NativeEndian.PutUint16(h[4:], kind)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(h[8:], uint32(len(b.titles)))
}

func (b *Batch) end() {
	binary.NativeEndian.PutUint32(b.buf[b.start:], uint32(len(b.buf)-b.start))
}

// link appends a struct ifinfomsg.
func (b *Batch) link(family uint8, index int, flags, change uint32) {
	var m [unix.SizeofIfInfomsg]byte
	m[0] = family
	binary.NativeEndian.PutUint32(m[4:], uint32(index))
	binary.NativeEndian.PutUint32(m[8:], flags)
	binary.NativeEndian.PutUint32(m[12:], change)
	b.buf = append(b.buf, m[:]...)
}

func (b *Batch) attr(kind uint16, value []byte) {
	n := unix.SizeofRtAttr + len(value)
	var h [unix.SizeofRtAttr]byte
	binary.NativeEndian.PutUint16(h[0:], uint16(n))
	binary.NativeEndian.PutUint16(h[2:], kind)
	b.buf = append(b.buf, h[:]...)
	b.buf = append(b.buf, value...)
	for ; n%4 != 0; n++ {
		b.buf = append(b.buf, 0)
	}
}

func (b *Batch) text(kind uint16, s string) { b.attr(kind, append([]byte(s), 0)) }

func (b *Batch) u32(kind uint16, v uint32) {
	b.attr(kind, binary.NativeEndian.AppendUint32(nil, v))
}

// nest opens a nested attribute; the result closes it.
func (b *Batch) nest(kind uint16) (closeNest func()) {
	at := len(b.buf)
	b.attr(kind, nil)
	return func() { binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at)) }
}

// Veth describes a pair: one end here in a bridge, the other in a sandbox.
type Veth struct {
	Name     string // here
	Master   int    // index of the bridge
	PeerName string
	PeerMAC  net.HardwareAddr
	PeerNS   int // fd of the sandbox's network namespace
	MTU      int
}

// AddVeth makes the pair. This end is up, the other one down, so that it can be configured first.
func (b *Batch) AddVeth(v Veth) {
	b.begin("add veth "+v.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.link(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP)
	b.text(unix.IFLA_IFNAME, v.Name)
	b.u32(unix.IFLA_MTU, uint32(v.MTU))
	b.u32(unix.IFLA_MASTER, uint32(v.Master))
	closeInfo := b.nest(unix.IFLA_LINKINFO)
	b.text(unix.IFLA_INFO_KIND, "veth")
	closeData := b.nest(unix.IFLA_INFO_DATA)
	closePeer := b.nest(1) // VETH_INFO_PEER
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.text(unix.IFLA_IFNAME, v.PeerName)
	b.u32(unix.IFLA_MTU, uint32(v.MTU))
	b.attr(unix.IFLA_ADDRESS, v.PeerMAC)
	b.u32(unix.IFLA_NET_NS_FD, uint32(v.PeerNS))
	closePeer()
	closeData()
	closeInfo()
	b.end()
}

// AddBridge makes a bridge that forwards at once and never learns of others by STP.
func (b *Batch) AddBridge(name, alias string, mac net.HardwareAddr, mtu int) {
	b.begin("add bridge "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.text(unix.IFLA_IFNAME, name)
	b.attr(unix.IFLA_ADDRESS, mac)
	if mtu > 0 {
		b.u32(unix.IFLA_MTU, uint32(mtu))
	}
	closeInfo := b.nest(unix.IFLA_LINKINFO)
	b.text(unix.IFLA_INFO_KIND, "bridge")
	closeInfo()
	b.end()
	b.SetAlias(name, alias)
}

// SetAlias marks a link.
func (b *Batch) SetAlias(name, alias string) {
	b.begin("mark link "+name, unix.RTM_NEWLINK, 0)
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.text(unix.IFLA_IFNAME, name)
	b.text(unix.IFLA_IFALIAS, alias)
	b.end()
}

// SetUp brings a link up, by name.
func (b *Batch) SetUp(name string) {
	b.begin("set link "+name+" up", unix.RTM_NEWLINK, 0)
	b.link(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP)
	b.text(unix.IFLA_IFNAME, name)
	b.end()
}

// Settle makes the kernel act on a change of the link's carrier now (rtnl_getlink does so since Linux 6.9). Left to
// itself it may take a second, in which a bridge that just got its first port drops all.
func (b *Batch) Settle(index int) {
	b.begin("settle link", unix.RTM_GETLINK, 0)
	b.link(unix.AF_UNSPEC, index, 0, 0)
	b.u32(unix.IFLA_EXT_MASK, 1<<3) // RTEXT_FILTER_SKIP_STATS
	b.end()
}

// SetMaster puts a link into a bridge.
func (b *Batch) SetMaster(name string, master int) {
	b.begin("put link "+name+" into its bridge", unix.RTM_NEWLINK, 0)
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.text(unix.IFLA_IFNAME, name)
	b.u32(unix.IFLA_MASTER, uint32(master))
	b.end()
}

// DelLink deletes a link (and a veth's other end). One that is gone is no error.
func (b *Batch) DelLink(name string) {
	b.begin("delete link "+name, unix.RTM_DELLINK, 0)
	if b.gone == nil {
		b.gone = map[int]bool{}
	}
	b.gone[len(b.titles)] = true
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.text(unix.IFLA_IFNAME, name)
	b.end()
}

// bridge port states and attributes, linux/if_link.h and if_bridge.h
const (
	brportState    = 1
	brportMode     = 4 // hairpin
	brportFlush    = 17
	brportIsolated = 33
	stateDisabled  = 0
)

// port changes one bridge port.
func (b *Batch) port(title string, index int, attrs func()) {
	b.begin(title, unix.RTM_SETLINK, 0)
	b.link(unix.AF_BRIDGE, index, 0, 0)
	closePort := b.nest(unix.IFLA_PROTINFO | unix.NLA_F_NESTED)
	attrs()
	closePort()
	b.end()
}

// Silence stops a bridge port without waiting, as deleting it would, and makes the bridge forget the hardware
// addresses it has seen there.
func (b *Batch) Silence(index int) {
	b.port("silence bridge port", index, func() {
		b.attr(brportState, []byte{stateDisabled})
		b.attr(brportFlush, nil)
	})
}

// Isolate forbids a port to talk to other isolated ports of its bridge.
func (b *Batch) Isolate(index int) {
	b.port("isolate bridge port", index, func() { b.attr(brportIsolated, []byte{1}) })
}

// Hairpin lets a port send to itself. Where bridged packets pass the firewall (br_netfilter), one that is
// redirected to its sender is bridged, not routed.
func (b *Batch) Hairpin(index int) {
	b.port("let bridge port send to itself", index, func() { b.attr(brportMode, []byte{1}) })
}

// AddAddr gives a link an address with its subnet's length.
func (b *Batch) AddAddr(index int, p netip.Prefix) {
	b.begin("add address "+p.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	family := byte(unix.AF_INET)
	var flags byte
	if p.Addr().Is6() {
		family, flags = unix.AF_INET6, unix.IFA_F_NODAD
	}
	var m [unix.SizeofIfAddrmsg]byte
	m[0], m[1], m[2] = family, byte(p.Bits()), flags
	binary.NativeEndian.PutUint32(m[4:], uint32(index))
	b.buf = append(b.buf, m[:]...)
	b.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	b.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is4() && p.Bits() < 31 {
		b.attr(unix.IFA_BROADCAST, lastAddr(p).AsSlice())
	}
	b.end()
}

// Gateway adds or replaces the default route.
func (b *Batch) Gateway(index int, via netip.Addr) {
	b.begin("add default route via "+via.String(), unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	b.route(via, unix.RT_SCOPE_UNIVERSE)
	b.attr(unix.RTA_GATEWAY, via.AsSlice())
	b.u32(unix.RTA_OIF, uint32(index))
	b.end()
}

// DelGateway removes the default route via an address.
func (b *Batch) DelGateway(index int, via netip.Addr) {
	b.begin("delete default route via "+via.String(), unix.RTM_DELROUTE, 0)
	b.route(via, unix.RT_SCOPE_UNIVERSE)
	b.attr(unix.RTA_GATEWAY, via.AsSlice())
	b.u32(unix.RTA_OIF, uint32(index))
	b.end()
}

func (b *Batch) route(a netip.Addr, scope byte) {
	var m [unix.SizeofRtMsg]byte
	m[0] = unix.AF_INET
	if a.Is6() {
		m[0] = unix.AF_INET6
	}
	m[4], m[5], m[6], m[7] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST
	b.buf = append(b.buf, m[:]...)
}

// lastAddr is the subnet's highest address, IPv4's broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().AsSlice()
	for i := p.Bits(); i < len(a)*8; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	out, _ := netip.AddrFromSlice(a)
	return out
}
