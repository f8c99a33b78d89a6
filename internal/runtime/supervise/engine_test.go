package supervise_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// errand is what a victim engine is told to do until it is killed.
type errand struct {
	Options client.Options
	Create  []runtime.Create
}

// victimMain is an engine in a process of its own.
func victimMain() int {
	var e errand
	if err := json.NewDecoder(os.Stdin).Decode(&e); err != nil {
		return 2
	}
	ctx := context.Background()
	c, err := client.Ensure(ctx, e.Options)
	if err != nil {
		return 3
	}
	os.Stdout.WriteString("up\n")
	for _, req := range e.Create {
		go func() {
			ref := runtime.Ref{Container: req.ID}
			_, _ = c.Create(ctx, req)
			_, _ = c.Attach(ctx, runtime.Attach{Ref: ref, Stdin: true, Stdout: true})
			_ = c.Start(ctx, req.ID)
			_ = c.Signal(ctx, ref, 9)
			_ = c.Delete(ctx, req.ID)
		}()
	}
	select {}
}

// TestKilledEngine kills engines at random moments of their work: the supervisor
// and another engine's containers do not notice, and the next engine can clean up.
func TestKilledEngine(t *testing.T) {
	r := newRig(t)
	steady := r.create(stdio(), "sh", "-c", "while :; do echo x; sleep 0.01; done").start()
	before := r.descriptors()
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	seen := map[runtime.Status]int{}
	for range rounds {
		e := errand{Options: r.opts}
		for range 6 {
			e.Create = append(e.Create, r.bundle(runtime.Stdio{OpenStdin: true, StdinOnce: true, Log: runtime.Log{Driver: "none"}}, nil, "cat"))
		}
		cmd := exec.Command(r.opts.Program, "victim")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(in).Encode(e); err != nil {
			t.Error(err)
		}
		in.Close()
		if _, err := out.Read(make([]byte, 3)); err != nil {
			t.Errorf("the engine does not come up: %v", err)
		}
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // the random moment
		_ = cmd.Process.Kill()
		_ = cmd.Wait()

		// What a new engine does: delete what it finds. A request that was on its way
		// may still be carried out, so it looks until there is nothing.
		eventually(t, "all is deleted", func() bool {
			all, err := r.List(r.ctx())
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range all {
				if st.ID == steady.ID {
					continue
				}
				seen[st.Status]++
				ref := runtime.Ref{Container: st.ID}
				if st.Status == runtime.Running {
					_ = r.Signal(r.ctx(), ref, 9)
				}
				_ = r.Delete(r.ctx(), st.ID)
			}
			return len(all) == 1
		})
	}
	t.Logf("met: %v", seen)
	eventually(t, "no descriptor is left", func() bool { return r.descriptors() == before })
	if st, err := r.State(r.ctx(), steady.ID); err != nil || st.Status != runtime.Running || st.Pid != steady.pid {
		t.Errorf("the other container: %+v, %v", st, err)
	}
}
