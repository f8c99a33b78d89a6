package cgroup

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func take(t *testing.T, w *Watch, what string) uint64 {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		ready, err := w.Wait(time.Second)
		must(t, err)
		if !ready {
			continue
		}
		if n, gone := w.Take(); n > 0 {
			return n
		} else if gone {
			t.Fatalf("%s: the group is gone", what)
		}
	}
	t.Fatalf("%s was not told of", what)
	return 0
}

func TestWatchOOM(t *testing.T) {
	g := group(t)
	must(t, g.Create(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}}))
	w, err := g.WatchOOM()
	must(t, err)
	defer w.Close()
	if ready, _ := w.Wait(0); ready {
		if n, _ := w.Take(); n != 0 {
			t.Fatalf("%d kills before there was a process", n)
		}
	}
	for range 2 {
		sleeper(t, g, "exec dd if=/dev/zero of=/dev/null bs=256M count=4").Wait()
		if n := take(t, w, "a kill"); n != 1 {
			t.Errorf("%d kills for one", n)
		}
	}
	if n := g.OOMKills(); n != 2 {
		t.Errorf("%d kills in all", n)
	}
	must(t, g.Kill())
	must(t, g.Remove())
	for deadline := time.Now().Add(20 * time.Second); ; {
		if ready, _ := w.Wait(time.Second); ready {
			if _, gone := w.Take(); gone {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the end of the group was not told of")
		}
	}
	if _, err := g.WatchOOM(); !errdefs.IsNotFound(err) {
		t.Errorf("watching a group that is gone: %v", err)
	}
}

// TestWatchPressure: two processes that want the same, less than they need, wait for each other.
func TestWatchPressure(t *testing.T) {
	g := group(t)
	must(t, g.Create(nil))
	p := MemoryPressure
	if g.v2() != "" {
		p = Pressure{Resource: "cpu", Stall: 50 * time.Millisecond, Window: 2 * time.Second}
		must(t, g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0", Quota: ptr(int64(20000)), Period: ptr(uint64(100000))}}))
	} else {
		must(t, g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}}))
	}
	w, err := g.WatchPressure(p)
	must(t, err)
	defer w.Close()
	if ready, _ := w.Wait(0); ready {
		t.Error("pressure in an empty group")
	}
	if g.v2() != "" {
		sleeper(t, g, "while :; do :; done & while :; do :; done & wait")
	} else {
		sleeper(t, g, "f=$(mktemp -p /var/tmp); while :; do dd if=/dev/zero of=$f bs=1M count=64 status=none; cat $f >/dev/null; done")
	}
	take(t, w, "pressure")
	if g.v2() != "" {
		s, err := g.Stats()
		must(t, err)
		if s.Pressure["cpu"].Some.Total == 0 {
			t.Errorf("%+v", s.Pressure)
		}
	}
	must(t, g.Kill())
	if _, err := g.WatchPressure(Pressure{Resource: "tyres"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("pressure of tyres: %v", err)
	}
}
