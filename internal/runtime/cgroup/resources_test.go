package cgroup

import (
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func reads(t *testing.T, g *Group, controller string, want map[string]string) {
	t.Helper()
	for file, value := range want {
		if got := readString(path.Join(g.dir(controller), file)); got != value {
			t.Errorf("%s is %q, want %q", file, got, value)
		}
	}
}

func testLimitsV2(t *testing.T, g *Group) {
	must(t, g.Create(&specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(128 << 20)), Reservation: ptr(int64(32 << 20)), UseHierarchy: ptr(true)},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(10000)), Cpus: "0", Mems: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(50))},
		Unified: map[string]string{"memory.high": "60000000"},
	}))
	reads(t, g, "", map[string]string{
		"memory.max": "67108864", "memory.swap.max": "67108864", "memory.low": "33554432", "cpu.weight": "59", "cpu.max": "50000 100000",
		"cpu.max.burst": "10000", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "50", "memory.high": "59998208",
	})
	for _, mb := range []int64{256, 16, 512} {
		must(t, g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(mb << 20), Swap: ptr(mb << 21)}}))
		reads(t, g, "", map[string]string{"memory.max": itoa(mb << 20), "memory.swap.max": itoa(mb << 20)})
	}
	must(t, g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1)), Idle: ptr(int64(1))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}))
	reads(t, g, "", map[string]string{"cpu.max": "max 100000", "cpu.idle": "1", "pids.max": "max"})
	must(t, g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Idle: ptr(int64(0))}}))
	reads(t, g, "", map[string]string{"cpu.weight": "100", "cpu.idle": "0"})
}

func itoa(n int64) string { return limitV2(n) }

// TestEveryResource sets and changes each resource of the spec where this machine has its controller,
// and gets an error that names it where not.
func TestEveryResource(t *testing.T) {
	g := group(t)
	must(t, g.Create(nil))
	_, v2huge := g.on("hugetlb")
	hugefile := map[bool]string{true: "hugetlb.2MB.max", false: "hugetlb.2MB.limit_in_bytes"}[v2huge]
	for _, c := range []struct {
		name, controller, file string
		v1, v2                 bool
		set                    func(n int64) *specs.LinuxResources
		values                 []int64
		want                   string // %: the number
	}{
		{"shares", "cpu", "cpu.shares", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(n))}}
		}, []int64{512, 2048}, "%"},
		{"period", "cpu", "cpu.cfs_period_us", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(n)), Quota: ptr(n / 2)}}
		}, []int64{50000, 200000, 10000}, "%"},
		{"burst", "cpu", "cpu.cfs_burst_us", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(2 * n), Burst: ptr(uint64(n))}}
		}, []int64{20000, 10000, 30000}, "%"},
		{"idle", "cpu", "cpu.idle", true, true, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: &n}}
		}, []int64{1, 0}, "%"},
		{"reservation", "memory", "memory.soft_limit_in_bytes", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{Memory: &specs.LinuxMemory{Reservation: &n}}
		}, []int64{1 << 20, 8 << 20}, "%"},
		{"swappiness", "memory", "memory.swappiness", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(n))}}
		}, []int64{0, 50}, "%"},
		{"kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: &n}}
		}, []int64{1 << 20, 8 << 20}, "%"},
		{"hugepages", "hugetlb", hugefile, true, true, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: uint64(n)}}}
		}, []int64{4 << 20, 8 << 20, 0}, "%"},
		{"classID", "net_cls", "net_cls.classid", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(n))}}
		}, []int64{1048577, 1048578}, "%"},
		{"pids", "pids", "pids.max", true, true, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
		}, []int64{10, 0, 20}, "%"},
		{"oom", "memory", "memory.oom_control", true, false, func(n int64) *specs.LinuxResources {
			return &specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(n == 1)}}
		}, []int64{1, 0}, "oom_kill_disable %"},
	} {
		dir, v2 := g.on(c.controller)
		for _, n := range c.values {
			err := g.Set(c.set(n))
			if dir == "" || v2 && !c.v2 || !v2 && !c.v1 {
				switch {
				case v2 && (c.name == "shares" || c.name == "period" || c.name == "burst" || c.name == "reservation"):
					must(t, err) // by other files: see testLimitsV2
				case c.name == "oom" && n == 0:
					must(t, err) // as it is
				case err == nil:
					t.Errorf("%s: nothing was set, and no error told", c.name)
				}
				continue
			}
			if _, statErr := os.Stat(path.Join(dir, c.file)); statErr != nil {
				if err == nil {
					t.Errorf("%s: this kernel has no %s, and no error told", c.name, c.file)
				}
				continue
			}
			must(t, err)
			want := strings.ReplaceAll(c.want, "%", itoa(n))
			if got := readString(path.Join(dir, c.file)); got != want && !strings.HasPrefix(got, want+"\n") {
				t.Errorf("%s: %s is %q, want %q", c.name, c.file, got, want)
			}
		}
	}
	if dir, v2 := g.on("net_prio"); dir != "" && !v2 {
		must(t, g.Set(&specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 7}}}}))
		if got := readString(dir + "/net_prio.ifpriomap"); !strings.Contains(got, "lo 7") {
			t.Errorf("priorities: %q", got)
		}
	}
}

// TestThrottles limits a real block device, changes it and lifts it.
func TestThrottles(t *testing.T) {
	var st unix.Stat_t
	must(t, unix.Stat("/", &st))
	major, minor := int64(unix.Major(st.Dev)), int64(unix.Minor(st.Dev))
	if major == 0 {
		t.Skip("the root is on no block device")
	}
	g := group(t)
	must(t, g.Create(nil))
	dev := specs.LinuxBlockIODevice{Major: major, Minor: minor}
	at := number(dev)
	for _, rate := range []uint64{1 << 20, 2 << 20, 0} {
		limit := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: rate}}
		must(t, g.Set(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: limit, ThrottleWriteBpsDevice: limit, ThrottleReadIOPSDevice: limit, ThrottleWriteIOPSDevice: limit}}))
		var got, want string
		if d := g.dir("blkio"); d != "" && !g.host.V2 {
			got, want = readString(d+"/blkio.throttle.write_bps_device"), at+" "+itoa(int64(rate))
		} else {
			n := itoa(int64(rate))
			got, want = readString(g.dir("io")+"/io.max"), at+" rbps="+n+" wbps="+n+" riops="+n+" wiops="+n
		}
		if rate == 0 {
			want = ""
		}
		if got != want {
			t.Errorf("rate %d: %q, want %q", rate, got, want)
		}
	}
}

func TestCheckBeforeUpdate(t *testing.T) {
	g := group(t)
	must(t, g.Create(nil))
	sleeper(t, g, "head -c 24000000 /dev/zero >"+t.TempDir()+"/file; exec sleep 1000") // its pages in memory count
	deadline := time.Now().Add(60 * time.Second)
	for s, _ := g.Stats(); s.MemoryUsage < 20<<20; s, _ = g.Stats() {
		if time.Now().After(deadline) {
			t.Fatalf("only %d bytes are used", s.MemoryUsage)
		}
		time.Sleep(10 * time.Millisecond)
	}
	err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20)), CheckBeforeUpdate: ptr(true)}})
	if !errdefs.IsConflict(err) {
		t.Errorf("a limit below what is used: %v", err)
	}
	must(t, g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(512 << 20)), CheckBeforeUpdate: ptr(true)}}))
	must(t, g.Kill())
}

// TestHybrid: a controller that v1 left to the v2 tree is used there, and the group is in both.
func TestHybrid(t *testing.T) {
	v1, tree := t.TempDir(), t.TempDir()
	h := Hierarchies{Controllers: map[string]string{"memory": v1}, Unified: tree, Offers: []string{"hugetlb", "pids"}}
	must(t, os.WriteFile(tree+"/cgroup.controllers", []byte("hugetlb pids\n"), 0o644))
	must(t, os.WriteFile(tree+"/cgroup.subtree_control", nil, 0o644))
	g, err := h.Open("/c")
	must(t, err)
	if err := g.makeDir(v1); err != nil {
		t.Fatal(err)
	}
	must(t, g.makeDir(tree))
	if got := readString(tree + "/cgroup.subtree_control"); got != "+pids" { // the last of the writes to a plain file
		t.Errorf("subtree_control: %q", got)
	}
	for _, f := range []string{"pids.max", "hugetlb.2MB.max"} {
		must(t, os.WriteFile(tree+"/c/"+f, nil, 0o644))
	}
	must(t, os.WriteFile(v1+"/c/memory.limit_in_bytes", nil, 0o644))
	must(t, g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(5))}, Pids: &specs.LinuxPids{Limit: ptr(int64(7))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 9}}, Unified: map[string]string{"pids.max": "8"}}))
	for file, want := range map[string]string{v1 + "/c/memory.limit_in_bytes": "5", tree + "/c/pids.max": "8", tree + "/c/hugetlb.2MB.max": "9"} {
		if got := readString(file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if err := g.Set(&specs.LinuxResources{Unified: map[string]string{"memory.high": "8"}}); err == nil {
		t.Error("a v2 file of a v1 controller was accepted")
	}
}

func TestDecide(t *testing.T) {
	a := decide(deny)
	if a.all || len(a.some) != 1 || a.some[deviceAt{"c", 1, 11}].String() != "r" {
		t.Errorf("%+v", a)
	}
	all := decide([]specs.LinuxDeviceCgroup{{Allow: true}, {Type: "b", Access: "w"}})
	if !all.all || all.some[deviceAt{"b", -1, -1}].String() != "w" {
		t.Errorf("%+v", all)
	}
}

func TestOwnerOf(t *testing.T) {
	spec := &specs.Spec{Process: &specs.Process{User: specs.User{UID: 5}}, Linux: &specs.Linux{
		Namespaces:  []specs.LinuxNamespace{{Type: specs.CgroupNamespace}},
		UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 10}},
	}, Mounts: []specs.Mount{{Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"rw"}}}}
	if uid, ok := ownerOf(spec); !ok || uid != 100005 {
		t.Errorf("%d %t", uid, ok)
	}
	spec.Mounts[0].Options = []string{"ro"}
	if _, ok := ownerOf(spec); ok {
		t.Error("a read-only mount gets an owner")
	}
}
