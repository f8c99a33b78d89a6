package network

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/network/rtnl"
)

// ensureBuiltin makes the networks that every engine has.
func (d *bridges) ensureBuiltin() error {
	for name, driver := range map[string]string{nameHost: driverHost, nameNone: driverNull} {
		if _, err := d.reg.find(name); err == nil {
			continue
		}
		s, err := newSegment(builtinRecord(name, driver))
		if err != nil {
			return err
		}
		if err := d.reg.writeRecord(s); err != nil {
			return err
		}
		d.reg.networks[s.ID] = s
	}
	return d.ensureDefault()
}

func builtinRecord(name, driver string) record {
	return record{Network: network.Network{
		Name: name, ID: ids.New(), Created: time.Now(), Scope: "local", Driver: driver, EnableIPv4: true,
		IPAM:    network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}}
}

// defaultBridge is the default network's link.
func (d *bridges) defaultBridge() string {
	switch {
	case d.cfg.BridgeName != "":
		return d.cfg.BridgeName
	case d.cfg.Instance == "tare":
		return "tare0"
	}
	return "tr-" + d.cfg.Instance
}

// ensureDefault makes the default network, or again if the configuration or the host have changed and nobody is on it.
func (d *bridges) ensureDefault() error {
	old, err := d.reg.find(nameBridge)
	if err == nil && d.defaultFits(old) {
		return nil
	}
	r := builtinRecord(nameBridge, driverBridge)
	if err == nil {
		if len(old.endpoints) > 0 {
			return nil // at the next start that finds it empty
		}
		r.ID, r.Created = old.ID, old.Created
		delete(d.reg.networks, old.ID)
		if err := d.demolish(old); err != nil {
			return err
		}
	}
	if d.cfg.BridgeName == "none" {
		return nil
	}
	r.Bridge, r.Borrowed = d.defaultBridge(), d.cfg.BridgeName != ""
	r.Options = d.defaultOptions()
	var want *network.IPAM
	switch {
	case r.Borrowed:
		c, err := d.borrow(r.Bridge)
		if err != nil {
			return err
		}
		want = &network.IPAM{Config: []network.IPAMConfig{c}}
	case d.cfg.BridgeIP.IsValid():
		want = &network.IPAM{Config: []network.IPAMConfig{{Subnet: d.cfg.BridgeIP.Masked(), Gateway: d.cfg.BridgeIP.Addr()}}}
	}
	s, err := d.makeDefault(r, want)
	if err != nil {
		return fmt.Errorf("cannot make the default network: %w", err)
	}
	d.reg.networks[s.ID] = s
	return nil
}

// makeDefault is makeBridge, but a borrowed bridge's subnet is of course in use.
func (d *bridges) makeDefault(r record, want *network.IPAM) (*segment, error) {
	if !r.Borrowed {
		return d.makeBridge(r, want)
	}
	r.IPAM.Config = want.Config
	s, err := newSegment(r)
	if err != nil {
		return nil, err
	}
	return s, d.build(s)
}

func (d *bridges) defaultOptions() map[string]string {
	binding := d.cfg.DefaultIP
	if !binding.IsValid() {
		binding = netip.IPv4Unspecified()
	}
	return map[string]string{
		optDefault:     "true",
		optICC:         strconv.FormatBool(d.cfg.ICC),
		optMasq:        strconv.FormatBool(d.cfg.IPMasq),
		optHostBinding: binding.String(),
		optName:        d.defaultBridge(),
		optMTU:         strconv.Itoa(d.cfg.MTU),
	}
}

// defaultFits reports whether the default network is as the configuration wants it.
func (d *bridges) defaultFits(s *segment) bool {
	if d.cfg.BridgeName == "none" || s.Bridge != d.defaultBridge() || s.Borrowed != (d.cfg.BridgeName != "") {
		return false
	}
	for k, v := range d.defaultOptions() {
		if s.Options[k] != v {
			return false
		}
	}
	if d.cfg.BridgeIP.IsValid() {
		return s.subnet.Prefix() == d.cfg.BridgeIP.Masked() && s.IPAM.Config[0].Gateway == d.cfg.BridgeIP.Addr()
	}
	return s.Borrowed || !d.contested(s)
}

// borrow reads an existing bridge's address.
func (d *bridges) borrow(bridge string) (network.IPAMConfig, error) {
	index, err := d.links.Index(bridge)
	if err != nil {
		return network.IPAMConfig{}, fault.Invalid("bridge %s of --bridge does not exist", bridge)
	}
	addrs, err := rtnl.Addrs(index)
	if err != nil {
		return network.IPAMConfig{}, err
	}
	if len(addrs) == 0 || addrs[0].Bits() > 30 {
		return network.IPAMConfig{}, fault.Invalid("bridge %s of --bridge has no IPv4 address with a subnet", bridge)
	}
	return network.IPAMConfig{Subnet: addrs[0].Masked(), Gateway: addrs[0].Addr()}, nil
}
