package network

import (
	"context"
	"fmt"

	"tare/internal/base/trace"
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

	err := m.ports.withdrawPorts(b.gatewayEndpoint(), b.bindings)
	release(b.bindings)
	if b.resolver != nil {
		b.resolver.Close()
		b.resolver = nil
	}
	m.wiring.unplug(b.endpoints)
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
