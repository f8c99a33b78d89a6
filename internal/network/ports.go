package network

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/network/firewall"
	"tare/internal/network/port"
	"tare/internal/network/rtnl"
)

// binding is one port of a container published on the host.
type binding struct {
	port     network.Port // the container's
	hostIP   netip.Addr   // unspecified: all
	hostPort uint16
	hold     *port.Hold // nil if the port was lost to somebody while the engine was down
}

func (x *binding) api() network.PortBinding {
	return network.PortBinding{HostIP: x.hostIP, HostPort: strconv.Itoa(int(x.hostPort))}
}

func (x *binding) publish(to netip.Addr) firewall.Publish {
	number, _ := port.Number(string(x.port.Proto()))
	return firewall.Publish{HostIP: x.hostIP, Proto: number, Port: x.hostPort, To: netip.AddrPortFrom(to, x.port.Num())}
}

// publisher puts containers' ports on the host: a held socket and an element of the firewall's maps each.
type publisher struct {
	rules     *rules
	links     *rtnl.Conn
	defaultIP netip.Addr // zero: all addresses
	picker    port.Picker
}

// bind reserves the host's ports. On error those reserved so far are in b.bindings, for leave to release.
func (u *publisher) bind(b *sandbox) error {
	e := b.gatewayEndpoint()
	wanted := b.join.Ports
	if b.join.PublishAll {
		wanted = maps.Clone(wanted)
		if wanted == nil {
			wanted = network.PortMap{}
		}
		for p := range b.join.Exposed {
			if len(wanted[p]) == 0 {
				wanted[p] = []network.PortBinding{{}}
			}
		}
	}
	if e == nil || len(wanted) == 0 {
		return nil // Docker too ignores -p in host, none and internal networks
	}
	for _, p := range slices.SortedFunc(maps.Keys(wanted), func(x, y network.Port) int {
		return cmp.Or(cmp.Compare(x.Num(), y.Num()), cmp.Compare(x.Proto(), y.Proto()))
	}) {
		for _, w := range wanted[p] {
			x, err := u.bindOne(e, p, w)
			if err != nil {
				return u.programming(e, err)
			}
			if x != nil {
				b.bindings = append(b.bindings, x)
			}
		}
	}
	if len(b.bindings) > 0 && !u.rules.on() {
		return u.programming(e, fault.Unsupported("ports can't be published with --iptables=false"))
	}
	return nil
}

func (u *publisher) programming(e *endpoint, err error) error {
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", e.box.join.Name, e.settings.EndpointID, err)
}

// bindOne reserves one port; nil for the IPv6 wildcard, which has no meaning for a container without IPv6.
func (u *publisher) bindOne(e *endpoint, p network.Port, w network.PortBinding) (*binding, error) {
	if p.Num() == 0 {
		return nil, fault.Invalid("invalid container port %s", p)
	}
	hostIP := w.HostIP
	if !hostIP.IsValid() {
		hostIP = e.seg.opts.hostBinding
	}
	if !hostIP.IsValid() {
		hostIP = u.defaultIP
	}
	if !hostIP.IsValid() {
		hostIP = netip.IPv4Unspecified()
	}
	if hostIP = hostIP.Unmap(); !hostIP.Is4() {
		if hostIP.IsUnspecified() {
			return nil, nil
		}
		return nil, fault.Unsupported("publishing on IPv6 address %s is not supported", hostIP)
	}
	first, last, err := port.ParseRange(w.HostPort)
	if err != nil {
		return nil, err
	}
	h, err := u.picker.Take(string(p.Proto()), hostIP, first, last)
	if err != nil {
		return nil, err
	}
	return &binding{port: p, hostIP: hostIP, hostPort: h.Port, hold: h}, nil
}

// publishPorts writes the firewall's elements, the whole table if somebody else took it away.
func (u *publisher) publishPorts(e *endpoint, bindings []*binding) error {
	if e == nil || len(bindings) == 0 {
		return nil
	}
	if err := u.rules.addPorts(elements(e, bindings)); err != nil {
		return u.programming(e, err)
	}
	if e.index != 0 {
		var b rtnl.Batch
		b.Hairpin(e.index)
		if err := u.links.Do(&b); err != nil {
			return u.programming(e, err)
		}
	}
	return forgetUDP(e, bindings)
}

// withdrawPorts takes them away.
func (u *publisher) withdrawPorts(e *endpoint, bindings []*binding) error {
	if e == nil || len(bindings) == 0 {
		return nil
	}
	return u.rules.removePorts(elements(e, bindings))
}

func elements(e *endpoint, bindings []*binding) []firewall.Publish {
	out := make([]firewall.Publish, 0, len(bindings))
	for _, x := range bindings {
		out = append(out, x.publish(e.addr))
	}
	return out
}

// forgetUDP makes the kernel look at the rules again for UDP flows to the host's ports, which else go where they went before.
func forgetUDP(e *endpoint, bindings []*binding) error {
	ports := map[uint16]bool{}
	for _, x := range bindings {
		if x.port.Proto() == network.UDP {
			ports[x.hostPort] = true
		}
	}
	if len(ports) == 0 {
		return nil
	}
	rtnl.ForgetFlows(map[netip.Addr]bool{e.addr: true}, ports) // an error leaves flows to their time-out
	return nil
}

// release lets go of the host's ports.
func release(bindings []*binding) {
	for _, x := range bindings {
		if x.hold != nil {
			x.hold.Release()
		}
	}
}

// rebind takes a port again after a restart. A port that somebody else took meanwhile stays published: the rules come first.
func (x *binding) rebind() error {
	h, err := port.Take(string(x.port.Proto()), x.hostIP, x.hostPort)
	if errors.Is(err, port.ErrTaken) {
		return nil
	}
	x.hold = h
	return err
}
