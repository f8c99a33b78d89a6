package exec

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// fakes is a supervisor and one container that runs.
type fakes struct {
	exits chan runtime.Exit

	mu     sync.Mutex // guards all below
	start  time.Time
	err    error // of Exec
	early  bool  // the exit record comes before Exec returns
	asked  []runtime.Exec
	events []string
	gone   []string // collected
}

func (f *fakes) Exec(_ context.Context, req runtime.Exec, _ *runtime.Attach) (int, *net.UnixConn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, req)
	if f.early {
		f.exits <- runtime.Exit{Ref: req.Ref, Code: 5, At: time.Now()}
	}
	return 42, nil, f.err
}
func (f *fakes) Signal(_ context.Context, ref runtime.Ref, sig int) error {
	f.exits <- runtime.Exit{Ref: ref, Code: 128 + sig, At: time.Now()}
	return nil
}
func (f *fakes) Resize(context.Context, runtime.Ref, uint16, uint16) error { return nil }
func (f *fakes) Collect(_ context.Context, ref runtime.Ref) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = append(f.gone, ref.Exec)
	return nil
}
func (f *fakes) ExecExits() <-chan runtime.Exit { return f.exits }

func (f *fakes) Target(ref string) (*enginecontainer.Target, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ref != "c" {
		return nil, fault.NotFound("No such container: %s", ref)
	}
	return &enginecontainer.Target{ID: "c", Pid: 1, StartedAt: f.start, Config: &container.Config{},
		Process: specs.Process{Cwd: "/srv", Env: []string{"PATH=/bin", "A=1"}, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}}, nil
}
func (f *fakes) Publish(_, action string, _ ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, action)
}
func (f *fakes) AddExec(string, string)    {}
func (f *fakes) RemoveExec(string, string) {}

func open(t *testing.T) (*Service, *fakes) {
	f := &fakes{exits: make(chan runtime.Exit, 10), start: time.Now()}
	s := New(f, f)
	t.Cleanup(func() {
		close(f.exits)
		s.Close()
	})
	return s, f
}

func create(t *testing.T, s *Service, change func(*container.ExecCreateRequest)) string {
	t.Helper()
	req := container.ExecCreateRequest{Cmd: []string{"echo", "hi"}}
	if change != nil {
		change(&req)
	}
	id, err := s.Create(t.Context(), "c", req)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var detached = container.ExecStartRequest{Detach: true}

func TestLifeOfAnExec(t *testing.T) {
	s, f := open(t)
	id := create(t, s, func(r *container.ExecCreateRequest) { r.Env, r.WorkingDir = []string{"A=2"}, "/tmp" })
	if i, _ := s.Inspect(t.Context(), id); i.Running || i.ExitCode != nil {
		t.Errorf("created: %+v", i)
	}
	if _, err := s.Start(t.Context(), id, detached); err != nil {
		t.Fatal(err)
	}
	if i, _ := s.Inspect(t.Context(), id); !i.Running || i.Pid != 42 {
		t.Errorf("running: %+v", i)
	}
	if _, err := s.Start(t.Context(), id, detached); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "is already running") {
		t.Errorf("second start: %v", err)
	}
	p := f.asked[0].Process
	if p.Cwd != "/tmp" || !slices.Equal(p.Env, []string{"PATH=/bin", "A=2"}) || !slices.Equal(p.Args, []string{"echo", "hi"}) {
		t.Errorf("process: %+v", p)
	}
	f.exits <- runtime.Exit{Ref: runtime.Ref{Container: "c", Exec: id}, Code: 3, At: time.Now()}
	if code, err := s.Wait(t.Context(), id); code != 3 || err != nil {
		t.Errorf("wait: %d %v", code, err)
	}
	if _, err := s.Start(t.Context(), id, detached); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "has already run") {
		t.Errorf("start after the end: %v", err)
	}
	for _, bad := range []container.ExecCreateRequest{{}, {Cmd: []string{"x"}, WorkingDir: "rel"}, {Cmd: []string{"x"}, DetachKeys: "nope"}} {
		if _, err := s.Create(t.Context(), "c", bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := s.Inspect(t.Context(), "none"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
}

// The exit record may overtake the answer to the start.
func TestExitBeforeStartReturns(t *testing.T) {
	s, f := open(t)
	f.early = true
	id := create(t, s, nil)
	if _, err := s.Start(t.Context(), id, detached); err != nil {
		t.Fatal(err)
	}
	if code, err := s.Wait(t.Context(), id); code != 5 || err != nil {
		t.Errorf("%d %v", code, err)
	}
}

func TestFailedExec(t *testing.T) {
	s, f := open(t)
	f.err = &client.ExecError{Program: "echo", Code: 127, Err: syscall.ENOENT}
	id := create(t, s, nil)
	_, err := s.Start(t.Context(), id, detached)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `exec: "echo": executable file not found in $PATH`) {
		t.Errorf("%v", err)
	}
	if i, _ := s.Inspect(t.Context(), id); i.ExitCode == nil || *i.ExitCode != 127 {
		t.Errorf("%+v", i)
	}
}

func TestRunsOfAContainerAreApart(t *testing.T) {
	s, f := open(t)
	first, lost := create(t, s, nil), create(t, s, nil)
	if _, err := s.Start(t.Context(), lost, detached); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	began := f.start
	f.start = began.Add(time.Second)
	f.mu.Unlock()
	if _, err := s.Start(t.Context(), first, detached); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "was restarted") {
		t.Errorf("an exec of the run before: %v", err)
	}
	fresh := create(t, s, nil)
	if _, err := s.Start(t.Context(), fresh, detached); err != nil {
		t.Fatal(err)
	}
	s.Lost(map[string]time.Time{"c": began})
	if code, err := s.Wait(t.Context(), lost); code != 255 || err != nil {
		t.Errorf("lost with its supervisor: %d %v", code, err)
	}
	if i, _ := s.Inspect(t.Context(), fresh); !i.Running {
		t.Errorf("the new run's exec was ended too: %+v", i)
	}
	if err := s.Kill(t.Context(), fresh); err != nil {
		t.Error(err)
	}
	if code, _ := s.Wait(t.Context(), fresh); code != 137 {
		t.Errorf("killed: %d", code)
	}
}
