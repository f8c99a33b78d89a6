package network

import (
	"net/netip"
	"slices"
	"strings"
)

// resolver is what a sandbox's DNS server knows: the names of the networks it is in.
type resolver struct {
	etc *etc
	box *sandbox
}

// Lookup finds a container by name, alias or short id, with or without its network's name behind it.
func (r *resolver) Lookup(name string) (addrs []netip.Addr, known bool) {
	r.etc.reg.mu.RLock()
	defer r.etc.reg.mu.RUnlock()
	linked := r.box.join.Links[name]
	for _, e := range r.box.endpoints {
		if x := e.seg.endpoints[linked]; x != nil && x.addr.IsValid() {
			addrs = append(addrs, x.addr)
		}
		if !e.seg.userDefined() {
			continue
		}
		n := strings.TrimSuffix(name, "."+strings.ToLower(e.seg.Name))
		if target, ok := e.links[n]; ok {
			n = target
		}
		for _, x := range e.seg.names[n] {
			if !slices.Contains(addrs, x.addr) {
				addrs = append(addrs, x.addr)
			}
		}
	}
	return addrs, len(addrs) > 0
}

// Reverse names the container that has an address: name.network.
func (r *resolver) Reverse(addr netip.Addr) string {
	r.etc.reg.mu.RLock()
	defer r.etc.reg.mu.RUnlock()
	for _, e := range r.box.endpoints {
		if !e.seg.userDefined() || !e.seg.subnet.Prefix().Contains(addr) {
			continue
		}
		for _, x := range e.seg.endpoints {
			if x.addr == addr && len(x.settings.DNSNames) > 0 {
				return x.settings.DNSNames[0] + "." + e.seg.Name
			}
		}
	}
	return ""
}

// Upstreams are the container's own, the engine's, or the host's; none if all its networks are internal.
func (r *resolver) Upstreams() []netip.Addr {
	r.etc.reg.mu.RLock()
	gateway := r.box.gatewayEndpoint()
	own := r.box.join.DNS
	r.etc.reg.mu.RUnlock()
	if gateway == nil {
		return nil
	}
	if len(own) > 0 {
		return own
	}
	if len(r.etc.cfg.DNS) > 0 {
		return r.etc.cfg.DNS
	}
	return r.etc.host.Conf().Nameservers
}
