package network

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
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
	s, err := m.bridges.makeBridge(r, req.IPAM)
	if err != nil {
		return "", "", fmt.Errorf("cannot create network %s: %w", name, err)
	}
	m.mu.Lock()
	m.networks[s.ID] = s
	m.mu.Unlock()
	m.publish("create", s, "")
	return s.ID, "", nil
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
