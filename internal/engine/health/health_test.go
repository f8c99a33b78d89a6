package health

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/event"
	enginecontainer "tare/internal/engine/container"
)

// fakes is one container and its execs.
type fakes struct {
	mu      sync.Mutex
	probed  enginecontainer.Probed
	runs    bool
	history []container.HealthStatus // each change
	probe   func() (code int, output string, hang bool)
	calls   []string
	ended   chan struct{} // of the exec that hangs
}

func (f *fakes) Probed(id string) (enginecontainer.Probed, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.probed, f.runs && id == f.probed.ID
}

func (f *fakes) SetHealth(id string, startedAt time.Time, h container.Health) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.runs || !startedAt.Equal(f.probed.StartedAt) {
		return false
	}
	if h.Status != f.probed.Health.Status {
		f.history = append(f.history, h.Status)
	}
	f.probed.Health = h
	return true
}

func (f *fakes) IDs() []string { return []string{f.probed.ID} }

func (f *fakes) Create(_ context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.Join(req.Cmd, " "))
	return "exec", nil
}

func (f *fakes) Start(context.Context, string, container.ExecStartRequest) (*enginecontainer.Stream, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	var ends [2]*net.UnixConn
	for i, fd := range pair {
		file := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			return nil, err
		}
		ends[i] = c.(*net.UnixConn)
	}
	_, output, _ := f.probe()
	header := make([]byte, 8)
	header[0] = 1
	binary.BigEndian.PutUint32(header[4:], uint32(len(output)))
	ends[1].Write(append(header, output...))
	ends[1].Close()
	return &enginecontainer.Stream{Conn: ends[0]}, nil
}

func (f *fakes) Wait(ctx context.Context, _ string) (int, error) {
	code, _, hang := f.probe()
	if hang {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return code, nil
}

func (f *fakes) Kill(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "killed")
	return nil
}

func (f *fakes) status() container.Health {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.probed.Health
}

// run probes a container with that check for as long as f needs.
func run(t *testing.T, c container.HealthConfig, probe func() (int, string, bool), then func(f *fakes, s *Service, bus *event.Bus)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{runs: true, probe: probe, probed: enginecontainer.Probed{ID: "c", StartedAt: time.Now(), Config: &c, Health: container.Health{Status: container.Starting}}}
		bus := &event.Bus{}
		s := New(f, f, bus)
		then(f, s, bus)
		s.Close()
	})
}

func TestStartingHealthyUnhealthy(t *testing.T) {
	var mu sync.Mutex
	code := 1
	set := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		code = n
	}
	probe := func() (int, string, bool) {
		mu.Lock()
		defer mu.Unlock()
		return code, "out", false
	}
	c := container.HealthConfig{Test: []string{"CMD-SHELL", "check it"}, Interval: time.Second, Retries: 2}
	run(t, c, probe, func(f *fakes, _ *Service, _ *event.Bus) {
		time.Sleep(1500 * time.Millisecond)
		if h := f.status(); h.Status != container.Starting || h.FailingStreak != 1 {
			t.Errorf("after one failure: %+v", h)
		}
		time.Sleep(time.Second)
		if h := f.status(); h.Status != container.Unhealthy || h.FailingStreak != 2 || h.Log[0].Output != "out" || h.Log[0].ExitCode != 1 {
			t.Errorf("after two: %+v", h)
		}
		set(0)
		time.Sleep(time.Second)
		if h := f.status(); h.Status != container.Healthy || h.FailingStreak != 0 {
			t.Errorf("after a success: %+v", h)
		}
		set(3)
		time.Sleep(10 * time.Second)
		h := f.status()
		if h.Status != container.Unhealthy || len(h.Log) != keptResults {
			t.Errorf("in the end: %+v", h)
		}
		if want := []container.HealthStatus{container.Unhealthy, container.Healthy, container.Unhealthy}; !slices.Equal(f.history, want) {
			t.Errorf("changes: %v", f.history)
		}
		if f.calls[0] != "/bin/sh -c check it" {
			t.Errorf("probed with %q", f.calls[0])
		}
	})
}

// Failures in the start period don't count, and until the first success probes come at the start interval.
func TestStartPeriod(t *testing.T) {
	c := container.HealthConfig{Test: []string{"CMD", "check"}, Interval: 30 * time.Second, Retries: 1, StartPeriod: 10 * time.Second, StartInterval: time.Second}
	run(t, c, func() (int, string, bool) { return 1, "", false }, func(f *fakes, _ *Service, _ *event.Bus) {
		time.Sleep(9500 * time.Millisecond)
		if h := f.status(); h.Status != container.Starting || h.FailingStreak != 0 || len(f.calls) != 9 {
			t.Errorf("%d probes: %+v", len(f.calls), h)
		}
		time.Sleep(31 * time.Second)
		if h := f.status(); h.Status != container.Unhealthy {
			t.Errorf("after the period: %+v", h)
		}
	})
}

func TestTimeoutKills(t *testing.T) {
	c := container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Timeout: 2 * time.Second, Retries: 1}
	run(t, c, func() (int, string, bool) { return 0, "", true }, func(f *fakes, _ *Service, _ *event.Bus) {
		time.Sleep(3500 * time.Millisecond)
		h := f.status()
		if h.Status != container.Unhealthy || h.Log[0].Output != "Health check exceeded timeout (2s)" || h.Log[0].ExitCode != -1 || !slices.Equal(f.calls, []string{"check", "killed"}) {
			t.Errorf("%+v %q", h, f.calls)
		}
	})
}

// Probing ends with the container, and while it is paused; it begins again with the next start.
func TestProbesFollowTheContainer(t *testing.T) {
	c := container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second}
	run(t, c, func() (int, string, bool) { return 0, "", false }, func(f *fakes, _ *Service, bus *event.Bus) {
		count := func() int {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.calls)
		}
		tell := func(action string) {
			bus.Publish(event.Event{Type: "container", Action: action, ID: "c"})
			synctest.Wait()
		}
		time.Sleep(2500 * time.Millisecond)
		for _, pair := range [][2]string{{"pause", "unpause"}, {"die", "start"}} {
			tell(pair[0])
			before := count()
			time.Sleep(5 * time.Second)
			if n := count(); n != before {
				t.Errorf("%d probes after %s", n-before, pair[0])
			}
			tell(pair[1])
			time.Sleep(2500 * time.Millisecond)
			if n := count(); n != before+2 {
				t.Errorf("%d probes after %s", n-before, pair[1])
			}
		}
	})
}

func TestOutputIsCut(t *testing.T) {
	if got := read(strings.NewReader("\x01\x00\x00\x00\x00\x00\x10\x05" + strings.Repeat("x", 4101))); len(got) != keptOutput+3 || !strings.HasSuffix(got, "...") {
		t.Errorf("%d bytes kept", len(got))
	}
	if got := read(errReader{}); got != "" {
		t.Errorf("%q", got)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken") }
