package container

import (
	"context"
	"fmt"
	"maps"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
)

// Connect puts a container, running or not, on a further network.
func (s *Service) Connect(ctx context.Context, networkRef, ref string, settings *network.EndpointSettings) error {
	e, n, err := both(s, networkRef, ref)
	if err != nil {
		return err
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	rec := e.snapshot()
	h := rec.HostConfig
	switch {
	case h.NetworkMode.IsHost():
		return fault.Invalid("cannot connect container to host network - container must be created in host network mode")
	case h.NetworkMode.IsContainer():
		return fault.Invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case n.Name == network.NetworkHost || n.Name == network.NetworkNone:
		return fault.Invalid("cannot connect container to %s network - container must be created in %s network mode", n.Name, n.Name)
	}
	if _, ok := rec.Networks[n.Name]; ok {
		return fault.Forbidden("endpoint with name %s already exists in network %s", rec.Name, n.Name)
	}
	if settings == nil {
		settings = &network.EndpointSettings{}
	}
	if rec.State.running() {
		j := s.launch.joinRequest(rec)
		j.Pid = rec.State.Pid
		j.Endpoints = map[string]*network.EndpointSettings{n.Name: settings.Copy()}
		if _, err = s.networks.Connect(ctx, *j, n.Name); err != nil {
			return err
		}
	}
	return s.rewire(e, func(r *record) {
		r.Networks = maps.Clone(r.Networks)
		delete(r.Networks, network.NetworkNone) // --network none ends with the first real one
		if r.Networks == nil {
			r.Networks = map[string]*network.EndpointSettings{}
		}
		r.Networks[n.Name] = settings.Copy()
	})
}

// Disconnect takes a container off a network. With force a network or container that is gone is no error.
func (s *Service) Disconnect(ctx context.Context, networkRef, ref string, force bool) error {
	e, n, err := both(s, networkRef, ref)
	if err != nil {
		return err
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	rec := e.snapshot()
	if rec.HostConfig.NetworkMode.IsHost() {
		return fault.Invalid("container cannot be disconnected from host network or connected to host network")
	}
	name := n.Name
	if _, ok := rec.Networks[name]; !ok {
		if _, ok := rec.Networks[n.ID]; !ok {
			return fault.Forbidden("container %s is not connected to network %s", e.id, name)
		}
		name = n.ID
	}
	if rec.State.running() {
		if err := s.networks.Disconnect(ctx, e.id, n.Name); err != nil && !force {
			return fmt.Errorf("cannot disconnect container %s from network %s: %w", refName(ref), n.Name, err)
		}
	}
	return s.rewire(e, func(r *record) {
		r.Networks = maps.Clone(r.Networks)
		delete(r.Networks, name)
	})
}

// rewire records changed wishes, and for a container that runs what it has now; its files follow.
func (p *parts) rewire(e *entry, f func(*record)) error {
	now := p.networks.Current(e.id)
	rec := e.change(func(r *record) {
		f(r)
		if now != nil && r.State.running() {
			r.Joined, r.Ports = now.Endpoints, now.Ports
		}
	})
	if now != nil && rec.State.running() {
		if err := p.writeNetworkFiles(e.id, now); err != nil {
			return err
		}
	}
	return p.save(rec)
}

func both(s *Service, networkRef, ref string) (*entry, network.Inspect, error) {
	e, err := s.index.find(ref)
	if err != nil {
		return nil, network.Inspect{}, err
	}
	n, err := s.networks.Get(networkRef)
	return e, n, err
}
