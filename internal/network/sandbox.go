package network

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"

	"tare/internal/network/dns"
)

// sandbox is a container's network namespace. Guarded by registry.mu, except that between Prepare and the end of Join or
// Leave its maker alone may use it.
type sandbox struct {
	join      Join
	endpoints []*endpoint // in the order of their interfaces
	bindings  []*binding
	resolver  *dns.Server // nil where the host's name servers do
	joined    bool
}

// gatewayEndpoint is where the default route leads and ports are published: the highest GwPriority, then the first name.
func (b *sandbox) gatewayEndpoint() *endpoint {
	var best *endpoint
	for _, e := range b.endpoints {
		if !e.seg.gateway().IsValid() {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(e.settings.GwPriority, best.settings.GwPriority), -cmp.Compare(e.seg.Name, best.seg.Name)) > 0 {
			best = e
		}
	}
	return best
}

// only reports whether the sandbox is the host's namespace, or one with nothing in it.
func (b *sandbox) only(driver string) bool {
	return len(b.endpoints) > 0 && b.endpoints[0].seg.Driver == driver
}

// wantsResolver tells whether containers ask 127.0.0.11: on user-defined networks they find each other there, and elsewhere
// those they are linked to.
func (b *sandbox) wantsResolver() bool {
	return len(b.join.Links) > 0 || slices.ContainsFunc(b.endpoints, func(e *endpoint) bool { return e.seg.userDefined() })
}

// endpointIn finds the sandbox's endpoint in a segment.
func (b *sandbox) endpointIn(s *segment) *endpoint {
	for _, e := range b.endpoints {
		if e.seg == s {
			return e
		}
	}
	return nil
}

// sandboxRecord is the file that lets a new engine take over a running container.
type sandboxRecord struct {
	Join      Join
	Endpoints []endpointRecord
	Bindings  []bindingRecord `json:",omitempty"`
}

type endpointRecord struct {
	Network  string // id
	Settings *network.EndpointSettings
	Link     string `json:",omitempty"`
	Ifname   string `json:",omitempty"`
}

type bindingRecord struct {
	Port     network.Port
	HostIP   netip.Addr
	HostPort uint16
}

// result is what the container got. registry.mu is held.
func (m *Manager) result(b *sandbox) *Joined {
	out := &Joined{Endpoints: map[string]*network.EndpointSettings{}, Ports: network.PortMap{}}
	for _, e := range b.endpoints {
		out.Endpoints[e.seg.Name] = e.settings.Copy()
	}
	bindings := b.bindings
	if b.gatewayEndpoint() == nil { // held for the next network that leads outside
		bindings = nil
	}
	for _, x := range bindings {
		out.Ports[x.port] = append(out.Ports[x.port], x.api())
	}
	for _, p := range slices.Collect(maps.Keys(b.join.Exposed)) {
		if _, ok := out.Ports[p]; !ok {
			out.Ports[p] = nil
		}
	}
	out.ResolvConf, out.Hosts = m.etc.files(b)
	return out
}
