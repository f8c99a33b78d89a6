package network

import (
	"context"
	"fmt"

	"tare/internal/base/fault"
	"tare/internal/base/trace"
)

// Join makes the interfaces, routes, rules and DNS server of what Prepare allocated (and prepares, if nobody did). On
// error everything is undone, the allocation too.
func (m *Manager) Join(ctx context.Context, j Join) (*Joined, error) {
	m.mu.Lock()
	b := m.sandboxes[j.Container]
	if b != nil && b.joined {
		m.mu.Unlock()
		return nil, fault.Conflict("container %s is on its networks already", j.Name)
	}
	if b != nil {
		b.join.Pid = j.Pid
	}
	m.mu.Unlock()
	if b == nil {
		if _, err := m.Prepare(ctx, j); err != nil {
			return nil, err
		}
		m.mu.Lock()
		b = m.sandboxes[j.Container]
		m.mu.Unlock()
	}
	trace.Step(ctx, "network", "join", "container", j.Container)
	err := ctx.Err()
	if err == nil {
		err = m.wiring.plug(b, b.endpoints)
	}
	if err != nil {
		m.leave(b, false)
		return nil, fmt.Errorf("cannot connect container %s to its networks: %w", j.Name, err)
	}
	m.mu.Lock()
	b.joined = true
	for _, e := range b.endpoints {
		e.seg.addNames(e)
	}
	out := m.result(b)
	m.mu.Unlock()
	for _, e := range b.endpoints {
		m.publish("connect", e.seg, j.Container)
	}
	return out, nil
}
