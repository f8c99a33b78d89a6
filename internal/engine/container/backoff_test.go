package container

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRestartBackoff runs the policy "always" with a clock of its own: the waits double from 100 ms to a minute, and begin
// again after a run of ten seconds.
func TestRestartBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.create("again", func(r *CreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
		w.start(id)
		w.event("start")
		die := func(after time.Duration) time.Duration {
			time.Sleep(after)
			w.runtime.exit(id, 1)
			synctest.Wait()
			began := time.Now()
			for w.status(id).Status != "running" {
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			return time.Since(began).Round(10 * time.Millisecond)
		}
		for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000} {
			if got := die(time.Second); got != want*time.Millisecond {
				t.Errorf("restart %d after %s, want %d ms", i+1, got, want)
			}
		}
		if got := die(10 * time.Second); got != 100*time.Millisecond {
			t.Errorf("after a good run: %s", got)
		}
		if i, _ := w.s.Inspect(background, id, false); i.RestartCount != 13 {
			t.Errorf("%d restarts", i.RestartCount)
		}
		w.close()
	})
}
