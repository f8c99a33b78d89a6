package network

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/trace"
)

// Prepare computes what can be known before the namespaces exist, so that it can run beside the runtime's
// create: addresses and host ports are allocated and held, files' contents computed. On error nothing is held. What
// was prepared is given back by Leave, joined or not.
func (m *Manager) Prepare(ctx context.Context, j Join) (*Joined, error) {
	trace.Step(ctx, "network", "prepare", "container", j.Container)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b := &sandbox{join: j}
	if err := m.allocate(b); err != nil {
		return nil, err
	}
	undo := func(err error) (*Joined, error) {
		m.leave(b, false)
		return nil, err
	}
	if err := m.ports.bind(b); err != nil {
		return undo(err)
	}
	if err := m.writeSandbox(b); err != nil {
		return undo(fmt.Errorf("cannot record sandbox of container %s: %w", j.Name, err))
	}
	if err := m.ports.publishPorts(b.gatewayEndpoint(), b.bindings); err != nil {
		return undo(err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.result(b), nil
}

// allocate registers the sandbox with its endpoints and addresses.
func (m *Manager) allocate(b *sandbox) error {
	j := b.join
	if len(j.Container) < ids.ShortLen {
		return fault.Invalid("container id %q is too short", j.Container)
	}
	if _, err := m.etc.extraHosts(j); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fault.Unavailable("the network manager is closed")
	}
	if m.sandboxes[j.Container] != nil {
		return fault.Conflict("container %s is on its networks already", j.Name)
	}
	type wish struct {
		seg      *segment
		settings *network.EndpointSettings
	}
	var wishes []wish
	for _, ref := range slices.Sorted(maps.Keys(j.Endpoints)) {
		s, err := m.find(ref)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(wishes, func(w wish) bool { return w.seg == s }) {
			return fault.Invalid("container %s names network %s twice", j.Name, s.Name)
		}
		wishes = append(wishes, wish{s, j.Endpoints[ref]})
	}
	if len(wishes) > 1 {
		for _, w := range wishes {
			if w.seg.Driver != driverBridge {
				return fault.Invalid("container cannot be connected to multiple networks with one of the networks in [%s] mode", w.seg.Name)
			}
		}
	}
	slices.SortFunc(wishes, func(x, y wish) int { return strings.Compare(x.seg.Name, y.seg.Name) })
	for _, w := range wishes {
		e, err := m.newEndpoint(b, w.seg, w.settings)
		if err != nil {
			for _, e := range b.endpoints {
				e.release()
			}
			return err
		}
		b.endpoints = append(b.endpoints, e)
	}
	for _, e := range b.endpoints {
		e.seg.endpoints[j.Container] = e
	}
	m.sandboxes[j.Container] = b
	return nil
}

// newEndpoint checks a wish and takes its address. registry.mu is held.
func (m *Manager) newEndpoint(b *sandbox, s *segment, want *network.EndpointSettings) (*endpoint, error) {
	if want == nil {
		want = &network.EndpointSettings{}
	}
	e := &endpoint{seg: s, box: b, settings: want.Copy()}
	set := e.settings
	set.NetworkID, set.EndpointID = s.ID, ids.New()
	set.Gateway, set.IPAddress, set.IPPrefixLen = netip.Addr{}, netip.Addr{}, 0
	set.IPv6Gateway, set.GlobalIPv6Address, set.GlobalIPv6PrefixLen = netip.Addr{}, netip.Addr{}, 0
	set.DNSNames = nil
	fixed, err := checkEndpoint(s, set)
	if err != nil {
		return nil, err
	}
	if s.Driver != driverBridge {
		set.MacAddress = nil
		return e, nil
	}
	if e.ifname, err = e.chooseIfname(b); err != nil {
		return nil, err
	}
	if e.links, err = parseLinks(set.Links); err != nil {
		return nil, err
	}
	if fixed.IsValid() {
		if err := s.subnet.Take(fixed); err != nil {
			return nil, err
		}
		e.addr = fixed
	} else if e.addr, err = s.subnet.Next(); err != nil {
		return nil, fault.Unavailable("no available IPv4 addresses on this network's address pools: %s (%s)", s.Name, s.ID)
	}
	if e.mac = net.HardwareAddr(set.MacAddress); len(e.mac) == 0 {
		// made of the address, so that neighbours' caches stay right when an address changes hands
		a := e.addr.As4()
		e.mac = net.HardwareAddr{0x02, 0x42, a[0], a[1], a[2], a[3]}
	}
	e.link = "veth" + randomName()
	set.MacAddress = network.HardwareAddr(e.mac)
	set.IPAddress, set.IPPrefixLen, set.Gateway = e.addr, s.subnet.Prefix().Bits(), s.gateway()
	if s.userDefined() {
		set.DNSNames = dnsNames(b.join, set.Aliases)
	}
	return e, nil
}

// release gives the address back. registry.mu is held.
func (e *endpoint) release() {
	if e.addr.IsValid() {
		e.seg.subnet.Release(e.addr)
	}
}

func randomName() string {
	var r [4]byte
	n := rand.Uint32()
	for i := range r {
		r[i] = byte(n >> (8 * i))
	}
	return hex.EncodeToString(r[:])
}

// checkEndpoint refuses what a network does not give; it returns the address that was asked for.
func checkEndpoint(s *segment, set *network.EndpointSettings) (netip.Addr, error) {
	var fixed netip.Addr
	if c := set.IPAMConfig; c != nil {
		if c.IPv6Address.IsValid() {
			return fixed, fault.Unsupported("IPv6 address %s is not supported", c.IPv6Address)
		}
		if len(c.LinkLocalIPs) > 0 {
			return fixed, fault.Unsupported("link-local addresses are not supported")
		}
		fixed = c.IPv4Address
	}
	if fixed.IsValid() {
		switch {
		case !s.userDefined():
			return fixed, fault.Invalid("invalid config for network %s: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only", s.Name)
		case !s.UserSubnet:
			return fixed, fault.Invalid("invalid config for network %s: invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets", s.Name)
		case !fixed.Is4() || !s.subnet.Prefix().Contains(fixed):
			return fixed, fault.Invalid("invalid config for network %s: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address %s", s.Name, fixed)
		}
	}
	if !s.userDefined() {
		if len(set.Aliases) > 0 {
			return fixed, fault.Invalid("invalid config for network %s: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks", s.Name)
		}
		if len(set.Links) > 0 {
			return fixed, fault.Unsupported("links are only supported on user-defined networks")
		}
	}
	if n := len(set.MacAddress); n != 0 && n != 6 || n == 6 && set.MacAddress[0]&1 != 0 {
		return fixed, fault.Invalid("invalid MAC address %s", set.MacAddress)
	}
	for k := range set.DriverOpts {
		if k != optEndpointIfname && k != optEndpointSysctls {
			return fixed, fault.Invalid("network endpoint has no option %q", k)
		}
	}
	return fixed, nil
}

// chooseIfname takes the wished name, or the first free one with the network's prefix.
func (e *endpoint) chooseIfname(b *sandbox) (string, error) {
	taken := func(n string) bool {
		return n == "lo" || slices.ContainsFunc(b.endpoints, func(o *endpoint) bool { return o.ifname == n })
	}
	if n := e.settings.DriverOpts[optEndpointIfname]; n != "" {
		if !validIfname(n) || taken(n) {
			return "", fault.Invalid("invalid interface name %q", n)
		}
		return n, nil
	}
	for i := 0; ; i++ {
		if n := e.seg.opts.ifPrefix + strconv.Itoa(i); !taken(n) {
			return n, nil
		}
	}
}

// parseLinks reads "container:alias".
func parseLinks(links []string) (map[string]string, error) {
	out := map[string]string{}
	for _, l := range links {
		target, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = target
		}
		if target == "" || alias == "" || strings.Contains(alias, ":") {
			return nil, fault.Invalid("bad format for links: %s", l)
		}
		out[strings.ToLower(alias)] = strings.ToLower(target)
	}
	return out, nil
}
