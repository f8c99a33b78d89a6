package container

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/trace"
	"tare/internal/runtime"
)

// entry is one container.
type entry struct {
	id  string
	bus *event.Bus
	op  chan struct{} // holds one element while an operation is under way

	mu       sync.Mutex // guards all below
	rec      record
	run      *run // the present or last run; nil before the first
	waiters  map[*waiter]struct{}
	pending  []pendingAttach
	restart  *time.Timer // fires the restart that the policy asked for
	begun    bool        // that restart is under way; it has no run of its own yet
	backoff  time.Duration
	lower    []string      // overlay lower folders; nil until asked for
	users    int           // open Files
	unused   chan struct{} // closed when the last of them is released; nil without any
	removing bool
	gone     bool
	execs    []string // ids, for inspect
}

// run is one execution, from start to the end of its cleaning.
type run struct {
	started   bool           // the program runs, or ran
	early     *runtime.Exit  // an exit that was heard of before the start was
	exited    chan struct{}  // closed when the exit was reported
	settled   chan struct{}  // closed when everything after the exit is done
	noRestart bool           // a person asked for the end
	oom       bool           // its event was published
	keep      bool           // restart by a person: don't remove an AutoRemove container
	process   *specs.Process // as in config.json, without seccomp
}

func newEntry(rec record, bus *event.Bus) *entry {
	return &entry{id: rec.ID, bus: bus, op: make(chan struct{}, 1), rec: rec, waiters: map[*waiter]struct{}{}}
}

func newRun() *run { return &run{exited: make(chan struct{}), settled: make(chan struct{})} }

// lock begins an operation; it fails with ctx's error, or NotFound if the container went while waiting.
func (e *entry) lock(ctx context.Context) error {
	select {
	case e.op <- struct{}{}:
	case <-ctx.Done():
		return fault.Unavailable("gave up waiting for another operation on container %s: %w", e.id, ctx.Err())
	}
	e.mu.Lock()
	gone := e.gone
	e.mu.Unlock()
	if gone {
		e.unlock()
		return fault.NotFound("No such container: %s", e.id)
	}
	return nil
}

func (e *entry) unlock() { <-e.op }

// snapshot copies the record; what it points at is never changed in place.
func (e *entry) snapshot() record {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rec
}

// change applies f to the record under the lock and returns the result.
func (e *entry) change(f func(*record)) record {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.rec)
	return e.rec
}

// settle waits until the cleaning after the last run is done.
func (e *entry) settle(ctx context.Context) error {
	e.mu.Lock()
	r, active := e.run, e.rec.State.running()
	e.mu.Unlock()
	if r == nil || active {
		return nil
	}
	select {
	case <-r.settled:
		return nil
	case <-ctx.Done():
		return fault.Unavailable("gave up waiting for the end of container %s: %w", e.id, ctx.Err())
	}
}

// publish sends an event with the attributes that Docker gives, and more (key, value, …).
func (e *entry) publish(action string, more ...string) {
	rec := e.snapshot()
	rec.publish(e.bus, action, more...)
}

func (r record) publish(bus *event.Bus, action string, more ...string) {
	attributes := make(map[string]string, len(r.Config.Labels)+2+len(more)/2)
	maps.Copy(attributes, r.Config.Labels)
	attributes["image"], attributes["name"] = r.Config.Image, r.Name
	for pair := range slices.Chunk(more, 2) {
		attributes[pair[0]] = pair[1]
	}
	bus.Publish(event.Event{Type: "container", Action: action, ID: r.ID, Attributes: attributes})
}

// waiter is one call of Wait.
type waiter struct {
	c       chan container.WaitResponse // room for one
	removed bool                        // answers at the removal only
}

// answer delivers to the waiters that wait for an exit, or, at the removal, to all. It wants mu.
func (e *entry) answer(ctx context.Context, removal bool) {
	for w := range e.waiters {
		if removal || !w.removed {
			e.answerOne(ctx, w)
		}
	}
}

// answerOne wants mu. Who waited for the removal hears of no error: the one who asked for the start has heard it.
func (e *entry) answerOne(ctx context.Context, w *waiter) {
	trace.Step(ctx, "engine", "answer", "wait", e.id)
	r := container.WaitResponse{StatusCode: int64(e.rec.State.ExitCode)}
	if e.rec.State.Error != "" && !e.gone {
		r.Error = &container.WaitExitError{Message: e.rec.State.Error}
	}
	w.c <- r
	delete(e.waiters, w)
}

// pendingAttach is a client that attached before the start: its end is in the client's hands already.
type pendingAttach struct {
	req  runtime.Attach
	conn *net.UnixConn
}

// takePending hands over the clients that wait for a start.
func (e *entry) takePending() []pendingAttach {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.pending
	e.pending = nil
	return p
}

func (e *entry) dropPending() {
	for _, p := range e.takePending() {
		p.conn.Close()
	}
}

// cancelRestart stops a restart that is due; true if there was one.
func (e *entry) cancelRestart() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cancelRestartLocked()
}

func (e *entry) cancelRestartLocked() bool {
	if e.rec.State.Status != container.StateRestarting || e.starting() { // too late: the start is under way
		return false
	}
	if e.restart != nil {
		e.restart.Stop()
		e.restart = nil
	}
	e.rec.State.Status = container.StateExited
	return true
}

// endpoints copies the wanted endpoints.
func (r record) endpoints() map[string]*network.EndpointSettings {
	out := make(map[string]*network.EndpointSettings, len(r.Networks))
	for name, e := range r.Networks {
		if out[name] = e.Copy(); e == nil {
			out[name] = &network.EndpointSettings{}
		}
	}
	return out
}

func (r record) hostname() string {
	if r.Config.Hostname != "" {
		return r.Config.Hostname
	}
	if r.HostConfig.UTSMode.IsHost() {
		if name, err := os.Hostname(); err == nil {
			return name
		}
	}
	return r.ID[:12]
}

func refName(ref string) string { return strings.TrimPrefix(ref, "/") }
