package cgroup

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }

// group makes a name of a real group and removes it, and its parent, in the end.
func group(t *testing.T) *Group {
	t.Helper()
	b := make([]byte, 6)
	rand.Read(b)
	g, err := Open("/tare-test-" + hex.EncodeToString(b) + "/c")
	must(t, err)
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
		parent, _ := Open(filepath.Dir(g.path))
		if err := parent.Remove(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// sleeper is a process in the group.
func sleeper(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	var joins []string
	for _, d := range g.dirs() {
		joins = append(joins, "echo 0 > "+d+"/cgroup.procs")
	}
	cmd := exec.Command("sh", "-c", strings.Join(joins, "; ")+"; echo in; "+script)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	buf := make([]byte, 3)
	if _, err := out.Read(buf); err != nil || string(buf) != "in\n" {
		t.Fatalf("%q, %v", buf, err)
	}
	return cmd
}

func TestMountinfo(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		v2   bool
		want map[string]string
	}{
		"hybrid": {`32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 31 0:30 /docker/x /elsewhere rw shared:4 - cgroup cgroup rw,memory
35 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
36 31 0:32 / /with\040blank rw shared:4 master:1 - cgroup cgroup rw,pids
37 31 0:32 / /again rw - cgroup cgroup rw,pids
`, false, map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "name=systemd": "/sys/fs/cgroup/systemd", "pids": "/with blank"}},
		"unified": {"24 1 0:22 / /sys rw - sysfs sysfs rw\n35 31 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n", true, map[string]string{"": "/sys/fs/cgroup"}},
	} {
		h, err := parseMountinfo(strings.NewReader(c.in))
		must(t, err)
		if h.V2 != c.v2 || len(h.Controllers) != len(c.want) {
			t.Fatalf("%s: %+v", name, h)
		}
		for k, v := range c.want {
			if h.Controllers[k] != v {
				t.Errorf("%s: %s is %q, want %q", name, k, h.Controllers[k], v)
			}
		}
	}
	if _, err := parseMountinfo(strings.NewReader("")); err == nil {
		t.Error("no hierarchy at all is no error")
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
	f.Fuzz(func(t *testing.T, in string) { parseMountinfo(strings.NewReader(in)) })
}

func TestLimits(t *testing.T) {
	g := group(t)
	if g.host.V2 {
		testLimitsV2(t, g)
		return
	}
	must(t, g.Create(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(128 << 20)), Reservation: ptr(int64(32 << 20)), Swappiness: ptr(uint64(10)), DisableOOMKiller: ptr(true)},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0", Mems: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(50))},
	}))
	want := func(controller, file, value string) {
		t.Helper()
		if got := readString(filepath.Join(g.dir(controller), file)); got != value {
			t.Errorf("%s is %q, want %q", file, got, value)
		}
	}
	want("memory", "memory.limit_in_bytes", "67108864")
	want("memory", "memory.memsw.limit_in_bytes", "134217728")
	want("memory", "memory.soft_limit_in_bytes", "33554432")
	want("memory", "memory.swappiness", "10")
	want("cpu", "cpu.shares", "512")
	want("cpu", "cpu.cfs_quota_us", "50000")
	want("cpuset", "cpuset.cpus", "0")
	want("pids", "pids.max", "50")
	if readKeys(filepath.Join(g.dir("memory"), "memory.oom_control"))["oom_kill_disable"] != 1 {
		t.Error("the OOM killer is on")
	}
	// Up and down again: the order of memory and memory plus swap matters.
	for _, mb := range []int64{256, 16, 512} {
		must(t, g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(mb << 20), Swap: ptr(mb << 21)}}))
		want("memory", "memory.limit_in_bytes", strconv.FormatInt(mb<<20, 10))
		want("memory", "memory.memsw.limit_in_bytes", strconv.FormatInt(mb<<21, 10))
	}
	must(t, g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}))
	want("pids", "pids.max", "max")
	want("cpu", "cpu.shares", "512") // was not given: stays
	s, err := g.Stats()
	must(t, err)
	if s.PidsLimit != 0 || s.MemoryLimit != hostMemory() || s.CPUTotal != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMembers(t *testing.T) {
	g := group(t)
	must(t, g.Create(nil))
	cmd := sleeper(t, g, "x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done; sleep 100 & wait")
	if err := g.Create(nil); !errdefs.IsConflict(err) {
		t.Errorf("a group with processes was taken over: %v", err)
	}
	pids, err := g.Pids()
	must(t, err)
	if !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("%d is not in %v", cmd.Process.Pid, pids)
	}
	must(t, g.Freeze())
	if !g.Frozen() {
		t.Error("not frozen")
	}
	must(t, g.Freeze())
	must(t, g.Thaw())
	if g.Frozen() {
		t.Error("still frozen")
	}
	s, err := g.Stats()
	must(t, err)
	if s.Pids < 1 || s.MemoryUsage == 0 || s.CPUTotal == 0 || len(s.MemoryStat) == 0 {
		t.Errorf("%+v", s)
	}
	for pids, _ = g.Pids(); len(pids) > 0; pids, _ = g.Pids() {
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		cmd.Wait()
	}
	// A group that the container made in its own goes with it.
	must(t, os.Mkdir(g.dirs()[0]+"/below", 0o755))
	must(t, g.Remove())
	must(t, g.Remove())
	if _, err := g.Pids(); !errdefs.IsNotFound(err) {
		t.Errorf("pids of a removed group: %v", err)
	}
	if _, err := g.Stats(); !errdefs.IsNotFound(err) {
		t.Errorf("statistics of a removed group: %v", err)
	}
	if err := g.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}); !errdefs.IsNotFound(err) {
		t.Errorf("limits of a removed group: %v", err)
	}
}

func TestOOMKills(t *testing.T) {
	g := group(t)
	must(t, g.Create(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}}))
	if n := g.OOMKills(); n != 0 {
		t.Fatalf("%d kills before there was a process", n)
	}
	cmd := sleeper(t, g, "exec dd if=/dev/zero of=/dev/null bs=256M count=4")
	cmd.Wait()
	if n := g.OOMKills(); n == 0 {
		t.Error("no kill was counted")
	}
}

func TestDeviceRules(t *testing.T) {
	for _, c := range []struct {
		rule specs.LinuxDeviceCgroup
		want string
	}{
		{specs.LinuxDeviceCgroup{Access: "rwm"}, "a *:* rwm"},
		{specs.LinuxDeviceCgroup{Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "r"}, "c 1:3 r"},
		{specs.LinuxDeviceCgroup{Type: "b", Major: ptr(int64(-1)), Minor: ptr(int64(-1))}, "b *:* rwm"},
		{specs.LinuxDeviceCgroup{Type: "u", Major: ptr(int64(10))}, "c 10:* rwm"},
		{specs.LinuxDeviceCgroup{Type: "x"}, ""},
		{specs.LinuxDeviceCgroup{Type: "a", Major: ptr(int64(1))}, ""},
		{specs.LinuxDeviceCgroup{Type: "c", Access: "rx"}, ""},
	} {
		got, err := deviceRule(c.rule)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v; want %q", c.rule, got, err, c.want)
		}
	}
}

var deny = []specs.LinuxDeviceCgroup{
	{Access: "rwm"},
	{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(11)), Access: "r"}, // /dev/kmsg
	{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rwm"},
	{Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rwm"},
}

// try opens devices from inside the group: "r" and "w" as they succeed.
func try(t *testing.T, joins []string) string {
	t.Helper()
	dir := t.TempDir()
	script := strings.Join(joins, "; ") + "; cd " + dir + `
for d in "null 1 3" "full 1 7" "kmsg 1 11" "mem 1 1" "fuse 10 229"; do set -- $d; mknod $1 c $2 $3 || continue
	printf '%s ' $1; (: <$1) 2>/dev/null && printf r; (: >>$1) 2>/dev/null && printf w; echo; done`
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), ",")
}

const tried = "null rw,full rw,kmsg r,mem ,fuse"

// TestDevices is the machine's own way, and that a live group's rules are replaced, with groups below it too.
func TestDevices(t *testing.T) {
	g := group(t)
	must(t, g.Create(&specs.LinuxResources{Devices: deny}))
	dir := g.dir("devices")
	join := []string{"echo $$ > " + dir + "/cgroup.procs"}
	if got := try(t, join); got != tried {
		t.Errorf("got  %s\nwant %s", got, tried)
	}
	sleeper(t, g, "exec sleep 1000")
	below, err := Open(g.Path() + "/below")
	must(t, err)
	if !g.host.V2 { // else the processes are in the way of nothing, but groups below see the program too
		must(t, below.Create(nil))
	}
	allow := func(minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(minor), Access: access}
	}
	for _, c := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, allow(11, "rw")}, "null rw,full rw,kmsg rw,mem ,fuse"},
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, allow(11, "w")}, "null rw,full rw,kmsg w,mem ,fuse"},
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, allow(11, "r")}, "null rw,full rw,kmsg r,mem ,fuse"},
	} {
		must(t, g.Set(&specs.LinuxResources{Devices: c.rules}))
		if got := try(t, join); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		// What says nothing of devices leaves them.
		must(t, g.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(500))}}))
		if got := try(t, join); got != c.want {
			t.Errorf("another limit was set: got  %s\nwant %s", got, c.want)
		}
	}
	if !g.host.V2 {
		must(t, below.Remove())
	}
	// To all and back, which begins anew under v1.
	must(t, g.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}))
	if got := try(t, join); got != strings.ReplaceAll("null rw,full rw,kmsg rw,mem rw,fuse"+fuse(), "rw,mem rw", "rw,mem "+memMode()) {
		t.Errorf("all: %s", got)
	}
	must(t, g.Set(&specs.LinuxResources{Devices: deny}))
	if got := try(t, join); got != tried {
		t.Errorf("back: got  %s\nwant %s", got, tried)
	}
	if g.Frozen() {
		t.Error("the group stayed frozen")
	}
}

// fuse and memMode are what this kernel lets root do with two devices when no group forbids it.
func fuse() string {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err == nil {
		f.Close()
		return " rw"
	}
	return ""
}

func memMode() (s string) {
	for mode, letter := range []string{"r", "w"} {
		if f, err := os.OpenFile("/dev/mem", mode, 0); err == nil { // O_RDONLY is 0, O_WRONLY 1
			f.Close()
			s += letter
		}
	}
	return s
}

// The program for v2 decides alike. A hybrid machine's empty v2 tree is enough to run it.
func TestDevicesV2(t *testing.T) {
	tree := ""
	for _, m := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(m, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			tree = m
		}
	}
	if tree == "" {
		t.Skip("no v2 tree")
	}
	dir, err := os.MkdirTemp(tree, "tare-test-")
	must(t, err)
	t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Error(err)
		}
	})
	must(t, devicesV2(dir, deny))
	if got := try(t, []string{"echo $$ > " + dir + "/cgroup.procs"}); got != tried {
		t.Errorf("got  %s\nwant %s", got, tried)
	}
}

// fakeV2 is a folder that looks like a v2 tree with these controllers on.
func fakeV2(t *testing.T) *Group {
	t.Helper()
	root := t.TempDir()
	h := Hierarchies{V2: true, Controllers: map[string]string{"": root}}
	g, err := h.Open("/tare/x/c")
	must(t, err)
	must(t, os.WriteFile(root+"/cgroup.controllers", []byte("cpu memory pids io cpuset\n"), 0o644))
	must(t, os.WriteFile(root+"/cgroup.subtree_control", []byte("cpu\n"), 0o644))
	at := root
	for _, d := range []string{"tare", "x", "c"} {
		at += "/" + d
		must(t, os.Mkdir(at, 0o755))
		for _, f := range []string{"cgroup.controllers", "cgroup.subtree_control", "cgroup.procs", "memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max", "io.weight", "io.max", "memory.high", "cgroup.freeze", "cgroup.events"} {
			must(t, os.WriteFile(at+"/"+f, nil, 0o644))
		}
	}
	return g
}

func TestV2Files(t *testing.T) {
	g := fakeV2(t)
	must(t, g.Create(&specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(150)), Reservation: ptr(int64(50))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(-1)), Cpus: "0-1"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(0))}, // not before there is a process
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(1000)), ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8}, Rate: 1000}}},
		Unified: map[string]string{"memory.high": "90"},
	}))
	if got := readString(g.dir("pids") + "/pids.max"); got != "" {
		t.Errorf("pids.max is %q in a group without a process", got)
	}
	must(t, g.Settle())
	for file, want := range map[string]string{
		"memory.max": "100", "memory.swap.max": "50", "memory.low": "50", "cpu.weight": "100", "cpu.max": "max 100000", "cpuset.cpus": "0-1",
		"pids.max": "0", "io.weight": "10000", "io.max": "8:0 rbps=1000", "memory.high": "90",
	} {
		if got := readString(g.dir("memory") + "/" + file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	must(t, os.WriteFile(g.dir("")+"/cpu.max", []byte("max 50000\n"), 0o644))
	must(t, g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(20000))}}))
	if got := readString(g.dir("") + "/cpu.max"); got != "20000 50000" {
		t.Errorf("cpu.max is %q: the period was not kept", got)
	}
	for name, r := range map[string]*specs.LinuxResources{
		"swappiness":         {Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(1))}},
		"swap below memory":  {Memory: &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(5))}},
		"swap without limit": {Memory: &specs.LinuxMemory{Swap: ptr(int64(5))}},
		"network":            {Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}},
		"rdma":               {Rdma: map[string]specs.LinuxRdma{"x": {}}},
		"no rdma":            {Rdma: map[string]specs.LinuxRdma{"x": {HcaHandles: ptr(uint32(1))}}},
		"burst":              {CPU: &specs.LinuxCPU{Quota: ptr(int64(1000)), Burst: ptr(uint64(2000))}},
		"hierarchy":          {Memory: &specs.LinuxMemory{UseHierarchy: ptr(false)}},
		"leaf weight":        {BlockIO: &specs.LinuxBlockIO{LeafWeight: ptr(uint16(10))}},
		"realtime":           {CPU: &specs.LinuxCPU{RealtimeRuntime: ptr(int64(1))}},
		"file":               {Unified: map[string]string{"../x.y": "1"}},
		"kernel":             {Memory: &specs.LinuxMemory{Kernel: ptr(int64(1))}},
		"no such controller": {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1}}},
	} {
		if err := g.Set(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestV2Stats(t *testing.T) {
	g := fakeV2(t)
	for file, text := range map[string]string{
		"cpu.stat":       "usage_usec 10\nuser_usec 4\nsystem_usec 6\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\n",
		"memory.current": "4096\n", "memory.peak": "8192\n", "memory.max": "65536\n", "memory.stat": "anon 1\nfile 2\n",
		"memory.events": "max 5\noom_kill 1\n", "pids.current": "3\n", "pids.max": "max\n",
		"io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
	} {
		must(t, os.WriteFile(g.dir("")+"/"+file, []byte(text), 0o644))
	}
	s, err := g.Stats()
	must(t, err)
	if s.CPUTotal != 10000 || s.CPUUser != 4000 || s.Throttled != 2 || s.ThrottledTime != 7000 || s.MemoryUsage != 4096 || s.MemoryMax != 8192 ||
		s.MemoryLimit != 65536 || s.MemoryFailcnt != 5 || s.OOMKills != 1 || s.Pids != 3 || s.PidsLimit != 0 || s.MemoryStat["file"] != 2 || !s.V2 ||
		!slices.Equal(s.IO, []IOEntry{{8, 0, "read", 10, 1}, {8, 0, "write", 20, 2}}) {
		t.Errorf("%+v", s)
	}
}

func TestOpen(t *testing.T) {
	for _, p := range []string{"", "/", "/..", "system.slice:docker", "a:b:c:d", "system:docker:x", "a--b.slice:p:x", "x.slice:p:", "x.slice:p:a/b"} {
		if _, err := Open(p); err == nil {
			t.Errorf("%q: no error", p)
		}
	}
	g, err := Open("../../x")
	must(t, err)
	if g.Path() != "/x" {
		t.Errorf("path is %s", g.Path())
	}
}
