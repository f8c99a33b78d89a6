package supervise

import (
	"time"

	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// Engines are told of a container in which the kernel killed a process for want of memory: at once where the container has a limit
// of its own, for then its cgroup is watched, else when its init ends. It comes before the exit record.

// oomWatch is the container as the handler of its cgroup's watch.
type oomWatch container

func (w *oomWatch) ready(uint32) {
	c := (*container)(w)
	if c.oom == nil {
		return
	}
	if _, gone := c.oom.Take(); gone {
		c.unwatchOOM()
	}
	if c.tellOOM() {
		return
	}
	// Under v1 it is told that there will be a kill, and counted when there was: look again a little later.
	for _, later := range [...]time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		c.s.loop.after(later, func() {
			if c.oom != nil {
				c.tellOOM()
			}
		})
	}
}

// watchOOM begins to watch a container with a limit.
func (c *container) watchOOM() {
	if !c.limited || c.oom != nil || c.init.phase == ended {
		return
	}
	watch, err := c.group.WatchOOM()
	if err != nil {
		complain("container %s: %v", c.id, err)
		return
	}
	c.oom = watch
	c.s.loop.watch(watch.FD(), (*oomWatch)(c), watch.Events())
	c.tellOOM() // what came before
}

func (c *container) unwatchOOM() {
	if c.oom != nil {
		c.s.loop.watch(c.oom.FD(), nil, 0)
		c.oom.Close()
		c.oom = nil
	}
}

// tellOOM tells of kills that were not told of yet.
func (c *container) tellOOM() bool {
	kills := c.group.OOMKills()
	if kills <= c.oomsTold {
		return false
	}
	c.oomsTold = kills
	for conn := range c.s.conns {
		if conn.watching {
			conn.send(&wire.Message{Op: wire.OOM, Body: wire.Body(runtime.Ref{Container: c.id})}, -1)
		}
	}
	return true
}
