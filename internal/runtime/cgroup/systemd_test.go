package cgroup

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/runtime/cgroup/unit"
)

func TestUnitPaths(t *testing.T) {
	for in, want := range map[string]string{
		"system.slice:docker:4f":         "/system.slice/docker-4f.scope",
		":tare:x":                        "/system.slice/tare-x.scope",
		"a-b-c.slice::x":                 "/a.slice/a-b.slice/a-b-c.slice/x.scope",
		"-.slice:p:x":                    "/p-x.scope",
		"machine.slice::machine-w.slice": "/machine.slice/machine-w.slice",
	} {
		u, err := unit.Parse(in)
		must(t, err)
		if got := u.Path(); got != want {
			t.Errorf("%s is at %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"0::/init.scope\n": "/", "1:name=systemd:/docker/x/init.scope\n0::/docker/x/init.scope\n": "/docker/x", "0::/\n": "/"} {
		if got := rootOf(in); got != want {
			t.Errorf("%q: root %s, want %s", in, got, want)
		}
	}
}

func FuzzUnit(f *testing.F) {
	f.Add("system.slice:docker:4f")
	f.Fuzz(func(t *testing.T, in string) {
		if u, err := unit.Parse(in); err == nil {
			if p := u.Path(); p != path.Clean(p) || !strings.HasPrefix(p, "/") || strings.Contains(p, "..") && !strings.Contains(in, "..") {
				t.Errorf("%q is at %q", in, p)
			}
		}
	})
}

// fakeBus does what systemd would with the directories, and notes what it is asked.
type fakeBus struct {
	g     *Group
	calls []string
	props map[string]any
	fail  error
}

func (b *fakeBus) start(_ context.Context, name string, props []property) error {
	b.calls = append(b.calls, "start "+name)
	if b.fail != nil {
		return b.fail
	}
	b.note(props)
	pids := b.props["PIDs"].([]uint32)
	dir := b.g.v2()
	if dir == "" {
		dir = b.g.host.Controllers["name=systemd"] + b.g.path
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return write(dir, "cgroup.procs", strconv.Itoa(int(pids[0])))
}

func (b *fakeBus) set(_ context.Context, name string, props []property) error {
	b.calls = append(b.calls, "set "+name)
	b.note(props)
	return nil
}

func (b *fakeBus) stop(_ context.Context, name string) error {
	b.calls = append(b.calls, "stop "+name)
	return nil
}

func (b *fakeBus) close() {}

func (b *fakeBus) note(props []property) {
	b.props = map[string]any{}
	for _, p := range props {
		b.props[p.Name] = p.Value
	}
}

func unitGroup(t *testing.T) *Group {
	t.Helper()
	name := strings.Trim(group(t).path, "/")
	g, err := Open(":tare:" + strings.ReplaceAll(name, "/", "-"))
	must(t, err)
	return g
}

// TestSystemdCalls: the order of things around a scope, on real groups with a systemd that is played.
func TestSystemdCalls(t *testing.T) {
	g := unitGroup(t)
	if hasSystemd() { // which would not like somebody else at it
		name, _, _ := strings.Cut(g.unit.Name, ".")
		g.unit.Slice, g.path = "tare_test.slice", "/tare_test.slice/"+name+".scope"
		t.Cleanup(func() { parent, _ := Open("/tare_test.slice"); _ = parent.Remove() })
	}
	fake := &fakeBus{g: g}
	g.bus = func() (bus, error) { return fake, nil }
	must(t, g.Create(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(9))}}))
	holds := g.holder.Load()
	if holds == nil {
		t.Fatal("nobody holds the scope")
	}
	if fake.props["Delegate"] != true || fake.props["Slice"] != g.unit.Slice || fake.props["TasksMax"] != uint64(9) || fake.props["DefaultDependencies"] != false ||
		!reflect.DeepEqual(fake.props["PIDs"], []uint32{uint32(holds.pid)}) {
		t.Errorf("%v", fake.props)
	}
	if name := readString(fmt.Sprintf("/proc/%d/status", holds.pid)); !strings.Contains(name, "State:\tS") {
		t.Errorf("who holds the scope does not sleep: %s", name)
	}
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", holds.pid))
	if len(fds) != 1 {
		t.Errorf("who holds the scope keeps %d descriptors", len(fds))
	}
	cmd := sleeper(t, g, "exec sleep 1000")
	must(t, g.Settle())
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", holds.pid)); err == nil {
		t.Error("it is there after Settle")
	}
	reads(t, g, "pids", map[string]string{"pids.max": "9"})
	must(t, g.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}, CPU: &specs.LinuxCPU{Quota: ptr(int64(50000))}}))
	if fake.props["TasksMax"] != uint64(math.MaxUint64) || fake.props["CPUQuotaPerSecUSec"] != uint64(500000) {
		t.Errorf("%v", fake.props)
	}
	must(t, g.Kill())
	cmd.Wait()
	must(t, g.Remove())
	if got := strings.Join(fake.calls, ", "); got != strings.ReplaceAll("start U, set U, stop U", "U", g.unit.Name) {
		t.Errorf("systemd was asked: %s", got)
	}
	fake.fail = &unitBusy{"Unit x was already loaded"}
	if err := g.Create(nil); !errdefs.IsConflict(err) {
		t.Errorf("a unit that is there: %v", err)
	}
	if g.exists() || g.holder.Load() != nil {
		t.Error("something is left of a scope that could not be made")
	}
}

func TestProperties(t *testing.T) {
	g := &Group{place: place{"/x", Hierarchies{V2: true, Controllers: map[string]string{"": t.TempDir()}}}, unit: &unit.Unit{Slice: "a.slice", Name: "x.scope"}}
	props, err := g.properties(&specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(150)), Reservation: ptr(int64(50))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(33333)), Period: ptr(uint64(100000)), Cpus: "0-2,9", Mems: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(0))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(1000))},
		Unified: map[string]string{"memory.high": "max", "memory.min": "7"},
	}, true)
	must(t, err)
	want := []property{{"AllowedCPUs", []byte{7, 2}}, {"AllowedMemoryNodes", []byte{1}}, {"CPUQuotaPeriodUSec", uint64(100000)}, {"CPUQuotaPerSecUSec", uint64(340000)},
		{"CPUWeight", uint64(100)}, {"IOWeight", uint64(10000)}, {"MemoryHigh", uint64(math.MaxUint64)}, {"MemoryLow", uint64(50)}, {"MemoryMax", uint64(100)},
		{"MemoryMin", uint64(7)}, {"MemorySwapMax", uint64(50)}, {"TasksMax", uint64(1)}}
	got := map[string]any{}
	for _, p := range props {
		got[p.Name] = p.Value
	}
	for _, p := range want {
		if !reflect.DeepEqual(got[p.Name], p.Value) {
			t.Errorf("%s is %v, want %v", p.Name, got[p.Name], p.Value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	v1 := &Group{place: place{"/x", Hierarchies{Controllers: map[string]string{"devices": "/x"}}}, unit: g.unit}
	props, err = v1.properties(&specs.LinuxResources{Devices: deny}, true)
	must(t, err)
	text := fmt.Sprint(props)
	for _, want := range []string{"{DeviceAllow [", "{/dev/char/1:11 r}", "{/dev/char/1:3 rwm}", "{char-* m}", "{block-* m}", "{DevicePolicy strict}"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// TestSystemd asks the real one, where it is process 1: `make e2e-vm` boots such machines.
func TestSystemd(t *testing.T) {
	if !hasSystemd() {
		t.Skip("systemd does not manage this machine: make e2e-vm boots one that it does")
	}
	g := unitGroup(t)
	show := func(property string) string {
		out, err := exec.Command("systemctl", "show", "-P", property, g.unit.Name).Output()
		must(t, err)
		return strings.TrimSpace(string(out))
	}
	must(t, g.Create(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(9))},
		CPU: &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}, Devices: deny}))
	cmd := sleeper(t, g, "exec sleep 1000")
	must(t, g.Settle())
	if got := show("ControlGroup"); got != g.Path() {
		t.Errorf("systemd has the scope at %s, it was looked for at %s", got, g.Path())
	}
	if state := show("ActiveState"); state != "active" {
		t.Errorf("the scope is %s", state)
	}
	if g.Create(nil) == nil {
		t.Error("a scope was made twice")
	}
	memory := map[bool]string{true: "MemoryMax", false: "MemoryLimit"}[g.host.V2]
	for property, want := range map[string]string{memory: "67108864", "TasksMax": "9", "Delegate": "yes", "Slice": "system.slice", "CPUQuotaPerSecUSec": "500ms"} {
		if got := show(property); got != want {
			t.Errorf("%s is %s, want %s", property, got, want)
		}
	}
	must(t, g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}))
	for property, want := range map[string]string{memory: "33554432", "TasksMax": "7"} {
		if got := show(property); got != want {
			t.Errorf("%s is %s, want %s after an update", property, got, want)
		}
	}
	// A reload writes what systemd knows anew, and takes nothing back.
	must(t, exec.Command("systemctl", "daemon-reload").Run())
	reads(t, g, "pids", map[string]string{"pids.max": "7"})
	reads(t, g, "memory", map[string]string{map[bool]string{true: "memory.max", false: "memory.limit_in_bytes"}[g.host.V2]: "33554432"})
	if got := try(t, []string{"echo $$ > " + g.dir("devices") + "/cgroup.procs"}); got != tried {
		t.Errorf("devices after a reload:\ngot  %s\nwant %s", got, tried)
	}
	must(t, g.Freeze())
	must(t, g.Thaw())
	must(t, g.Kill())
	cmd.Wait()
	must(t, g.Remove())
	for deadline := time.Now().Add(20 * time.Second); show("LoadState") != "not-found"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the unit is still %s, %s", show("LoadState"), show("ActiveState"))
		}
	}
	// A name can be used again at once.
	must(t, g.Create(nil))
	must(t, g.Remove())
}
