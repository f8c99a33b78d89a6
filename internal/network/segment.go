package network

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/network/firewall"
	"tare/internal/network/ipam"
)

// The drivers there are.
const (
	driverBridge = "bridge"
	driverHost   = "host"
	driverNull   = "null"
)

// The built-in networks.
const (
	nameBridge = network.NetworkBridge
	nameHost   = network.NetworkHost
	nameNone   = network.NetworkNone
)

// Driver options that are honoured, and labels of the default network's.
const (
	optDefault     = "com.docker.network.bridge.default_bridge"
	optName        = "com.docker.network.bridge.name"
	optICC         = "com.docker.network.bridge.enable_icc"
	optMasq        = "com.docker.network.bridge.enable_ip_masquerade"
	optHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	optGatewayMode = "com.docker.network.bridge.gateway_mode_ipv4"
	optMTU         = "com.docker.network.driver.mtu"
	optIfPrefix    = "com.docker.network.container_iface_prefix"

	optEndpointIfname  = "com.docker.network.endpoint.ifname"
	optEndpointSysctls = "com.docker.network.endpoint.sysctls"
)

// record is a network's file.
type record struct {
	network.Network
	Bridge     string `json:",omitempty"` // its link
	Borrowed   bool   `json:",omitempty"` // the link is the administrator's (--bridge): never made, never deleted
	UserSubnet bool   `json:",omitempty"` // the subnet was asked for, so addresses may be too
}

// options are a bridge network's, decoded.
type options struct {
	icc, masq   bool
	hostBinding netip.Addr // zero: none
	mtu         int        // 0: the engine's
	ifPrefix    string
}

// segment is a network at work. Guarded by registry.mu.
type segment struct {
	record
	opts      options
	index     int          // of the bridge link
	subnet    *ipam.Subnet // nil for host and none
	endpoints map[string]*endpoint
	names     map[string][]*endpoint // by lower-case name
}

func newSegment(r record) (*segment, error) {
	s := &segment{record: r, endpoints: map[string]*endpoint{}, names: map[string][]*endpoint{}}
	var err error
	if s.opts, err = parseOptions(r.Options); err != nil {
		return nil, err
	}
	if r.Driver != driverBridge {
		return s, nil
	}
	if len(r.IPAM.Config) == 0 || !r.IPAM.Config[0].Subnet.IsValid() {
		return nil, fault.Internal("network %s has no subnet", r.Name)
	}
	c := r.IPAM.Config[0]
	s.subnet = ipam.NewSubnet(c.Subnet, c.IPRange)
	if c.Gateway.IsValid() {
		if err := s.subnet.Take(c.Gateway); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
		if err := s.subnet.Take(c.AuxAddress[name]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// builtin networks can't be removed.
func (s *segment) builtin() bool {
	return s.Driver != driverBridge || s.Options[optDefault] == "true"
}

// userDefined networks have names and may have chosen addresses.
func (s *segment) userDefined() bool { return s.Driver == driverBridge && !s.builtin() }

// gateway is where containers send what is not for the subnet; zero for internal networks.
func (s *segment) gateway() netip.Addr {
	if s.Driver != driverBridge || s.Internal {
		return netip.Addr{}
	}
	return s.IPAM.Config[0].Gateway
}

// rules is what the firewall has to know.
func (s *segment) rules() firewall.Network {
	return firewall.Network{Bridge: s.Bridge, Subnets: []netip.Prefix{s.subnet.Prefix()}, Masq: s.opts.masq, Internal: s.Internal}
}

func (s *segment) addNames(e *endpoint) {
	for _, n := range e.settings.DNSNames {
		n = strings.ToLower(n)
		s.names[n] = append(s.names[n], e)
	}
}

func (s *segment) dropNames(e *endpoint) {
	for _, n := range e.settings.DNSNames {
		n = strings.ToLower(n)
		s.names[n] = slices.DeleteFunc(s.names[n], func(x *endpoint) bool { return x == e })
		if len(s.names[n]) == 0 {
			delete(s.names, n)
		}
	}
}

// inspect is the network as the API shows it.
func (s *segment) inspect() network.Inspect {
	out := network.Inspect{Network: s.Network, Containers: map[string]network.EndpointResource{}}
	for id, e := range s.endpoints {
		r := network.EndpointResource{Name: e.box.join.Name, EndpointID: e.settings.EndpointID, MacAddress: network.HardwareAddr(e.mac)}
		if e.addr.IsValid() {
			r.IPv4Address = netip.PrefixFrom(e.addr, s.subnet.Prefix().Bits())
		}
		out.Containers[id] = r
	}
	return out
}

// endpoint is one sandbox's place in a segment. Guarded by registry.mu; fixed once joined, but for its names.
type endpoint struct {
	seg      *segment
	box      *sandbox
	settings *network.EndpointSettings
	addr     netip.Addr // zero in host and none
	mac      net.HardwareAddr
	link     string // the host's end of the veth, "" in host and none
	ifname   string // inside
	index    int    // of link, 0 before Join
	links    map[string]string
}

// dnsNames are what an endpoint answers to: container name, aliases, short id, hostname.
func dnsNames(j Join, aliases []string) []string {
	var out []string
	for _, n := range append(append([]string{j.Name}, aliases...), ids.Short(j.Container), j.Hostname) {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// publish tells the bus what happened to a network; container is "" when it is about the network itself.
func (m *Manager) publish(action string, s *segment, container string) {
	if m.bus == nil {
		return
	}
	attributes := map[string]string{"name": s.Name, "type": s.Driver}
	if container != "" {
		attributes["container"] = container
	}
	m.bus.Publish(event.Event{Type: "network", Action: action, ID: s.ID, Attributes: attributes, Time: time.Now()})
}
