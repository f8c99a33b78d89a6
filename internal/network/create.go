package network

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/base/ids"
	"tare/internal/network/ipam"
	"tare/internal/network/rtnl"
)

// Create makes a network. Errors have Docker's words and classes (Conflict "network with name x already exists").
func (m *Manager) Create(ctx context.Context, name string, req network.CreateRequest) (id string, warning string, err error) {
	if err := checkRequest(name, req); err != nil {
		return "", "", err
	}
	r := record{Network: network.Network{
		Name: name, ID: ids.New(), Created: time.Now(), Scope: "local", Driver: driverBridge, EnableIPv4: true,
		IPAM:     network.IPAM{Driver: "default", Options: map[string]string{}},
		Internal: req.Internal, Attachable: req.Attachable, Options: maps.Clone(req.Options), Labels: maps.Clone(req.Labels),
	}}
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	if _, err := parseOptions(r.Options); err != nil {
		return "", "", err
	}
	if r.Options[optDefault] != "" {
		return "", "", fault.Forbidden("option %s is only for the default network", optDefault)
	}
	r.Bridge = "br-" + ids.Short(r.ID)
	if b := r.Options[optName]; b != "" {
		if !validIfname(b) {
			return "", "", fault.Invalid("invalid bridge name %q", b)
		}
		r.Bridge = b
	}

	m.making.Lock()
	defer m.making.Unlock()
	if err := m.nameFree(name); err != nil {
		return "", "", err
	}
	s, err := m.makeBridge(r, req.IPAM)
	if err != nil {
		return "", "", fmt.Errorf("cannot create network %s: %w", name, err)
	}
	m.mu.Lock()
	m.networks[s.ID] = s
	m.mu.Unlock()
	m.publish("create", s, "")
	return s.ID, "", nil
}

func (m *Manager) nameFree(name string) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return fault.Unavailable("the network manager is closed")
	}
	for _, s := range m.networks {
		if s.Name == name {
			return fault.Conflict("network with name %s already exists", name)
		}
	}
	return nil
}

// checkRequest refuses what is wrong or not supported.
func checkRequest(name string, req network.CreateRequest) error {
	switch {
	case strings.TrimSpace(name) == "":
		return fault.Invalid("invalid network name: name is empty")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '/' || r == 0x7f }):
		return fault.Invalid("invalid network name: %q", name)
	case slices.Contains([]string{nameBridge, nameHost, nameNone, network.NetworkDefault}, name):
		return fault.Forbidden("operation is not permitted on predefined %s network", name)
	case strings.HasPrefix(name, "container:"):
		return fault.Invalid("invalid network name: %q", name)
	}
	switch req.Driver {
	case "", driverBridge:
	case driverHost, driverNull:
		return fault.Forbidden("only one instance of %q network is allowed", req.Driver)
	case "overlay", "macvlan", "ipvlan":
		return fault.Unsupported("network driver %s is not supported", req.Driver)
	default:
		return fault.NotFound("plugin %q not found", req.Driver)
	}
	switch {
	case req.Scope != "" && req.Scope != "local":
		return fault.Unsupported("network scope %s is not supported", req.Scope)
	case req.Ingress:
		return fault.Unsupported("ingress networks are not supported")
	case req.ConfigOnly, req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return fault.Unsupported("config-only networks are not supported")
	case req.EnableIPv4 != nil && !*req.EnableIPv4:
		return fault.Unsupported("networks without IPv4 are not supported")
	case req.EnableIPv6 != nil && *req.EnableIPv6:
		return fault.Unsupported("IPv6 networks are not supported")
	}
	return checkIPAM(req.IPAM)
}

func checkIPAM(i *network.IPAM) error {
	if i == nil {
		return nil
	}
	if i.Driver != "" && i.Driver != "default" {
		return fault.Unsupported("IPAM driver %s is not supported", i.Driver)
	}
	for k := range i.Options {
		return fault.Unsupported("IPAM option %s is not supported", k)
	}
	if len(i.Config) > 1 {
		return fault.Invalid("bridge networks have one IPv4 subnet, not %d", len(i.Config))
	}
	for _, c := range i.Config {
		if !c.Subnet.IsValid() {
			if c.IPRange.IsValid() || c.Gateway.IsValid() || len(c.AuxAddress) > 0 {
				return fault.Invalid("invalid network config:\nan IP range, gateway or auxiliary address needs a subnet")
			}
			continue
		}
		if !c.Subnet.Addr().Is4() {
			return fault.Unsupported("IPv6 subnet %s is not supported", c.Subnet)
		}
		if m := c.Subnet.Masked(); m != c.Subnet {
			return fault.Invalid("invalid network config:\ninvalid subnet %s: it should be %s", c.Subnet, m)
		}
		if c.Subnet.Bits() > 30 || c.Subnet.Bits() < 4 {
			return fault.Invalid("invalid network config:\ninvalid subnet %s: its length has to be between 4 and 30", c.Subnet)
		}
		if r := c.IPRange; r.IsValid() {
			if m := r.Masked(); m != r {
				return fault.Invalid("invalid network config:\ninvalid ip-range %s: it should be %s", r, m)
			}
			if !c.Subnet.Contains(r.Addr()) || r.Bits() < c.Subnet.Bits() {
				return fault.Invalid("invalid network config:\ninvalid ip-range %s: it does not belong to subnet %s", r, c.Subnet)
			}
		}
		if c.Gateway.IsValid() && !c.Subnet.Contains(c.Gateway) {
			return fault.Invalid("invalid network config:\ninvalid gateway %s: it does not belong to subnet %s", c.Gateway, c.Subnet)
		}
		for name, a := range c.AuxAddress {
			if !c.Subnet.Contains(a) {
				return fault.Invalid("invalid network config:\ninvalid auxiliary address %s=%s: it does not belong to subnet %s", name, a, c.Subnet)
			}
		}
	}
	return nil
}

// attempts to find a subnet that nobody else takes at the same moment
const attempts = 16

// makeBridge completes the record with a subnet, and makes link, record file and rules, or nothing. m.making is held.
func (m *Manager) makeBridge(r record, want *network.IPAM) (*segment, error) {
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
			err = m.subnetFree(c.Subnet, used)
		} else {
			c.Subnet, err = m.chooseSubnet(used)
		}
		if err != nil {
			return nil, err
		}
		r.IPAM.Config = []network.IPAMConfig{withGateway(c)}
		s, err := newSegment(r)
		if err != nil {
			return nil, err
		}
		err = m.build(s)
		if err == nil && !r.UserSubnet && m.contested(s) {
			// another engine chose the same at the same time: both let go
			m.unbuild(s)
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

// own lists the subnets of our networks.
func (m *Manager) own() []netip.Prefix {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []netip.Prefix
	for _, s := range m.networks {
		if s.subnet != nil {
			out = append(out, s.subnet.Prefix())
		}
	}
	return out
}

func (m *Manager) chooseSubnet(used []rtnl.Used) (netip.Prefix, error) {
	taken := m.own()
	for _, u := range used {
		taken = append(taken, u.Prefix)
	}
	for _, a := range m.host.Conf().Nameservers {
		if a.Is4() {
			taken = append(taken, netip.PrefixFrom(a, 32))
		}
	}
	pools := ipam.DefaultPools()
	if len(m.cfg.AddressPools) > 0 {
		pools = nil
		size := m.cfg.PoolSize
		if size == 0 {
			size = 24
		}
		for _, p := range m.cfg.AddressPools {
			pools = append(pools, ipam.Pool{Base: p.Masked(), Size: min(max(size, p.Bits()), 30)})
		}
	}
	return ipam.Choose(pools, taken)
}

// subnetFree refuses a subnet that one of our networks or a link of the host has.
func (m *Manager) subnetFree(p netip.Prefix, used []rtnl.Used) error {
	if slices.ContainsFunc(m.own(), p.Overlaps) {
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
func (m *Manager) contested(s *segment) bool {
	used, err := rtnl.UsedPrefixes()
	return err == nil && slices.ContainsFunc(used, func(u rtnl.Used) bool {
		return u.Link != s.index && u.Link != 0 && u.Prefix.Overlaps(s.subnet.Prefix())
	})
}

// alias marks our bridges.
func (m *Manager) alias() string { return "tare " + m.cfg.Instance }

// build makes a bridge's link, record and rules. On error nothing is left.
func (m *Manager) build(s *segment) (err error) {
	defer func() {
		if err != nil {
			m.unbuild(s)
		}
	}()
	if err := m.writeRecord(s); err != nil {
		return err
	}
	if err := m.makeLink(s); err != nil {
		return err
	}
	if m.fw != nil {
		if err := m.fw.AddNetwork(s.rules()); err != nil {
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
				return err
			}
			return m.rewriteRules(s)
		}
	}
	return nil
}

// unbuild takes away what build made; what is not there is no error.
func (m *Manager) unbuild(s *segment) {
	if m.fw != nil {
		m.fw.RemoveNetwork(s.rules())
	}
	if !s.Borrowed && s.index != 0 {
		var b rtnl.Batch
		b.DelLink(s.Bridge)
		m.links.Do(&b)
	}
	os.Remove(m.recordPath(s.ID))
}

// makeLink makes the bridge with its address.
func (m *Manager) makeLink(s *segment) error {
	if !s.Borrowed {
		mac := make(net.HardwareAddr, 6)
		rand.Read(mac)
		mac[0] = mac[0]&^1 | 2
		var b rtnl.Batch
		b.AddBridge(s.Bridge, m.alias(), mac, s.opts.mtu)
		if err := m.links.Do(&b); err != nil {
			if errors.Is(err, unix.EEXIST) {
				return fault.Conflict("link %s exists already", s.Bridge)
			}
			return err
		}
	}
	return m.configureLink(s)
}

// configureLink sets everything but the link's existence; it may be repeated.
func (m *Manager) configureLink(s *segment) error {
	var err error
	if s.index, err = m.links.Index(s.Bridge); err != nil {
		return err
	}
	if !s.Borrowed {
		// IPv6 on the bridge would be a way to the host that no rule of ours watches
		rtnl.SetSysctl("ipv6/conf/"+s.Bridge+"/disable_ipv6", "1")
	}
	if m.fw != nil {
		// lets the host's 127.0.0.1:port reach containers; chain raw keeps them out of 127/8
		if err := rtnl.SetSysctl("ipv4/conf/"+s.Bridge+"/route_localnet", "1"); err != nil {
			return err
		}
	}
	if m.cfg.IPForward {
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
	return m.links.Do(&b)
}

func (m *Manager) recordPath(id string) string { return filepath.Join(m.cfg.Root, id+".json") }

func (m *Manager) writeRecord(s *segment) error {
	return files.WriteJSON(m.recordPath(s.ID), s.record, files.Fast)
}
