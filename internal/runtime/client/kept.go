package client

import (
	"encoding/json"
	"sync"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/wire"
)

// Kept is what an engine holds for its supervisor: duplicates of the descriptors that a successor needs, should the supervisor be
// killed (see package wire). It outlives connections: give the same one to each Ensure. The zero value is ready.
type Kept struct {
	mu    sync.Mutex // guards all below
	life  string     // of the supervisor whose things these are
	items map[string]*keepsake
	order []string // keys in the order of their first message; may name some that are gone
}

// keepsake is one keep message. The descriptors are bare numbers: the engine never reads or writes them.
type keepsake struct {
	state json.RawMessage
	fds   []int
	old   bool // not told again since the connection was made
}

// put keeps what a message told. It owns fds.
func (k *Kept) put(body wire.KeepBody, fds []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.items == nil {
		k.items = map[string]*keepsake{}
	}
	if was, ok := k.items[body.Key]; ok {
		closeFDs(was.fds)
	} else {
		if len(k.order) > 2*len(k.items)+64 {
			k.compact()
		}
		k.order = append(k.order, body.Key)
	}
	k.items[body.Key] = &keepsake{state: body.State, fds: fds}
}

// compact wants mu.
func (k *Kept) compact() {
	live := k.order[:0]
	seen := map[string]bool{}
	for _, key := range k.order {
		if k.items[key] != nil && !seen[key] {
			seen[key] = true
			live = append(live, key)
		}
	}
	k.order = live
}

func (k *Kept) drop(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if was, ok := k.items[key]; ok {
		closeFDs(was.fds)
		delete(k.items, key)
	}
}

// begin notes that a supervisor of this life is about to tell all that it has, or gives back what another's was.
func (k *Kept) begin(life string) (back []*keepsake) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life != life {
		k.compact()
		for _, key := range k.order {
			back = append(back, k.items[key])
		}
		k.items, k.order = nil, nil
		k.life = life
		return back
	}
	for _, item := range k.items {
		item.old = true
	}
	return nil
}

// settle drops what the supervisor has no more.
func (k *Kept) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, item := range k.items {
		if item.old {
			closeFDs(item.fds)
			delete(k.items, key)
		}
	}
}

// Close lets go of everything.
func (k *Kept) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, item := range k.items {
		closeFDs(item.fds)
	}
	k.items, k.order, k.life = nil, nil, ""
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
