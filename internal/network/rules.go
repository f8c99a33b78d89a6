package network

import (
	"errors"

	"golang.org/x/sys/unix"

	"tare/internal/network/firewall"
)

// rules keeps the firewall's table in step with the registry. Where somebody took the table away it is written anew.
type rules struct {
	reg *registry
	fw  *firewall.Table // nil without Config.Firewall: then everything here but on is without effect
}

func (r *rules) on() bool { return r.fw != nil }

// addNetwork lets packets of a segment pass that is about to be registered.
func (r *rules) addNetwork(s *segment) error {
	if r.fw == nil {
		return nil
	}
	err := r.fw.AddNetwork(s.rules())
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
		return r.rewrite(s)
	}
	return err
}

// removeNetwork ends that for a segment that is registered no more.
func (r *rules) removeNetwork(s *segment) error {
	if r.fw == nil || r.fw.RemoveNetwork(s.rules()) == nil {
		return nil
	}
	return r.rewrite(nil)
}

// forgetNetwork is removeNetwork for a segment that may never have been added.
func (r *rules) forgetNetwork(s *segment) {
	if r.fw != nil {
		r.fw.RemoveNetwork(s.rules())
	}
}

func (r *rules) addPorts(ports []firewall.Publish) error {
	if r.fw.AddPorts(ports) == nil {
		return nil
	}
	return r.rewrite(nil)
}

func (r *rules) removePorts(ports []firewall.Publish) error {
	if r.fw.RemovePorts(ports) == nil {
		return nil
	}
	return r.rewrite(nil)
}

// rewrite writes the whole table from what is registered, and a segment that is about to be.
func (r *rules) rewrite(extra *segment) error {
	r.reg.mu.RLock()
	defer r.reg.mu.RUnlock()
	var networks []firewall.Network
	for _, s := range r.reg.networks {
		if s.Driver == driverBridge {
			networks = append(networks, s.rules())
		}
	}
	if extra != nil {
		networks = append(networks, extra.rules())
	}
	var ports []firewall.Publish
	for _, b := range r.reg.sandboxes {
		if e := b.gatewayEndpoint(); e != nil {
			ports = append(ports, elements(e, b.bindings)...)
		}
	}
	return r.fw.Reset(networks, ports)
}

func (r *rules) close() error {
	if r.fw == nil {
		return nil
	}
	return r.fw.Close()
}
