package supervise

import (
	"slices"
	"time"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
)

// container is what Create made. It exists until Delete, or until its creation failed.
type container struct {
	s        *supervisor
	id       string
	bundle   string
	cgroup   string // its cgroupsPath
	group    *cgroup.Group
	rootfs   *runtime.Overlay // until init runs
	foreign  *foreign         // another OCI runtime's; nil: our own
	init     process
	execs    map[string]*process     // that have not ended
	done     map[string]runtime.Exit // of execs, until Collect
	exit     *runtime.Exit           // of init; Seq is 0 if its program could not be executed
	created  int64                   // Unix time in nanoseconds
	started  int64                   // 0 before Start
	ownPids  bool                    // the pid namespace is its own: its processes end with init
	paused   bool
	turning  bool          // the freezer is at work
	limited  bool          // in its memory
	oom      *cgroup.Watch // of a limited one that runs
	oomsTold uint64        // of the processes that were killed for want of memory
	removal  *removal      // of a Delete under way
}

// find returns a container or NotFound.
func (s *supervisor) find(id string) (*container, error) {
	if c := s.containers[id]; c != nil {
		return c, nil
	}
	return nil, fault.NotFound("No such container: %s", id)
}

// findProcess returns a process that has not ended: NotFound if nothing is known of
// it, Conflict if it ended.
func (s *supervisor) findProcess(ref runtime.Ref) (*process, error) {
	c, err := s.find(ref.Container)
	if err != nil {
		return nil, err
	}
	if ref.Exec == "" {
		if c.init.phase == ended {
			return nil, fault.Conflict("container %s is not running", ref.Container)
		}
		return &c.init, nil
	}
	if p := c.execs[ref.Exec]; p != nil {
		return p, nil
	}
	if _, ok := c.done[ref.Exec]; ok {
		return nil, fault.Conflict("exec %s in container %s has ended", ref.Exec, ref.Container)
	}
	return nil, fault.NotFound("No such exec instance: %s", ref.Exec)
}

func (c *container) status() runtime.Status {
	switch {
	case c.init.phase == ended:
		return runtime.Stopped
	case c.init.phase < running:
		return runtime.Created
	case c.paused:
		return runtime.Paused
	}
	return runtime.Running
}

func (c *container) state() runtime.State {
	st := runtime.State{
		ID:        c.id,
		Status:    c.status(),
		CreatedAt: time.Unix(0, c.created).UTC(),
		Bundle:    c.bundle,
		Exit:      c.exit,
	}
	if c.started != 0 {
		st.StartedAt = time.Unix(0, c.started).UTC()
	}
	if c.init.phase != ended {
		st.Pid = c.init.pid
	}
	for id, p := range c.execs {
		if p.phase == running {
			st.Execs = append(st.Execs, id)
		}
	}
	slices.Sort(st.Execs)
	return st
}

// list returns the state of all containers, sorted by id.
func (s *supervisor) list() []runtime.State {
	all := make([]runtime.State, 0, len(s.containers))
	for _, c := range s.containers {
		all = append(all, c.state())
	}
	slices.SortFunc(all, func(a, b runtime.State) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}

func (c *container) appendKept(all []runtime.Exit) []runtime.Exit {
	if c.exit != nil && c.exit.Seq != 0 {
		all = append(all, *c.exit)
	}
	for _, e := range c.done {
		all = append(all, e)
	}
	return all
}

func sortExits(all []runtime.Exit) {
	slices.SortFunc(all, func(a, b runtime.Exit) int {
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
}

// collect forgets an exec's exit record; an unknown one is forgotten already.
func (s *supervisor) collect(ref runtime.Ref) {
	if c := s.containers[ref.Container]; c != nil {
		delete(c.done, ref.Exec)
	}
}
