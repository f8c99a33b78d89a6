package network

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Connect adds a running container (joined before, or with no network so far) to a further network. The wish is
// j.Endpoints[networkRef]. Files tells what resolv.conf and hosts are then.
func (m *Manager) Connect(ctx context.Context, j Join, networkRef string) (*network.EndpointSettings, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	s, err := m.find(networkRef)
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	b := m.sandboxes[j.Container]
	fresh := b == nil
	if fresh {
		b = &sandbox{join: j, joined: true}
		b.join.Endpoints = nil
	} else if j.Pid != 0 {
		b.join.Pid = j.Pid
	}
	e, err := m.connectable(b, s, j.Endpoints[networkRef])
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	if b.only(driverNull) { // none ends with the first real network
		delete(b.endpoints[0].seg.endpoints, j.Container)
		b.endpoints = nil
	}
	before := b.gatewayEndpoint()
	b.endpoints = append(slices.Clone(b.endpoints), e)
	s.endpoints[j.Container] = e
	m.sandboxes[j.Container] = b
	after := b.gatewayEndpoint()
	m.mu.Unlock()

	if err := m.connect(b, e, before, after); err != nil {
		m.detach(b, e)
		m.wiring.unplug([]*endpoint{e})
		m.mu.Lock()
		e.release()
		if fresh && len(b.endpoints) == 0 {
			delete(m.sandboxes, j.Container)
		}
		m.mu.Unlock()
		m.writeOrRemove(b)
		return nil, fmt.Errorf("cannot connect container %s to network %s: %w", j.Name, s.Name, err)
	}
	m.mu.Lock()
	s.addNames(e)
	out := e.settings.Copy()
	m.mu.Unlock()
	m.publish("connect", s, j.Container)
	return out, nil
}

// connectable checks whether a running sandbox may have an endpoint in s, and makes it. registry.mu is held.
func (m *Manager) connectable(b *sandbox, s *segment, want *network.EndpointSettings) (*endpoint, error) {
	switch {
	case m.closed:
		return nil, fault.Unavailable("the network manager is closed")
	case s.Driver == driverHost || b.only(driverHost):
		return nil, fault.Invalid("container cannot be disconnected from host network or connected to host network")
	case s.Driver == driverNull:
		return nil, fault.Invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case !b.joined:
		return nil, fault.Conflict("container %s is starting", b.join.Name)
	case b.endpointIn(s) != nil:
		return nil, fault.Forbidden("endpoint with name %s already exists in network %s", b.join.Name, s.Name)
	}
	return m.newEndpoint(b, s, want)
}

// connect does what the kernel has to know of a new endpoint.
func (m *Manager) connect(b *sandbox, e, before, after *endpoint) error {
	if before != after && before != nil {
		if err := m.ports.withdrawPorts(before, b.bindings); err != nil {
			return err
		}
	}
	if before != after && before == nil && len(b.bindings) == 0 {
		if err := m.ports.bind(b); err != nil {
			return err
		}
	}
	if err := m.writeSandbox(b); err != nil {
		return err
	}
	if err := m.wiring.plug(b, []*endpoint{e}); err != nil {
		return err
	}
	if before != after {
		return m.ports.publishPorts(after, b.bindings)
	}
	return nil
}

// Disconnect takes a container out of one network. It returns when the interface is gone.
func (m *Manager) Disconnect(ctx context.Context, container, networkRef string) error {
	m.mu.RLock()
	s, err := m.find(networkRef)
	b := m.sandboxes[container]
	var e *endpoint
	if err == nil && b != nil {
		e = b.endpointIn(s)
	}
	m.mu.RUnlock()
	switch {
	case err != nil:
		return err
	case s.Driver == driverHost:
		return fault.Invalid("container cannot be disconnected from host network or connected to host network")
	case e == nil:
		return fault.Forbidden("container %s is not connected to the network %s", container, s.Name)
	}
	err = m.detach(b, e)
	if perr := m.wiring.pull(e); err == nil {
		err = perr
	}
	m.mu.Lock()
	e.release()
	m.mu.Unlock()
	if werr := m.writeOrRemove(b); err == nil {
		err = werr
	}
	m.publish("disconnect", s, container)
	return err
}

// detach takes the endpoint out of all tables and moves ports and the default route to the endpoint that is next.
func (m *Manager) detach(b *sandbox, e *endpoint) error {
	m.mu.Lock()
	if b.endpointIn(e.seg) != e {
		m.mu.Unlock()
		return nil
	}
	before := b.gatewayEndpoint()
	b.endpoints = slices.DeleteFunc(slices.Clone(b.endpoints), func(x *endpoint) bool { return x == e })
	delete(e.seg.endpoints, b.join.Container)
	e.seg.dropNames(e)
	after := b.gatewayEndpoint()
	m.mu.Unlock()
	if before == after {
		return nil
	}
	if err := m.ports.withdrawPorts(before, b.bindings); err != nil {
		return err
	}
	if after == nil {
		return nil
	}
	if err := m.ports.publishPorts(after, b.bindings); err != nil {
		return err
	}
	return m.wiring.reroute(b, after)
}

// Rename changes the name that resolves to a container.
func (m *Manager) Rename(container, name string) {
	m.mu.Lock()
	b := m.sandboxes[container]
	if b == nil {
		m.mu.Unlock()
		return
	}
	b.join.Name = name
	for _, e := range b.endpoints {
		if !e.seg.userDefined() {
			continue
		}
		e.seg.dropNames(e)
		e.settings.DNSNames = dnsNames(b.join, e.settings.Aliases)
		if b.joined {
			e.seg.addNames(e)
		}
	}
	m.mu.Unlock()
	m.writeSandbox(b)
}

// gone tells whether a process is no more.
func gone(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH }
