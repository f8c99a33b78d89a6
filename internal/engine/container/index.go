package container

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"tare/internal/base/fault"
)

// index finds containers by name, id and unique id prefix.
type index struct {
	mu     sync.Mutex // guards all below
	byID   map[string]*entry
	byName map[string]string // name → id; a name is taken before its container is in byID
}

func newIndex() *index { return &index{byID: map[string]*entry{}, byName: map[string]string{}} }

// reserve takes a name for id, Conflict in Docker's words if another has it.
func (x *index) reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if owner, ok := x.byName[name]; ok && owner != id {
		return fault.Conflict("Conflict. The container name \"/%s\" is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", name, owner)
	}
	x.byName[name] = id
	return nil
}

// free gives a name back if id has it.
func (x *index) free(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byName[name] == id {
		delete(x.byName, name)
	}
}

// add makes a container, whose name is reserved, visible.
func (x *index) add(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[e.id] = e
}

func (x *index) remove(e *entry, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, e.id)
	if x.byName[name] == e.id {
		delete(x.byName, name)
	}
}

// find resolves a reference: whole id, name, unique id prefix.
func (x *index) find(ref string) (*entry, error) {
	name := refName(ref)
	if name == "" {
		return nil, fault.Invalid("a container's name or id must not be empty")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.byID[name]; ok {
		return e, nil
	}
	if id, ok := x.byName[name]; ok {
		if e, ok := x.byID[id]; ok {
			return e, nil
		}
	}
	var found *entry
	for id, e := range x.byID {
		if strings.HasPrefix(id, name) {
			if found != nil {
				return nil, fault.Invalid("multiple IDs found with provided prefix: %s", name)
			}
			found = e
		}
	}
	if found == nil {
		return nil, fault.NotFound("No such container: %s", ref)
	}
	return found, nil
}

// all returns every container, newest first.
func (x *index) all() []*entry {
	x.mu.Lock()
	out := make([]*entry, 0, len(x.byID))
	for _, e := range x.byID {
		out = append(out, e)
	}
	x.mu.Unlock()
	slices.SortFunc(out, func(a, b *entry) int {
		ra, rb := a.snapshot(), b.snapshot()
		return cmp.Or(rb.Created.Compare(ra.Created), cmp.Compare(a.id, b.id))
	})
	return out
}
