package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

var background = context.Background()

func TestRunTraceAndRemoval(t *testing.T) {
	w := newWorld(t)
	id := w.create("web", nil)
	next, err := w.s.Wait(background, "web", container.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	w.start("/web")
	st := w.status(id[:6])
	if !st.Running || st.Pid == 0 || st.Status != "running" {
		t.Errorf("state %+v", st)
	}
	if err := w.s.Start(background, id); !errdefs.IsNotModified(err) {
		t.Errorf("second start: %v", err)
	}
	if err := w.s.Remove(background, id, RemoveOptions{}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), `cannot remove container "`+id+`": container is running: stop the container before removing or force remove`) {
		t.Errorf("removed a running container: %v", err)
	}
	w.runtime.exit(id, 7)
	if r := receive(t, next); r.StatusCode != 7 {
		t.Errorf("waited %+v", r)
	}
	if e := w.event("die"); e.Attributes["exitCode"] != "7" || e.Attributes["image"] != "app" || e.Attributes["name"] != "web" {
		t.Errorf("die event %+v", e)
	}
	if r := w.wait("web", ""); r.StatusCode != 7 {
		t.Errorf("not-running: %+v", r)
	}
	w.settle(id)
	if len(w.networks.in) != 0 || len(w.runtime.states) != 0 {
		t.Errorf("left: networks %v runtime %v", w.networks.in, w.runtime.states)
	}
	if err := w.s.Remove(background, "web", RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	w.event("destroy")
	w.s.remover.background.Wait()
	for _, dir := range []string{"containers", "volumes"} {
		if left, _ := os.ReadDir(filepath.Join(w.data, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
	if len(w.images.holds) != 0 {
		t.Errorf("holds left: %v", w.images.holds)
	}
	if err := w.s.Start(background, "web"); !errdefs.IsNotFound(err) || err.Error() != "No such container: web" {
		t.Errorf("after removal: %v", err)
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	id := w.create("one", nil)
	_, err := w.s.Create(background, CreateRequest{Name: "one", Config: &container.Config{Image: "app"}})
	want := `Conflict. The container name "/one" is already in use by container "` + id + `". You have to remove (or rename) that container to be able to reuse that name.`
	if !errdefs.IsConflict(err) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if _, err := w.s.Create(background, CreateRequest{Name: "no/slash", Config: &container.Config{Image: "app"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := w.s.Create(background, CreateRequest{Config: &container.Config{Image: "nope"}}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown image: %v", err)
	}
	if err := w.s.Rename(background, "one", "two"); err != nil {
		t.Fatal(err)
	}
	w.create("one", nil)
	other := w.create("", nil)
	i, _ := w.s.Inspect(background, other, false)
	if !strings.Contains(i.Name, "_") {
		t.Errorf("generated name %q", i.Name)
	}
	if left, _ := os.ReadDir(filepath.Join(w.data, "containers")); len(left) != 3 {
		t.Errorf("a failed create left something: %v", left)
	}
	if len(w.images.holds) != 3 {
		t.Errorf("a failed create left a hold: %v", w.images.holds)
	}
}

func TestExecErrors(t *testing.T) {
	for _, c := range []struct {
		err  *client.ExecError
		code int
		want string
	}{
		{&client.ExecError{Program: "foo", Err: syscall.ENOENT, Code: 127}, 127, `exec: "foo": executable file not found in $PATH: unknown`},
		{&client.ExecError{Program: "/foo", Err: syscall.ENOENT, Code: 127}, 127, `exec: "/foo": stat /foo: no such file or directory: unknown`},
		{&client.ExecError{Program: "/etc", Err: syscall.EACCES, Code: 126}, 126, `exec: "/etc": permission denied: unknown`},
	} {
		w := newWorld(t)
		w.runtime.startErr = c.err
		id := w.create("xx", nil)
		err := w.s.Start(background, id)
		if !errdefs.IsInvalidArgument(err) || err.Error() != "failed to create task for container: "+c.want {
			t.Errorf("got %v", err)
		}
		st := w.status(id)
		if st.ExitCode != c.code || st.Error == "" || st.Status != "created" {
			t.Errorf("state %+v", st)
		}
		if len(w.networks.in)+len(w.runtime.states) != 0 {
			t.Error("not undone")
		}
		auto := w.create("yy", func(r *CreateRequest) { r.HostConfig.AutoRemove = true })
		if err := w.s.Start(background, auto); err == nil {
			t.Error("started")
		}
		if _, err := w.s.Inspect(background, auto, false); !errdefs.IsNotFound(err) {
			t.Errorf("--rm container stays after a failed start: %v", err)
		}
	}
}

func TestAutoRemove(t *testing.T) {
	w := newWorld(t)
	id := w.create("xx", func(r *CreateRequest) { r.HostConfig.AutoRemove = true })
	removed, err := w.s.Wait(background, id, container.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	w.start(id)
	w.runtime.exit(id, 3)
	if r := receive(t, removed); r.StatusCode != 3 {
		t.Errorf("%+v", r)
	}
	if _, err := w.s.Inspect(background, id, false); !errdefs.IsNotFound(err) {
		t.Errorf("still there: %v", err)
	}
	if list, err := w.s.cfg.Volumes.Get("xx"); err == nil {
		t.Errorf("volume %v", list)
	}
}

func TestExitBeforeStartReturns(t *testing.T) {
	w := newWorld(t)
	w.runtime.onStart = func(id string) { w.runtime.exit(id, 5) }
	id := w.create("xx", nil)
	next, _ := w.s.Wait(background, id, container.WaitConditionNextExit)
	w.start(id)
	if r := receive(t, next); r.StatusCode != 5 {
		t.Errorf("%+v", r)
	}
	w.settle(id)
	if st := w.status(id); st.Status != "exited" || st.ExitCode != 5 {
		t.Errorf("%+v", st)
	}
}

func TestAttachBeforeStart(t *testing.T) {
	w := newWorld(t)
	id := w.create("xx", nil)
	s, err := w.s.Attach(background, id, AttachOptions{Stream: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	w.start(id)
	s.Conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(s.Conn); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
	// A client that waits for a container that goes away instead sees the end.
	other := w.create("yy", nil)
	s, err = w.s.Attach(background, other, AttachOptions{Stream: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.s.Remove(background, other, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.Conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(s.Conn); err != nil || len(got) != 0 {
		t.Errorf("%q %v", got, err)
	}
}

func TestRestartPolicies(t *testing.T) {
	w := newWorld(t)
	id := w.create("xx", func(r *CreateRequest) {
		r.HostConfig.RestartPolicy = container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1}
	})
	w.start(id)
	w.event("start")
	w.runtime.exit(id, 1)
	w.event("start")
	if i, _ := w.s.Inspect(background, id, false); i.RestartCount != 1 || !i.State.Running {
		t.Errorf("%+v", i.State)
	}
	w.runtime.exit(id, 1)
	w.event("die")
	w.settle(id)
	if st := w.status(id); st.Status != "exited" {
		t.Errorf("restarted too often: %+v", st)
	}

	always := w.create("yy", func(r *CreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
	w.start(always)
	w.event("start")
	if err := w.s.Stop(background, always, "", nil); err != nil {
		t.Fatal(err)
	}
	if st := w.status(always); st.Status != "exited" || st.ExitCode != 128+15 {
		t.Errorf("%+v", st)
	}
	if err := w.s.Stop(background, always, "", nil); !errdefs.IsNotModified(err) {
		t.Errorf("second stop: %v", err)
	}
	w.start(always)
	w.event("start")
	w.runtime.exit(always, 0)
	w.event("die")
	w.settle(always)
	if err := w.s.Stop(background, always, "", nil); err != nil { // within the back-off, or just started
		t.Fatal(err)
	}
	if st := w.status(always); st.Status != "exited" {
		t.Errorf("%+v", st)
	}
}

// A removal, stop or kill that comes while the policy's start is under way waits for it, and ends what it started.
func TestEndDuringPolicyRestart(t *testing.T) {
	for name, end := range map[string]func(w *world, id string) error{
		"remove": func(w *world, id string) error { return w.s.Remove(background, id, RemoveOptions{Force: true}) },
		"stop":   func(w *world, id string) error { return w.s.Stop(background, id, "", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id := w.create("xx", func(r *CreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
			w.start(id)
			w.event("start")
			entered, leave := make(chan struct{}), make(chan struct{})
			var once sync.Once
			w.runtime.onStart = func(string) {
				once.Do(func() {
					close(entered)
					<-leave
				})
			}
			w.runtime.exit(id, 1)
			receive(t, entered)
			ended := make(chan error, 1)
			go func() { ended <- end(w, id) }()
			close(leave)
			if err := receive(t, ended); err != nil {
				t.Fatal(err)
			}
			if i, err := w.s.Inspect(background, id, false); name == "remove" && err == nil || name == "stop" && (err != nil || i.State.Running) {
				t.Errorf("afterwards: %+v %v", i.State, err)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	var d time.Duration
	for _, want := range []time.Duration{100, 200, 400, 800} {
		if d = nextBackoff(d, time.Second); d != want*time.Millisecond {
			t.Errorf("got %s want %d ms", d, want)
		}
	}
	if d = nextBackoff(time.Minute, time.Second); d != time.Minute {
		t.Error(d)
	}
	if d = nextBackoff(d, 11*time.Second); d != firstBackoff {
		t.Error(d)
	}
}

func TestStopKillsAfterTimeout(t *testing.T) {
	w := newWorld(t)
	id := w.create("deaf", func(r *CreateRequest) { r.Config.StopSignal = "SIGQUIT" })
	w.start(id)
	var got []int
	w.runtime.signal = func(id string, sig int) error {
		got = append(got, sig)
		if sig == 9 {
			go w.runtime.exit(id, 137)
		}
		return nil
	}
	zero := 0
	if err := w.s.Stop(background, id, "", &zero); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != 3 || got[1] != 9 {
		t.Errorf("signals %v", got)
	}
	if err := w.s.Kill(background, id, "TERM"); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("kill: %v", err)
	}
	if err := w.s.Kill(background, id, "NOPE"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("kill: %v", err)
	}
}

// A container that ended by itself is stopped, also while the news of its end are on their way.
func TestStopOfOneThatJustEnded(t *testing.T) {
	w := newWorld(t)
	w.runtime.signal = func(id string, _ int) error {
		go w.runtime.exit(id, 3)
		return fault.Conflict("container %s is not running", id)
	}
	for name, end := range map[string]func(id string) error{
		"stop":    func(id string) error { return w.s.Stop(background, id, "", nil) },
		"restart": func(id string) error { return w.s.Restart(background, id, "", nil) },
		"remove":  func(id string) error { return w.s.Remove(background, id, RemoveOptions{Force: true}) },
	} {
		id := w.create(name, nil)
		w.start(id)
		if err := end(id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecovery(t *testing.T) {
	w := newWorld(t)
	running := w.create("running", nil)
	ended := w.create("ended", nil)
	lost := w.create("lost", nil)
	auto := w.create("auto", func(r *CreateRequest) { r.HostConfig.AutoRemove = true })
	again := w.create("again", func(r *CreateRequest) { r.HostConfig.RestartPolicy.Name = "unless-stopped" })
	byHand := w.create("by-hand", func(r *CreateRequest) { r.HostConfig.RestartPolicy.Name = "unless-stopped" })
	fresh := w.create("fresh", func(r *CreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
	for _, id := range []string{running, ended, lost, auto, again, byHand} {
		w.start(id)
	}
	if err := w.s.Stop(background, byHand, "", nil); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(w.data, "containers", strings.Repeat("ab", 32))
	os.MkdirAll(filepath.Join(half, "upper"), 0o755)
	w.close()
	w.runtime.exits = nil
	w.runtime.exit(ended, 42)
	w.runtime.exit(auto, 1)
	w.runtime.exit(again, 1)
	delete(w.runtime.states, lost)
	w.runtime.states["stranger"] = &runtime.State{ID: "stranger", Status: runtime.Stopped}
	w.runtime.connect()
	w.open()

	if st := w.status(running); !st.Running || st.Pid == 0 {
		t.Errorf("running: %+v", st)
	}
	if len(w.networks.live) != 1 || w.networks.live[running] == 0 {
		t.Errorf("live: %v", w.networks.live)
	}
	w.settle(ended)
	if st := w.status(ended); st.ExitCode != 42 || st.Status != "exited" {
		t.Errorf("ended: %+v", st)
	}
	if st := w.status(lost); st.ExitCode != 255 || st.Error == "" {
		t.Errorf("lost: %+v", st)
	}
	for w.event("start").ID != again {
	}
	if st := w.status(byHand); st.Running {
		t.Errorf("by hand: %+v", st)
	}
	if st := w.status(fresh); st.Status != "created" {
		t.Errorf("fresh: %+v", st)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Error("half-made container stays")
	}
	w.close() // waits for all work
	w.runtime.connect()
	w.open()
	if _, err := w.s.Inspect(background, auto, false); !errdefs.IsNotFound(err) {
		t.Errorf("auto-remove container stays: %v", err)
	}
	if _, ok := w.runtime.states["stranger"]; ok {
		t.Error("stranger stays")
	}
}

func TestVolumesAndWorkingDir(t *testing.T) {
	w := newWorld(t)
	id := w.create("xx", func(r *CreateRequest) {
		r.Config.WorkingDir = "/made/for/me"
		r.HostConfig.Binds = []string{"named:/srv/app:ro"}
		r.HostConfig.Tmpfs = map[string]string{"/scratch": "size=1m"}
	})
	i, err := w.s.Inspect(background, id, false)
	if err != nil || len(i.Mounts) != 2 {
		t.Fatal(i.Mounts, err)
	}
	if i.Mounts[0].Destination != "/data" || i.Mounts[1].Name != "named" || i.Mounts[1].RW {
		t.Errorf("%+v", i.Mounts)
	}
	if got, err := os.ReadFile(filepath.Join(i.Mounts[0].Source, "seed")); err != nil || string(got) != "from the image" {
		t.Errorf("not copied up: %q %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(w.data, "containers", id, "upper/made/for/me")); err != nil {
		t.Error(err)
	}
	from := w.create("yy", func(r *CreateRequest) { r.HostConfig.VolumesFrom = []string{"xx:ro"} })
	j, _ := w.s.Inspect(background, from, false)
	if len(j.Mounts) != 2 || j.Mounts[0].Name != i.Mounts[0].Name || j.Mounts[0].RW {
		t.Errorf("volumes-from: %+v", j.Mounts)
	}
	if err := w.s.Remove(background, "xx", RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.cfg.Volumes.Get(i.Mounts[0].Name); err != nil {
		t.Error("a volume that another container uses was removed")
	}
}

func TestListFilters(t *testing.T) {
	w := newWorld(t)
	a := w.create("alpha", func(r *CreateRequest) {
		r.Config.Labels = map[string]string{"tier": "web"}
		r.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080"}}}
	})
	b := w.create("beta", nil)
	c := w.create("gamma", func(r *CreateRequest) { r.HostConfig.NetworkMode = "mynet" })
	w.start(a)
	w.start(b)
	w.runtime.exit(b, 9)
	w.event("die")
	for _, x := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{}, "alpha"},
		{ListOptions{All: true}, "gamma beta alpha"},
		{ListOptions{Limit: 1}, "gamma"},
		{ListOptions{All: true, Filters: filter.Args{"name": {"^/?al"}}}, "alpha"},
		{ListOptions{All: true, Filters: filter.Args{"id": {c[:8]}}}, "gamma"},
		{ListOptions{Filters: filter.Args{"exited": {"9"}}}, "beta"},
		{ListOptions{Filters: filter.Args{"status": {"created", "running"}}}, "gamma alpha"},
		{ListOptions{All: true, Filters: filter.Args{"label": {"tier=web"}}}, "alpha"},
		{ListOptions{All: true, Filters: filter.Args{"network": {"id-mynet"}}}, ""},
		{ListOptions{All: true, Filters: filter.Args{"network": {"mynet"}}}, "gamma"},
		{ListOptions{Filters: filter.Args{"before": {"beta"}}}, "alpha"},
		{ListOptions{Filters: filter.Args{"since": {"beta"}}}, "gamma"},
		{ListOptions{All: true, Filters: filter.Args{"publish": {"80"}}}, "alpha"},
		{ListOptions{All: true, Filters: filter.Args{"ancestor": {"app"}}}, "gamma beta alpha"},
		{ListOptions{All: true, Filters: filter.Args{"volume": {"/data"}}}, "gamma beta alpha"},
		{ListOptions{All: true, Filters: filter.Args{"health": {"none"}}}, "gamma beta alpha"},
		{ListOptions{All: true, Filters: filter.Args{"is-task": {"true"}}}, ""},
	} {
		list, err := w.s.List(background, x.o)
		if err != nil {
			t.Errorf("%+v: %v", x.o, err)
		}
		var names []string
		for _, s := range list {
			names = append(names, s.Names[0][1:])
		}
		if got := strings.Join(names, " "); got != x.want {
			t.Errorf("%+v: got %q want %q", x.o, got, x.want)
		}
	}
	for _, bad := range []filter.Args{{"nope": {"x"}}, {"status": {"nope"}}, {"exited": {"x"}}} {
		if _, err := w.s.List(background, ListOptions{Filters: bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	list, _ := w.s.List(background, ListOptions{})
	if s := list[0]; len(s.Ports) != 1 || s.Ports[0].PublicPort != 8080 || s.Command != "serve" || !strings.HasPrefix(s.Status, "Up ") {
		t.Errorf("%+v", s)
	}
}

func TestPauseRenameConnect(t *testing.T) {
	w := newWorld(t)
	id := w.create("xx", nil)
	if err := w.s.Pause(background, id); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	w.start(id)
	if err := w.s.Pause(background, id); err != nil {
		t.Fatal(err)
	}
	if st := w.status(id); !st.Paused || !st.Running {
		t.Errorf("%+v", st)
	}
	if _, err := w.s.Attach(background, id, AttachOptions{Stream: true}); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	if err := w.s.Unpause(background, id); err != nil {
		t.Fatal(err)
	}
	if err := w.s.Connect(background, "mynet", id, nil); err != nil {
		t.Fatal(err)
	}
	i, _ := w.s.Inspect(background, id, false)
	if i.NetworkSettings.Networks["mynet"] == nil || i.NetworkSettings.Networks["bridge"] == nil {
		t.Errorf("%v", i.NetworkSettings.Networks)
	}
	if err := w.s.Disconnect(background, "mynet", id, false); err != nil {
		t.Fatal(err)
	}
	w.restart()
	i, _ = w.s.Inspect(background, id, false)
	if len(i.NetworkSettings.Networks) != 1 || i.NetworkSettings.Networks["bridge"].IPAddress.String() != "172.17.0.2" {
		t.Errorf("after a restart: %v", i.NetworkSettings.Networks)
	}
	if err := w.s.Remove(background, id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}
