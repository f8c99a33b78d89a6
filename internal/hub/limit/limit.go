// Package limit bounds what one client may do: requests a second, and how many things at once.
package limit

import (
	"context"
	"sync"
	"time"
)

// Rate is a bucket of tokens for each client: burst at once, then so many a second. The zero Rate, and one that is nil, lets everything pass.
type Rate struct {
	perSecond float64
	burst     float64
	now       func() time.Time

	mu      sync.Mutex // guards all below
	clients map[string]*bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

// NewRate makes a Rate; 0 a second is no limit.
func NewRate(perSecond float64, burst int) *Rate {
	if perSecond <= 0 {
		return nil
	}
	return &Rate{perSecond: perSecond, burst: float64(max(burst, 1)), now: time.Now, clients: map[string]*bucket{}}
}

// Take takes one token, or tells how long to wait for one.
func (r *Rate) Take(client string) (wait time.Duration) {
	if r == nil {
		return 0
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(now)
	b := r.clients[client]
	if b == nil {
		b = &bucket{tokens: r.burst}
		r.clients[client] = b
	} else {
		b.tokens = min(r.burst, b.tokens+now.Sub(b.at).Seconds()*r.perSecond)
	}
	b.at = now
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	return time.Duration((1 - b.tokens) / r.perSecond * float64(time.Second))
}

// sweep forgets clients whose bucket is full again.
func (r *Rate) sweep(now time.Time) {
	if now.Sub(r.swept) < time.Minute {
		return
	}
	r.swept = now
	for k, b := range r.clients {
		if b.tokens+now.Sub(b.at).Seconds()*r.perSecond >= r.burst {
			delete(r.clients, k)
		}
	}
}

// Wait is how long Take would have to wait now; it takes nothing.
func (r *Rate) Wait(client string) time.Duration {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.clients[client]
	if b == nil {
		return 0
	}
	tokens := min(r.burst, b.tokens+r.now().Sub(b.at).Seconds()*r.perSecond)
	if tokens >= 1 {
		return 0
	}
	return time.Duration((1 - tokens) / r.perSecond * float64(time.Second))
}

// Gate lets so many in at once, of all and of one client; 0 is no limit. Others wait.
type Gate struct {
	All, Each int

	mu      sync.Mutex // guards all below
	inside  int
	clients map[string]int
	changed chan struct{} // closed when somebody leaves
}

// Enter waits until there is room, or ctx ends. Whoever was let in calls leave, once.
func (g *Gate) Enter(ctx context.Context, client string) (leave func(), err error) {
	for {
		g.mu.Lock()
		if !(g.All > 0 && g.inside >= g.All || g.Each > 0 && g.clients[client] >= g.Each) {
			break
		}
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer g.mu.Unlock()
	if g.clients == nil {
		g.clients = map[string]int{}
	}
	g.inside++
	g.clients[client]++
	return func() { g.leave(client) }, nil
}

func (g *Gate) leave(client string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.clients[client]--; g.clients[client] == 0 {
		delete(g.clients, client)
	}
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// Inside is how many are in now.
func (g *Gate) Inside() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}
