package network

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/network/ipam"
	"tare/internal/network/resolv"
	"tare/internal/network/rtnl"
)

// bridges makes networks on the host: subnet, link, record and rules.
type bridges struct {
	cfg   Config
	reg   *registry
	rules *rules
	links *rtnl.Conn
	host  *resolv.Host // its name servers' addresses are no subnet of ours
}

// attempts to find a subnet that nobody else takes at the same moment
const attempts = 16

// makeBridge completes the record with a subnet, and makes link, record file and rules, or nothing. Manager.making is held.
func (d *bridges) makeBridge(r record, want *network.IPAM) (*segment, error) {
	var c network.IPAMConfig
	if want != nil && len(want.Config) == 1 {
		c = want.Config[0]
		c.AuxAddress = maps.Clone(c.AuxAddress)
	}
	r.UserSubnet = c.Subnet.IsValid()
	for range attempts {
		c := c
		used, err := rtnl.UsedPrefixes()
		if err != nil {
			return nil, err
		}
		if r.UserSubnet {
			err = d.subnetFree(c.Subnet, used)
		} else {
			c.Subnet, err = d.chooseSubnet(used)
		}
		if err != nil {
			return nil, err
		}
		r.IPAM.Config = []network.IPAMConfig{withGateway(c)}
		s, err := newSegment(r)
		if err != nil {
			return nil, err
		}
		err = d.build(s)
		if err == nil && !r.UserSubnet && d.contested(s) {
			// another engine chose the same at the same time: both let go
			d.unbuild(s)
			continue
		}
		return s, err
	}
	return nil, fault.Unavailable("cannot find a subnet that stays free")
}

// withGateway sets the gateway where the request has none: the first address of the subnet (or range), as Docker's.
func withGateway(c network.IPAMConfig) network.IPAMConfig {
	if c.Gateway.IsValid() {
		return c
	}
	a := c.Subnet.Addr().Next()
	if c.IPRange.IsValid() && c.IPRange.Addr() != c.Subnet.Addr() {
		a = c.IPRange.Addr()
	}
	for slices.Contains(slices.Collect(maps.Values(c.AuxAddress)), a) {
		a = a.Next()
	}
	c.Gateway = a
	return c
}

func (d *bridges) chooseSubnet(used []rtnl.Used) (netip.Prefix, error) {
	taken := d.reg.own()
	for _, u := range used {
		taken = append(taken, u.Prefix)
	}
	for _, a := range d.host.Conf().Nameservers {
		if a.Is4() {
			taken = append(taken, netip.PrefixFrom(a, 32))
		}
	}
	pools := ipam.DefaultPools()
	if len(d.cfg.AddressPools) > 0 {
		pools = nil
		size := d.cfg.PoolSize
		if size == 0 {
			size = 24
		}
		for _, p := range d.cfg.AddressPools {
			pools = append(pools, ipam.Pool{Base: p.Masked(), Size: min(max(size, p.Bits()), 30)})
		}
	}
	return ipam.Choose(pools, taken)
}

// subnetFree refuses a subnet that one of our networks or a link of the host has.
func (d *bridges) subnetFree(p netip.Prefix, used []rtnl.Used) error {
	if slices.ContainsFunc(d.reg.own(), p.Overlaps) {
		return ipam.ErrOverlap()
	}
	for _, u := range used {
		if u.Local && u.Prefix.Overlaps(p) {
			return ipam.ErrOverlap()
		}
	}
	return nil
}

// contested reports whether another link uses the segment's subnet.
func (d *bridges) contested(s *segment) bool {
	used, err := rtnl.UsedPrefixes()
	return err == nil && slices.ContainsFunc(used, func(u rtnl.Used) bool {
		return u.Link != s.index && u.Link != 0 && u.Prefix.Overlaps(s.subnet.Prefix())
	})
}

// alias marks our bridges.
func (d *bridges) alias() string { return "tare " + d.cfg.Instance }

// build makes a bridge's link, record and rules. On error nothing is left.
func (d *bridges) build(s *segment) (err error) {
	defer func() {
		if err != nil {
			d.unbuild(s)
		}
	}()
	if err := d.reg.writeRecord(s); err != nil {
		return err
	}
	if err := d.makeLink(s); err != nil {
		return err
	}
	return d.rules.addNetwork(s)
}

// unbuild takes away what build made; what is not there is no error.
func (d *bridges) unbuild(s *segment) {
	d.rules.forgetNetwork(s)
	if !s.Borrowed && s.index != 0 {
		var b rtnl.Batch
		b.DelLink(s.Bridge)
		d.links.Do(&b)
	}
	os.Remove(d.reg.recordPath(s.ID))
}

// makeLink makes the bridge with its address.
func (d *bridges) makeLink(s *segment) error {
	if !s.Borrowed {
		mac := make(net.HardwareAddr, 6)
		rand.Read(mac)
		mac[0] = mac[0]&^1 | 2
		var b rtnl.Batch
		b.AddBridge(s.Bridge, d.alias(), mac, s.opts.mtu)
		if err := d.links.Do(&b); err != nil {
			if errors.Is(err, unix.EEXIST) {
				return fault.Conflict("link %s exists already", s.Bridge)
			}
			return err
		}
	}
	return d.configureLink(s)
}

// configureLink sets everything but the link's existence; it may be repeated.
func (d *bridges) configureLink(s *segment) error {
	var err error
	if s.index, err = d.links.Index(s.Bridge); err != nil {
		return err
	}
	if !s.Borrowed {
		// IPv6 on the bridge would be a way to the host that no rule of ours watches
		rtnl.SetSysctl("ipv6/conf/"+s.Bridge+"/disable_ipv6", "1")
	}
	if d.rules.on() {
		// lets the host's 127.0.0.1:port reach containers; chain raw keeps them out of 127/8
		if err := rtnl.SetSysctl("ipv4/conf/"+s.Bridge+"/route_localnet", "1"); err != nil {
			return err
		}
	}
	if d.cfg.IPForward {
		if err := rtnl.SetSysctl("ipv4/ip_forward", "1"); err != nil {
			return fmt.Errorf("cannot turn on IP forwarding: %w", err)
		}
	}
	if s.Borrowed {
		return nil
	}
	var b rtnl.Batch
	b.AddAddr(s.index, netip.PrefixFrom(s.IPAM.Config[0].Gateway, s.subnet.Prefix().Bits()))
	b.SetUp(s.Bridge)
	return d.links.Do(&b)
}

// demolish takes a network's traces away, the record last.
func (d *bridges) demolish(s *segment) error {
	if err := d.rules.removeNetwork(s); err != nil {
		return err
	}
	if _, err := d.links.Index(s.Bridge); err == nil && !s.Borrowed {
		var b rtnl.Batch
		b.DelLink(s.Bridge)
		if err := d.links.Do(&b); err != nil {
			return err
		}
	}
	if err := os.Remove(d.reg.recordPath(s.ID)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
