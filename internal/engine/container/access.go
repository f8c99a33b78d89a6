package container

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// Access is what the engine's other services (exec, health, network's prune) may do with containers.
type Access struct{ s *Service }

// Access returns the service's inner door.
func (s *Service) Access() Access { return Access{s} }

// Target is a running container as an exec needs it.
type Target struct {
	ID         string
	Pid        int
	StartedAt  time.Time
	Config     *container.Config
	Privileged bool
	Process    specs.Process // its init's
	// Capabilities of the host, for privileged execs.
	Capabilities []string
}

// Target finds a running container. Conflict if it does not run, or is paused.
func (a Access) Target(ref string) (*Target, error) {
	e, err := a.s.index.find(ref)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	rec, r := e.rec, e.run
	e.mu.Unlock()
	switch rec.State.Status {
	case container.StateRunning:
	case container.StatePaused:
		return nil, fault.Conflict("Container %s is paused, unpause the container before exec", e.id)
	case container.StateRestarting:
		return nil, fault.Conflict("Container %s is restarting, wait until the container is running", e.id)
	default:
		return nil, fault.Conflict("container %s is not running", e.id)
	}
	if r.process == nil { // started by an engine before this one
		var s specs.Spec
		data, err := os.ReadFile(filepath.Join(a.s.dir(e.id), "config.json"))
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		if err != nil || s.Process == nil {
			return nil, fault.Internal("cannot read the bundle of container %s: %v", e.id, err)
		}
		e.mu.Lock()
		r.process = s.Process
		e.mu.Unlock()
	}
	return &Target{
		ID: e.id, Pid: rec.State.Pid, StartedAt: rec.State.StartedAt, Config: rec.Config, Privileged: rec.HostConfig.Privileged,
		Process: *r.process, Capabilities: a.s.host.Capabilities,
	}, nil
}

// Publish sends a container's event.
func (a Access) Publish(id, action string, more ...string) {
	if e, err := a.s.index.find(id); err == nil {
		e.publish(action, more...)
	}
}

// OOM tells that the kernel killed a process of a container for want of memory. It waits for nothing.
func (a Access) OOM(id string) {
	e, err := a.s.index.find(id)
	if err != nil {
		return // a build step's
	}
	e.mu.Lock()
	running := e.run != nil
	if running {
		e.run.oom, e.rec.State.OOMKilled = true, true
	}
	e.mu.Unlock()
	if running {
		e.publish("oom")
	}
}

// AddExec and RemoveExec keep the list of execs that inspect shows.
func (a Access) AddExec(id, exec string) {
	if e, err := a.s.index.find(id); err == nil {
		e.mu.Lock()
		e.execs = append(slices.Clone(e.execs), exec)
		e.mu.Unlock()
	}
}

func (a Access) RemoveExec(id, exec string) {
	if e, err := a.s.index.find(id); err == nil {
		e.mu.Lock()
		e.execs = slices.DeleteFunc(slices.Clone(e.execs), func(x string) bool { return x == exec })
		e.mu.Unlock()
	}
}

// Probed is a running container with a health check.
type Probed struct {
	ID        string
	StartedAt time.Time
	Config    *container.HealthConfig
	Shell     []string
	Health    container.Health
}

// Probed returns the container if it runs and has a health check.
func (a Access) Probed(id string) (Probed, bool) {
	e, err := a.s.index.find(id)
	if err != nil {
		return Probed{}, false
	}
	r := e.snapshot()
	if !r.State.running() || r.State.Health == nil {
		return Probed{}, false
	}
	return Probed{ID: r.ID, StartedAt: r.State.StartedAt, Config: r.Config.Healthcheck, Shell: r.Config.Shell, Health: *r.State.Health}, true
}

// IDs lists all containers.
func (a Access) IDs() []string {
	var out []string
	for _, e := range a.s.index.all() {
		out = append(out, e.id)
	}
	return out
}

// SetHealth records a result for the run that began at startedAt, and publishes health_status if the status changed.
// It is false if that run is over.
func (a Access) SetHealth(id string, startedAt time.Time, h container.Health) bool {
	e, err := a.s.index.find(id)
	if err != nil {
		return false
	}
	e.mu.Lock()
	if !e.rec.State.running() || !e.rec.State.StartedAt.Equal(startedAt) || e.rec.State.Health == nil {
		e.mu.Unlock()
		return false
	}
	changed := e.rec.State.Health.Status != h.Status
	e.rec.State.Health = &h
	rec := e.rec
	e.mu.Unlock()
	if changed {
		a.s.save(rec)
		e.publish("health_status: " + string(h.Status))
	}
	return true
}

// NetworksInUse are the ids of networks that containers, stopped ones included, refer to: prune spares them.
func (a Access) NetworksInUse() map[string]bool {
	out := map[string]bool{}
	for _, e := range a.s.index.all() {
		for name := range e.snapshot().Networks {
			if n, err := a.s.networks.Get(name); err == nil {
				out[n.ID] = true
			}
		}
	}
	return out
}
