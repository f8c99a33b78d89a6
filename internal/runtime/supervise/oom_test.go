package supervise_test

import (
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/runtime"
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

// TestOOMIsToldAtOnce: engines hear of a kill while the container goes on, over an upgrade and a killed supervisor too, and before its end.
func TestOOMIsToldAtOnce(t *testing.T) {
	r := newRig(t)
	told := make(chan string, 16)
	r.opts.OnOOM = func(id string) { told <- id }
	r.Close()
	r.connect()
	limit := int64(16 << 20)
	small := func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	}
	io := stdio()
	io.OpenStdin = true
	b := r.createWith(io, small, "sh", "-c", "while read x; do (x=x; while :; do x=$x$x; done); done; exit 3").start()
	in := b.attach("", true)
	for i := range 3 {
		switch i {
		case 1:
			if err := r.Upgrade(r.ctx(), r.opts.Program); err != nil {
				t.Fatal(err)
			}
		case 2:
			r.killSupervisor(nil)
		}
		in.Write([]byte("go\n"))
		select {
		case id := <-told:
			if id != b.ID {
				t.Errorf("told of %s", id)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("not told, %d", i)
		}
		if st, err := r.State(r.ctx(), b.ID); err != nil || st.Status != runtime.Running {
			t.Errorf("%+v %v", st, err)
		}
	}
	if e := b.kill(); !e.OOMKilled {
		t.Errorf("%+v", e)
	}
	select {
	case <-told:
		t.Error("told twice of the same")
	default:
	}
}
