package supervise_test

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/runtime/cgroup"
)

func TestOutOfMemory(t *testing.T) {
	r := newRig(t)
	limit := int64(16 << 20)
	small := func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	}
	b := r.createWith(stdio(), small, "sh", "-c", "x=x; while :; do x=$x$x; done").start()
	if e := b.exit(); e.Code != 137 || !e.OOMKilled {
		t.Errorf("init killed: %+v", e)
	}
	// A child's death counts, the exit code is init's own.
	b = r.createWith(stdio(), small, "sh", "-c", "(x=x; while :; do x=$x$x; done); exit 3").start()
	if e := b.exit(); e.Code != 3 || !e.OOMKilled {
		t.Errorf("child killed: %+v", e)
	}
	group, err := cgroup.Open("/tare/" + r.opts.Instance + "/" + b.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := group.Pids(); err != nil {
		t.Errorf("before delete: %v", err)
	}
	if err := r.Delete(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if pids, err := group.Pids(); err == nil {
		t.Errorf("the cgroup is still there, with %v", pids)
	}
}
