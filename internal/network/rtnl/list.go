package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is what the host has.
type Link struct {
	Name   string
	Index  int
	Master int
	Kind   string // bridge, veth, …
	Alias  string
	MTU    int
	Up     bool
}

// Links lists the links of the calling thread's namespace.
func Links() ([]Link, error) {
	list, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("cannot list links: %w", err)
	}
	out := make([]Link, 0, len(list))
	for _, l := range list {
		a := l.Attrs()
		out = append(out, Link{Name: a.Name, Index: a.Index, Master: a.MasterIndex, Kind: l.Type(), Alias: a.Alias, MTU: a.MTU,
			Up: a.RawFlags&unix.IFF_UP != 0})
	}
	return out, nil
}

// tries bounds how often a list is asked for that others change meanwhile.
const tries = 200

// whole lists again while the kernel says that the list changed under it, as it does beside other engines at work.
func whole[T any](list func() ([]T, error)) (out []T, err error) {
	for range tries {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// Used is a range of addresses that a link of this host has or routes to.
type Used struct {
	Prefix netip.Prefix
	Link   int  // index, 0 if none
	Local  bool // the link has an address in it
}

// UsedPrefixes lists the host's IPv4 addresses and routes (all tables), less default routes.
func UsedPrefixes() ([]Used, error) {
	var out []Used
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("cannot list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefix(a.IP, a.Mask); ok {
			out = append(out, Used{Prefix: p.Masked(), Link: a.LinkIndex, Local: true})
		}
	}
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, ok := prefix(r.Dst.IP, r.Dst.Mask); ok && p.Bits() > 0 {
			out = append(out, Used{Prefix: p.Masked(), Link: r.LinkIndex})
		}
	}
	return out, nil
}

// Addrs lists the addresses of a link with their subnets' lengths, IPv4 first.
func Addrs(index int) ([]netip.Prefix, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, err
	}
	list, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range list {
		if p, ok := prefix(a.IP, a.Mask); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// DefaultMTU is the MTU of the default route's link, 0 if there is no such route.
func DefaultMTU() int {
	if links := uplinks(); len(links) > 0 {
		return links[0].Attrs().MTU
	}
	return 0
}

// Uplinks are the names of the links that default routes leave by.
func Uplinks() []string {
	var names []string
	for _, l := range uplinks() {
		if !slices.Contains(names, l.Attrs().Name) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

func uplinks() []netlink.Link {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil
	}
	var links []netlink.Link
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			links = append(links, l)
		}
	}
	return links
}

// ForgetFlows drops tracked UDP connections to or from an address or a local port set, so that the next
// packet meets the rules as they are now. It reports what the kernel said; the caller can go on without.
func ForgetFlows(addrs map[netip.Addr]bool, ports map[uint16]bool) error {
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flowFilter{addrs, ports})
	return err
}

type flowFilter struct {
	addrs map[netip.Addr]bool
	ports map[uint16]bool
}

func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	if a, ok := netip.AddrFromSlice(flow.Reverse.SrcIP); ok && f.addrs[a.Unmap()] {
		return true
	}
	return f.ports[flow.Forward.DstPort]
}

func prefix(ip []byte, mask []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || !a.Unmap().Is4() || len(mask) < 4 {
		return netip.Prefix{}, false
	}
	mask = mask[len(mask)-4:]
	bits := 0
	for _, m := range mask {
		for ; m&0x80 != 0; m <<= 1 {
			bits++
		}
	}
	return netip.PrefixFrom(a.Unmap(), bits), true
}
