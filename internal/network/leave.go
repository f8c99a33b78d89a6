package network

import (
	"context"
	"fmt"

	"tare/internal/base/trace"
	"tare/internal/network/rtnl"
)

// Leave removes a container from all networks: rules and DNS at once, interfaces in the background. Idempotent.
func (m *Manager) Leave(ctx context.Context, container string) error {
	m.mu.RLock()
	b := m.sandboxes[container]
	m.mu.RUnlock()
	if b == nil {
		return nil
	}
	trace.Step(ctx, "network", "leave", "container", container)
	if err := m.leave(b, true); err != nil {
		return fmt.Errorf("cannot disconnect container %s: %w", b.join.Name, err)
	}
	return nil
}

// leave gives back what the sandbox has, as far as Prepare and Join came. Addresses are free only when nothing can speak
// for them any more.
func (m *Manager) leave(b *sandbox, tell bool) error {
	m.mu.Lock()
	if m.sandboxes[b.join.Container] != b {
		m.mu.Unlock()
		return nil
	}
	delete(m.sandboxes, b.join.Container)
	joined := b.joined
	for _, e := range b.endpoints {
		delete(e.seg.endpoints, b.join.Container)
		if joined {
			e.seg.dropNames(e)
		}
	}
	m.mu.Unlock()

	err := m.withdrawPorts(b.gatewayEndpoint(), b.bindings)
	release(b.bindings)
	if b.resolver != nil {
		b.resolver.Close()
		b.resolver = nil
	}
	m.unplug(b.endpoints)
	m.mu.Lock()
	for _, e := range b.endpoints {
		e.release()
	}
	m.mu.Unlock()
	m.removeSandbox(b.join.Container)
	if tell && joined {
		for _, e := range b.endpoints {
			m.publish("disconnect", e.seg, b.join.Container)
		}
	}
	return err
}

// unplug silences the endpoints' bridge ports and deletes their links in the background.
func (m *Manager) unplug(endpoints []*endpoint) {
	var silence, del rtnl.Batch
	for _, e := range endpoints {
		if e.link == "" {
			continue
		}
		if e.index != 0 {
			silence.Silence(e.index)
		}
		del.DelLink(e.link)
	}
	if del.Len() == 0 {
		return
	}
	m.links.Do(&silence) // fails if the namespace took the link with it, which is as good
	m.cleanup.Go(func() {
		// a socket of its own: the kernel takes its time, and others shall not wait for it
		if c, err := rtnl.Open(); err == nil {
			defer c.Close()
			c.Do(&del)
		}
	})
}
