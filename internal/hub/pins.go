package hub

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// settleTime is how long a blob stays pinned after the manifest that its client wanted it for was pushed.
const settleTime = 20 * time.Second

// pins are blobs that somebody uploaded, mounted or asked for, and may name in a manifest soon. They are in
// memory: after a restart, what no manifest refers to waits for the grace time once more.
type pins struct {
	grace time.Duration
	start time.Time

	mu sync.Mutex // guards by
	by map[pinned]map[string]pin
}

type pinned struct {
	name string
	d    digest.Digest
}

type pin struct {
	asked time.Time
	until time.Time
}

func newPins(grace time.Duration) *pins {
	return &pins{grace: grace, start: time.Now(), by: map[pinned]map[string]pin{}}
}

// pin notes that a client asked for a blob.
func (p *pins) pin(name string, d digest.Digest, client string) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	k := pinned{name, d}
	if p.by[k] == nil {
		p.by[k] = map[string]pin{}
	}
	p.by[k][client] = pin{now, now.Add(p.grace)}
}

// settle notes that the client has pushed a manifest with the blobs.
func (p *pins) settle(name string, blobs []digest.Digest, client string) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range blobs {
		k := pinned{name, d}
		if p.by[k] == nil {
			p.by[k] = map[string]pin{}
		}
		p.by[k][client] = pin{now, now.Add(min(settleTime, p.grace))}
	}
}

// release notes that a manifest with the blobs was deleted: nobody waits for them because of a restart.
func (p *pins) release(name string, blobs []digest.Digest) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range blobs {
		k := pinned{name, d}
		if p.by[k] == nil {
			p.by[k] = map[string]pin{"": {until: now}}
		}
	}
}

// free tells whether a blob that no manifest referred to at the time of looking is garbage now. linked is when the blob came.
func (p *pins) free(name string, d digest.Digest, looked, linked time.Time) bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	by, known := p.by[pinned{name, d}]
	if !known && linked.Before(p.start) && now.Sub(p.start) < p.grace {
		return false // somebody may have asked for it before the restart
	}
	for _, x := range by {
		if !x.asked.Before(looked) || now.Before(x.until) {
			return false
		}
	}
	return true
}

// expire forgets what is over.
func (p *pins) expire() {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, clients := range p.by {
		for c, x := range clients {
			if now.After(x.until.Add(time.Minute)) {
				delete(clients, c)
			}
		}
		if len(clients) == 0 {
			delete(p.by, k)
		}
	}
}
