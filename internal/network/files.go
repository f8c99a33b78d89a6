package network

import (
	"net/netip"
	"os"
	"slices"
	"strings"

	"tare/internal/base/fault"
	"tare/internal/network/dns"
	"tare/internal/network/resolv"
)

// etc is what containers find in /etc/hosts and /etc/resolv.conf, and whom their DNS servers ask.
type etc struct {
	cfg  Config
	reg  *registry
	host *resolv.Host
}

// Current is what a container has now, after Connect and Disconnect too: endpoints, ports, contents of files. nil if it is not joined.
func (m *Manager) Current(container string) *Joined {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := m.sandboxes[container]
	if b == nil || !b.joined {
		return nil
	}
	return m.result(b)
}

// files computes them. registry.mu is held.
func (t *etc) files(b *sandbox) (resolvConf, hosts []byte) {
	extra, _ := t.extraHostsLocked(b.join) // checked by Prepare
	if b.only(driverHost) {
		raw, _ := os.ReadFile(t.cfg.HostsFile)
		if n := len(raw); n > 0 && raw[n-1] != '\n' {
			raw = append(raw, '\n')
		}
		return t.resolvConf(b), append(raw, resolv.Lines(extra)...)
	}
	names := b.join.Hostname
	if b.join.Domainname != "" {
		names = names + "." + b.join.Domainname + " " + names
	}
	var own []resolv.Line
	for _, e := range b.endpoints {
		if e.addr.IsValid() && names != "" {
			own = append(own, resolv.Line{Addr: e.addr, Names: names})
		}
	}
	return t.resolvConf(b), resolv.Hosts(extra, own)
}

func (t *etc) resolvConf(b *sandbox) []byte {
	host := t.host.Conf()
	c := resolv.Conf{Search: host.Search, Options: host.Options}
	custom := false
	if s := first(b.join.DNSSearch, t.cfg.DNSSearch); len(s) > 0 {
		c.Search, custom = s, true
	}
	if o := first(b.join.DNSOptions, t.cfg.DNSOptions); len(o) > 0 {
		c.Options, custom = o, true
	}
	servers := first(b.join.DNS, t.cfg.DNS)
	switch {
	case b.only(driverHost) || b.only(driverNull):
		if len(servers) == 0 && !custom {
			return t.host.Raw()
		}
		if c.Nameservers = servers; len(servers) == 0 {
			c.Nameservers = host.Nameservers
		}
	case t.needsResolver(b):
		c.Nameservers = []netip.Addr{dns.Addr}
		if !slices.ContainsFunc(c.Options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
			c.Options = append(slices.Clone(c.Options), "ndots:0")
		}
	default:
		if c.Nameservers = servers; len(servers) == 0 {
			c.Nameservers = reachable(host.Nameservers)
		}
	}
	return c.Bytes()
}

// needsResolver tells whether the sandbox asks 127.0.0.11: always on user-defined networks, and elsewhere when the host's own
// name servers can't be reached from a container (the host's loopback), so that they are asked on its behalf.
func (t *etc) needsResolver(b *sandbox) bool {
	if b.wantsResolver() {
		return true
	}
	if len(b.endpoints) == 0 || b.only(driverHost) || b.only(driverNull) {
		return false
	}
	host := t.host.Conf().Nameservers
	return len(first(b.join.DNS, t.cfg.DNS)) == 0 && len(host) > 0 && len(reachable(host)) == 0
}

// reachable are the name servers that a container on a bridge can ask itself.
func reachable(servers []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(servers), func(a netip.Addr) bool { return a.IsLoopback() || !a.Unmap().Is4() })
}

func first[T any](lists ...[]T) []T {
	for _, l := range lists {
		if len(l) > 0 {
			return l
		}
	}
	return nil
}

func (t *etc) extraHosts(j Join) ([]resolv.Line, error) {
	t.reg.mu.RLock()
	defer t.reg.mu.RUnlock()
	return t.extraHostsLocked(j)
}

// extraHostsLocked reads "name:address" (or "name=address"); host-gateway is the default network's gateway. registry.mu is held.
func (t *etc) extraHostsLocked(j Join) ([]resolv.Line, error) {
	var out []resolv.Line
	for _, h := range j.ExtraHosts {
		i := strings.IndexAny(h, ":=")
		if i <= 0 {
			return nil, fault.Invalid("bad format for add-host: %q", h)
		}
		name, addr := h[:i], strings.Trim(h[i+1:], "[]")
		if addr == "host-gateway" {
			a := t.reg.hostGateway()
			if !a.IsValid() {
				return nil, fault.Invalid("unable to derive the IP value for host-gateway")
			}
			out = append(out, resolv.Line{Addr: a, Names: name})
			continue
		}
		a, err := netip.ParseAddr(addr)
		if err != nil || strings.ContainsAny(name, " \t\r\n#") {
			return nil, fault.Invalid("invalid IP address in add-host: %q", addr)
		}
		out = append(out, resolv.Line{Addr: a, Names: name})
	}
	return out, nil
}
