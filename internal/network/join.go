package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/trace"
	"tare/internal/network/dns"
	"tare/internal/network/rtnl"
)

// Join makes the interfaces, routes, rules and DNS server of what Prepare allocated (and prepares, if nobody did). On
// error everything is undone, the allocation too.
func (m *Manager) Join(ctx context.Context, j Join) (*Joined, error) {
	m.mu.Lock()
	b := m.sandboxes[j.Container]
	if b != nil && b.joined {
		m.mu.Unlock()
		return nil, fault.Conflict("container %s is on its networks already", j.Name)
	}
	if b != nil {
		b.join.Pid = j.Pid
	}
	m.mu.Unlock()
	if b == nil {
		if _, err := m.Prepare(ctx, j); err != nil {
			return nil, err
		}
		m.mu.Lock()
		b = m.sandboxes[j.Container]
		m.mu.Unlock()
	}
	trace.Step(ctx, "network", "join", "container", j.Container)
	err := ctx.Err()
	if err == nil {
		err = m.plug(b, b.endpoints)
	}
	if err != nil {
		m.leave(b, false)
		return nil, fmt.Errorf("cannot connect container %s to its networks: %w", j.Name, err)
	}
	m.mu.Lock()
	b.joined = true
	for _, e := range b.endpoints {
		e.seg.addNames(e)
	}
	out := m.result(b)
	m.mu.Unlock()
	for _, e := range b.endpoints {
		m.publish("connect", e.seg, j.Container)
	}
	return out, nil
}

// plug makes the links of endpoints in the sandbox, and its DNS server where it needs one and has none.
func (m *Manager) plug(b *sandbox, endpoints []*endpoint) error {
	if b.only(driverHost) || b.only(driverNull) {
		return nil
	}
	ns, err := rtnl.NamespaceOf(b.join.Pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	if ns.Same(m.home) {
		return fault.Internal("process %d is in the engine's own network namespace", b.join.Pid)
	}
	var inside *rtnl.Conn
	var sockets *dns.Sockets
	listen := b.resolver == nil && m.needsResolver(b)
	err = ns.Do(m.home, func() (err error) {
		if inside, err = rtnl.Open(); err != nil {
			return err
		}
		// No network here has IPv6: links made from now on shall not invent addresses.
		if err := rtnl.SetSysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if listen {
			// 127.0.0.11 is a local address only once the loopback link is up
			var lo rtnl.Batch
			lo.SetUp("lo")
			if err := inside.Do(&lo); err != nil {
				return err
			}
			sockets, err = dns.Listen()
		}
		return err
	})
	if inside != nil {
		defer inside.Close()
	}
	if err != nil {
		return err
	}
	if sockets != nil {
		if b.resolver, err = dns.Serve(sockets, &resolver{m: m, box: b}); err != nil {
			return err
		}
	}
	if err := m.wire(b, endpoints, ns, inside); err != nil {
		return err
	}
	return m.endpointSysctls(ns, endpoints)
}

// wire makes the veths, then addresses and routes inside in one batch.
func (m *Manager) wire(b *sandbox, endpoints []*endpoint, ns *rtnl.Namespace, inside *rtnl.Conn) error {
	var out, ports, in rtnl.Batch
	for _, e := range endpoints {
		out.AddVeth(rtnl.Veth{Name: e.link, Master: e.seg.index, PeerName: e.ifname, PeerMAC: net.HardwareAddr(e.mac),
			PeerNS: ns.FD(), MTU: m.mtu(e.seg)})
	}
	if err := m.links.Do(&out); err != nil {
		return err
	}
	gateway := b.gatewayEndpoint()
	in.SetUp("lo")
	for _, e := range endpoints {
		var err error
		if e.index, err = m.links.Index(e.link); err != nil {
			return err
		}
		if !e.seg.opts.icc {
			ports.Isolate(e.index)
		}
		if e == gateway && len(b.bindings) > 0 {
			ports.Hairpin(e.index)
		}
		index, err := inside.Index(e.ifname)
		if err != nil {
			return err
		}
		in.AddAddr(index, netip.PrefixFrom(e.addr, e.seg.subnet.Prefix().Bits()))
		in.SetUp(e.ifname)
		if e == gateway {
			in.Gateway(index, e.seg.gateway())
		}
	}
	if err := inside.Do(&in); err != nil {
		return err
	}
	for _, e := range endpoints {
		ports.Settle(e.index)
		ports.Settle(e.seg.index)
	}
	return m.links.Do(&ports)
}

// mtu is a network's, else the engine's.
func (m *Manager) mtu(s *segment) int {
	if s.opts.mtu > 0 {
		return s.opts.mtu
	}
	return m.cfg.MTU
}

// endpointSysctls sets what endpoints ask for; IFNAME stands for the interface.
func (m *Manager) endpointSysctls(ns *rtnl.Namespace, endpoints []*endpoint) error {
	var paths, values []string
	for _, e := range endpoints {
		for _, s := range strings.Split(e.settings.DriverOpts[optEndpointSysctls], ",") {
			if s == "" {
				continue
			}
			key, value, ok := strings.Cut(s, "=")
			parts := strings.Split(key, ".")
			// net.ipv4.conf.IFNAME.log_martians; the interface's own name may hold dots, the word does not
			if !ok || len(parts) != 5 || parts[0] != "net" || parts[3] != "IFNAME" || strings.ContainsAny(key, "/") {
				return fault.Invalid("invalid sysctl %q: net.X.Y.IFNAME.Z=value is wanted", s)
			}
			parts[3] = e.ifname
			paths, values = append(paths, strings.Join(parts[1:], "/")), append(values, value)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	return ns.Do(m.home, func() error {
		for i := range paths {
			if err := rtnl.SetSysctl(paths[i], values[i]); err != nil {
				return fault.Invalid("cannot set sysctl of network endpoint: %w", err)
			}
		}
		return nil
	})
}
