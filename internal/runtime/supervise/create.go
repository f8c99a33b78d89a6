package supervise

import (
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/plan"
)

// create launches a container's init; r is answered when it waits for start, or
// when nothing of it is left.
func (s *supervisor) create(r *request, req runtime.Create) error {
	if req.ID == "" {
		return fault.Invalid("a container needs an id")
	}
	if _, ok := s.containers[req.ID]; ok {
		return fault.Conflict("container %s exists already", req.ID)
	}
	spec, err := runtime.LoadBundle(req.Bundle)
	if err != nil {
		return err
	}
	if spec.Linux == nil || spec.Process == nil || len(spec.Process.Args) == 0 {
		return fault.Invalid("%s: no linux section or no process", filepath.Join(req.Bundle, "config.json"))
	}
	if spec.Linux.CgroupsPath == "" {
		spec.Linux.CgroupsPath = "/tare/" + s.instance + "/" + req.ID
	}
	spec.Process.Terminal = req.Stdio.Terminal
	var compiled *plan.Plan
	if req.Runtime == nil {
		if compiled, err = plan.Compile(spec, req.Rootfs, s.host); err != nil {
			return err
		}
	}
	c := &container{s: s, id: req.ID, bundle: req.Bundle, cgroup: spec.Linux.CgroupsPath, rootfs: req.Rootfs, limited: isLimited(spec), created: time.Now().UnixNano(), ownPids: hasOwnPids(spec)}
	if c.group, err = cgroup.Open(spec.Linux.CgroupsPath); err != nil {
		return err
	}
	p := &c.init
	p.c = c
	if req.Runtime != nil {
		return runner{s}.createForeign(r, req, spec, c)
	}
	if err = c.group.Create(spec.Linux.Resources); err == nil {
		err = c.group.Delegate(spec)
	}
	if err == nil {
		err = p.launch(compiled, 0, req.Stdio, spec.Process.User.UID)
	}
	if err != nil {
		_ = c.group.Remove()
		return err
	}
	p.waiting = r
	s.containers[c.id] = c
	// While the child is at work; it writes nothing before it is started.
	if p.log, err = s.log(req.ID, req.Stdio.Log); err != nil {
		p.fail(err)
	}
	s.specs.put(c.id, spec)
	s.restLater()
	return nil
}

// hasOwnPids tells whether the container makes a pid namespace of its own.
func hasOwnPids(spec *specs.Spec) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// isLimited tells whether the container may be the one whose limit of memory is reached.
func isLimited(spec *specs.Spec) bool {
	r := spec.Linux.Resources
	return r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0
}

// specCache holds the spec of the container used last, for the exec that often
// follows. Any other is read from its bundle again: a spec is far larger than
// all else that is kept of a container.
type specCache struct {
	id   string
	spec *specs.Spec
}

func (k *specCache) put(id string, spec *specs.Spec) { k.id, k.spec = id, spec }
func (k *specCache) drop()                           { *k = specCache{} }

func (k *specCache) get(c *container) (*specs.Spec, error) {
	if k.spec != nil && k.id == c.id {
		return k.spec, nil
	}
	spec, err := runtime.LoadBundle(c.bundle)
	if err != nil {
		return nil, err
	}
	if spec.Linux == nil {
		return nil, fault.Invalid("%s: no linux section", filepath.Join(c.bundle, "config.json"))
	}
	if spec.Linux.CgroupsPath == "" {
		spec.Linux.CgroupsPath = "/tare/" + c.s.instance + "/" + c.id
	}
	k.put(c.id, spec)
	return spec, nil
}
