package container

import (
	"context"
	"log/slog"
	"path"
	"time"

	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
)

// lostMessage is the state's Error of a container whose supervisor ended before it: nobody has its exit code.
const lostMessage = "how the container ended is not known: its supervisor ended first"

// Resync compares running containers with a supervisor that was connected anew. What it does not have
// belonged to one that was killed. Such a container has lost its streams and whoever reaps it, so its processes are ended, its cgroup goes,
// and it is reported as exited: with 255 and a sentence, for its code is not known. Restart policies apply. It returns the
// runs that were lost, by container with their start.
func (a Access) Resync(ctx context.Context) (map[string]time.Time, error) {
	began := time.Now()
	s := a.s
	old := s.groups() // before asking: what is made meanwhile is not in it
	states, err := s.cfg.Runtime.List(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, st := range states {
		known[st.ID] = true
	}
	lost := map[string]time.Time{}
	var gone []*entry
	for _, e := range s.index.all() {
		e.mu.Lock()
		if e.rec.State.running() && !known[e.id] && e.rec.State.StartedAt.Before(began) {
			e.rec.State.Error = lostMessage
			lost[e.id] = e.rec.State.StartedAt
			gone = append(gone, e)
		}
		e.mu.Unlock()
	}
	s.endOrphans(old, known)
	for _, e := range gone {
		s.endOrphan(s.cgroupOf(e.snapshot())) // with a parent group of its own
	}
	now := time.Now()
	for _, e := range gone { // not before all is ended: what is restarted has the same group again
		s.monitor.exited(e, runtime.Exit{Ref: runtime.Ref{Container: e.id}, Code: 255, At: now})
	}
	return lost, nil
}

// groups are the names of the cgroups in the engine's own parent group; none with a parent that may be shared with others.
func (p *parts) groups() []string {
	if p.cfg.CgroupParent != "" {
		return nil
	}
	g, err := cgroup.Open(p.cgroupParent())
	if err != nil {
		return nil
	}
	names, err := g.Children()
	if err != nil {
		slog.Warn("cannot list the engine's cgroups", "error", err)
	}
	return names
}

// endOrphans ends what runs in those groups and is not the supervisor's: half-made containers and build steps of one that was killed.
func (p *parts) endOrphans(names []string, known map[string]bool) {
	for _, name := range names {
		if !known[name] {
			p.endOrphan(path.Join(p.cgroupParent(), name))
		}
	}
}

func (p *parts) endOrphan(group string) {
	g, err := cgroup.Open(group)
	if err == nil {
		err = g.Kill()
	}
	if err == nil {
		err = g.Remove()
	}
	if err != nil {
		slog.Error("cannot end what a supervisor left", "cgroup", group, "error", err)
	}
}

// orphans does at a start what Resync does later: the supervisor is a new one if it doesn't have what the records say runs.
func (r *recovery) orphans(old []string, states []runtime.State) {
	known := map[string]bool{}
	for _, st := range states {
		known[st.ID] = true
	}
	for _, e := range r.index.all() {
		if rec := e.snapshot(); rec.State.running() && !known[e.id] {
			r.endOrphan(r.cgroupOf(rec))
		}
	}
	r.endOrphans(old, known)
}
