package network

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/network/dns"
	"tare/internal/network/firewall"
	"tare/internal/network/rtnl"
)

// wiring ties sandboxes to bridges: veths, what is inside the namespace, and the DNS server there.
type wiring struct {
	home       *rtnl.Namespace
	links      *rtnl.Conn
	etc        *etc
	defaultMTU int
	cleanup    sync.WaitGroup // links being deleted
}

// plug makes the links of endpoints in the sandbox, and its DNS server where it needs one and has none.
func (w *wiring) plug(b *sandbox, endpoints []*endpoint) error {
	if b.only(driverHost) || b.only(driverNull) {
		return nil
	}
	ns, err := rtnl.NamespaceOf(b.join.Pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	if ns.Same(w.home) {
		return fault.Internal("process %d is in the engine's own network namespace", b.join.Pid)
	}
	var inside *rtnl.Conn
	var sockets *dns.Sockets
	listen := b.resolver == nil && w.etc.needsResolver(b)
	err = ns.Do(w.home, func() (err error) {
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
			sockets, err = openDNS()
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
		if b.resolver, err = dns.Serve(sockets, &resolver{etc: w.etc, box: b}); err != nil {
			return err
		}
	}
	if err := w.wire(b, endpoints, ns, inside); err != nil {
		return err
	}
	return w.endpointSysctls(ns, endpoints)
}

// openDNS opens the sockets of a DNS server in the calling thread's namespace: on a high port with a redirection from
// DNS's, so that the container may serve DNS itself. A kernel without nft gets the port itself.
func openDNS() (*dns.Sockets, error) {
	s, err := dns.Listen(0)
	if err != nil {
		return nil, err
	}
	if firewall.Redirect(dns.Addr, dns.Port, s.Port) == nil {
		return s, nil
	}
	s.Close()
	return dns.Listen(dns.Port)
}

// wire makes the veths, then addresses and routes inside in one batch.
func (w *wiring) wire(b *sandbox, endpoints []*endpoint, ns *rtnl.Namespace, inside *rtnl.Conn) error {
	var out, ports, in rtnl.Batch
	for _, e := range endpoints {
		out.AddVeth(rtnl.Veth{Name: e.link, Master: e.seg.index, PeerName: e.ifname, PeerMAC: net.HardwareAddr(e.mac),
			PeerNS: ns.FD(), MTU: w.mtu(e.seg)})
	}
	if err := w.links.Do(&out); err != nil {
		return err
	}
	gateway := b.gatewayEndpoint()
	in.SetUp("lo")
	for _, e := range endpoints {
		var err error
		if e.index, err = w.links.Index(e.link); err != nil {
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
	return w.links.Do(&ports)
}

// mtu is a network's, else the engine's.
func (w *wiring) mtu(s *segment) int {
	if s.opts.mtu > 0 {
		return s.opts.mtu
	}
	return w.defaultMTU
}

// endpointSysctls sets what endpoints ask for; IFNAME stands for the interface.
func (w *wiring) endpointSysctls(ns *rtnl.Namespace, endpoints []*endpoint) error {
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
	return ns.Do(w.home, func() error {
		for i := range paths {
			if err := rtnl.SetSysctl(paths[i], values[i]); err != nil {
				return fault.Invalid("cannot set sysctl of network endpoint: %w", err)
			}
		}
		return nil
	})
}

// reroute points the default route at an endpoint's gateway.
func (w *wiring) reroute(b *sandbox, e *endpoint) error {
	ns, err := rtnl.NamespaceOf(b.join.Pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	var inside *rtnl.Conn
	if err := ns.Do(w.home, func() (err error) { inside, err = rtnl.Open(); return err }); err != nil {
		return err
	}
	defer inside.Close()
	index, err := inside.Index(e.ifname)
	if err != nil {
		return err
	}
	var in rtnl.Batch
	in.Gateway(index, e.seg.gateway())
	return inside.Do(&in)
}

// unplug silences the endpoints' bridge ports and deletes their links in the background.
func (w *wiring) unplug(endpoints []*endpoint) {
	var silence, del rtnl.Batch
	for _, e := range endpoints {
		if e.link == "" {
			continue
		}
		if e.index != 0 {
			silence.Silence(e.index)
		}
		del.DelLink(e.link)
	}
	if del.Len() == 0 {
		return
	}
	w.links.Do(&silence) // fails if the namespace took the link with it, which is as good
	w.cleanup.Go(func() {
		// a socket of its own: the kernel takes its time, and others shall not wait for it
		if c, err := rtnl.Open(); err == nil {
			defer c.Close()
			c.Do(&del)
		}
	})
}

// pull deletes an endpoint's link and waits until it is gone.
func (w *wiring) pull(e *endpoint) error {
	if e.link == "" {
		return nil
	}
	var del rtnl.Batch
	del.DelLink(e.link)
	err := w.links.Do(&del)
	if err != nil {
		if _, gone := w.links.Index(e.link); gone != nil {
			return nil
		}
	}
	return err
}
