package supervise_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// proc returns the path of a file in the supervisor's folder in /proc.
func (r *rig) proc(name string) string {
	r.t.Helper()
	pid, err := os.ReadFile(filepath.Join(r.opts.ExecRoot, wire.PidName))
	if err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join("/proc", strings.TrimSpace(string(pid)), name)
}

// descriptors returns how many the supervisor has open.
func (r *rig) descriptors() int {
	r.t.Helper()
	entries, err := os.ReadDir(r.proc("fd"))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(entries)
}

// weight returns the supervisor's proportional set size in KiB, once it has given back what it does not need.
func (r *rig) weight() int {
	r.t.Helper()
	read := func() (pss int) {
		data, err := os.ReadFile(r.proc("smaps_rollup"))
		if err != nil {
			r.t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &pss); err == nil {
				return pss
			}
		}
		r.t.Fatal("no Pss")
		return 0
	}
	time.Sleep(1500 * time.Millisecond) // it rests after a second
	return read()
}

// TestWeight holds what an idle container costs its supervisor, and tells how long create and start took.
func TestWeight(t *testing.T) {
	n, most := 200, 10.0
	if testing.Short() {
		n, most = 50, 20 // what all share weighs more
	}
	r := newRig(t)
	first := r.create(runtime.Stdio{OpenStdin: true, Log: runtime.Log{Driver: "json-file"}}, "sleep", "600").start()
	empty := r.weight()
	var create, start []time.Duration
	boxes := []*box{first}
	for range n {
		req := r.bundle(runtime.Stdio{OpenStdin: true, Log: runtime.Log{Driver: "json-file", MaxSize: 10 << 20, MaxFiles: 3}}, nil, "sleep", "600")
		t0 := time.Now()
		pid, err := r.Client.Create(r.ctx(), req)
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		if err := r.Start(r.ctx(), req.ID); err != nil {
			t.Fatal(err)
		}
		create, start = append(create, t1.Sub(t0)), append(start, time.Since(t1))
		boxes = append(boxes, &box{rig: r, Create: req, ref: runtime.Ref{Container: req.ID}, pid: pid})
	}
	full := r.weight()
	per := float64(full-empty) / float64(n)
	slices.Sort(create)
	slices.Sort(start)
	t.Logf("supervisor with 1 container %d KiB, %.1f KiB for each of %d idle more; median create %v, start %v", empty, per, n, create[n/2], start[n/2])
	if per > most && !raceDetector() {
		t.Errorf("%.1f KiB per idle container, at most %.0f are allowed", per, most)
	}
	for _, b := range boxes {
		if err := r.Signal(r.ctx(), b.ref, 9); err != nil {
			t.Error(err)
		}
	}
	for _, b := range boxes {
		if e := b.exit(); e.Code != 137 {
			t.Errorf("exit: %+v", e)
		}
	}
}

// raceDetector tells whether this program carries it, and with it several times the memory.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// BenchmarkRun is create, start, exit and delete of a container that does nothing.
func BenchmarkRun(b *testing.B) {
	r := newRig(b)
	for b.Loop() {
		c := r.create(runtime.Stdio{Log: runtime.Log{Driver: "none"}}, "true").start()
		c.exit()
		if err := r.Delete(r.ctx(), c.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExec is an exec of a program that does nothing, until its exit is known.
func BenchmarkExec(b *testing.B) {
	r := newRig(b)
	c := r.create(runtime.Stdio{Log: runtime.Log{Driver: "none"}}, "sleep", "600").start()
	for i := 0; b.Loop(); i++ {
		ref := runtime.Ref{Container: c.ID, Exec: fmt.Sprint(i)}
		_, _, err := r.Exec(r.ctx(), runtime.Exec{Ref: ref, Process: specs.Process{Args: []string{"/bin/true"}, Cwd: "/"}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		r.wait(ref)
		if err := r.Collect(r.ctx(), ref); err != nil {
			b.Fatal(err)
		}
	}
}
