package oci

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cgroups: the path and each resource.
func cgroups() []clause {
	with := func(f func(*specs.LinuxResources)) edit { return onLinux(func(l *specs.Linux) { f(l.Resources) }) }
	file := func(name, from string, f func(*specs.LinuxResources), controller, v1, v2, want1, want2 string) clause {
		return clause{"cgroups/" + name, "config-linux.md, " + from, func(c *check) {
			ct := c.running(with(f))
			name, want := v1, want1
			if unifiedCgroup() {
				name, want = v2, want2
			}
			c.equal(name, ct.controller(controller, name), want)
		}}
	}
	return []clause{
		{"cgroups/absolute-path", "config-linux.md, Cgroups Path", func(c *check) {
			ct := c.running()
			c.contains("processes", ct.controller("memory", "cgroup.procs"), strconv.Itoa(ct.state().Pid))
		}},
		{"cgroups/relative-path", "config-linux.md, Cgroups Path; runtime-tools, linux_cgroups_relative", func(c *check) {
			var ct *container
			ct = c.running(onLinux(func(l *specs.Linux) { l.CgroupsPath = strings.TrimPrefix(l.CgroupsPath, "/") }))
			b := read(c, "/proc/"+strconv.Itoa(ct.state().Pid)+"/cgroup")
			c.contains("cgroup", b, ct.group)
			ct.end()
		}},
		{"cgroups/in-every-hierarchy", "config-linux.md, Control groups", func(c *check) {
			ct := c.running()
			for line := range strings.Lines(read(c, "/proc/"+strconv.Itoa(ct.state().Pid)+"/cgroup")) {
				if _, controllers, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.HasPrefix(controllers, "name=") && !strings.HasPrefix(controllers, ":") && !unmounted(controllers) {
					c.contains("line", line, ct.group)
				}
			}
		}},
		{"cgroups/two-containers-apart", "config-linux.md, Cgroups Path", func(c *check) {
			a, b := c.running(), c.running()
			if strings.Contains(a.controller("pids", "cgroup.procs"), strconv.Itoa(b.state().Pid)) {
				c.failf("they share it")
			}
		}},
		file("memory-limit", "Memory", func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Limit: ptr(int64(50 << 20))} }, "memory", "memory.limit_in_bytes", "memory.max", "52428800", "52428800"),
		file("memory-reservation", "Memory", func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Reservation: ptr(int64(20 << 20))} }, "memory", "memory.soft_limit_in_bytes", "memory.low", "20971520", "20971520"),
		file("memory-swap", "Memory", func(r *specs.LinuxResources) {
			r.Memory = &specs.LinuxMemory{Limit: ptr(int64(50 << 20)), Swap: ptr(int64(60 << 20))}
		}, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "62914560", "10485760"),
		file("memory-swappiness", "Memory", func(r *specs.LinuxResources) {
			if !unifiedCgroup() {
				r.Memory = &specs.LinuxMemory{Swappiness: ptr(uint64(30))}
			}
		}, "memory", "memory.swappiness", "memory.swap.current", "30", "0"),
		file("memory-disable-oom-killer", "Memory", func(r *specs.LinuxResources) {
			if !unifiedCgroup() {
				r.Memory = &specs.LinuxMemory{Limit: ptr(int64(50 << 20)), DisableOOMKiller: ptr(false)}
			}
		}, "memory", "memory.use_hierarchy", "cgroup.type", "1", "domain"),
		{"cgroups/memory-limit-holds", "config-linux.md, Memory", func(c *check) {
			ct := c.prepare(script("/bin/"+probeName+" eat 100; echo $?"), with(func(r *specs.LinuxResources) {
				r.Memory = &specs.LinuxMemory{Limit: ptr(int64(50 << 20)), Swap: ptr(int64(50 << 20))}
			}))
			c.contains("exit code", ct.run(), "137")
		}},
		file("cpu-shares", "CPU", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Shares: ptr(uint64(500))} }, "cpu", "cpu.shares", "cpu.weight", "500", "20"),
		file("cpu-quota", "CPU", func(r *specs.LinuxResources) {
			r.CPU = &specs.LinuxCPU{Quota: ptr(int64(30000)), Period: ptr(uint64(60000))}
		}, "cpu", "cpu.cfs_quota_us", "cpu.max", "30000", "30000 60000"),
		file("cpu-period", "CPU", func(r *specs.LinuxResources) {
			r.CPU = &specs.LinuxCPU{Quota: ptr(int64(30000)), Period: ptr(uint64(60000))}
		}, "cpu", "cpu.cfs_period_us", "cpu.max", "60000", "30000 60000"),
		file("cpu-burst", "CPU", func(r *specs.LinuxResources) {
			r.CPU = &specs.LinuxCPU{Quota: ptr(int64(30000)), Period: ptr(uint64(60000)), Burst: ptr(uint64(10000))}
		}, "cpu", "cpu.cfs_burst_us", "cpu.max.burst", "10000", "10000"),
		file("cpu-idle", "CPU", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Idle: ptr(int64(1))} }, "cpu", "cpu.idle", "cpu.idle", "1", "1"),
		file("cpuset-cpus", "CPU", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Cpus: "0"} }, "cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0"),
		file("cpuset-mems", "CPU", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Cpus: "0", Mems: "0"} }, "cpuset", "cpuset.mems", "cpuset.mems", "0", "0"),
		{"cgroups/cpuset-that-is-missing-fails", "config-linux.md, CPU", func(c *check) {
			c.refused(with(func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Cpus: "4000"} }))
		}},
		file("pids-limit", "PIDs", func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: ptr(int64(77))} }, "pids", "pids.max", "pids.max", "77", "77"),
		file("pids-unlimited", "PIDs", func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: ptr(int64(-1))} }, "pids", "pids.max", "pids.max", "max", "max"),
		{"cgroups/pids-limit-holds", "config-linux.md, PIDs", func(c *check) {
			out := c.sh("sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & true", with(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: ptr(int64(100))} }))
			c.equal("output", out, "")
			ct := c.prepare(script("(sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait) 2>&1; true"), with(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: ptr(int64(4))} }))
			r := ct.tryRun()
			c.contains("output", r.all(), "can't fork")
		}},
		{"cgroups/blkio-weight-where-there-is-one", "config-linux.md, Block IO", func(c *check) {
			if _, err := os.Stat("/sys/fs/cgroup/blkio/blkio.bfq.weight"); err != nil {
				return
			}
			ct := c.running(with(func(r *specs.LinuxResources) { r.BlockIO = &specs.LinuxBlockIO{Weight: ptr(uint16(200))} }))
			c.equal("weight", ct.controller("blkio", "blkio.bfq.weight"), "200")
		}},
		{"cgroups/throttles", "config-linux.md, Block IO", func(c *check) {
			major, minor, ok := disk()
			if !ok || unifiedCgroup() {
				return
			}
			throttle := func(rate uint64) []specs.LinuxThrottleDevice {
				d := specs.LinuxThrottleDevice{Rate: rate}
				d.Major, d.Minor = major, minor
				return []specs.LinuxThrottleDevice{d}
			}
			ct := c.running(with(func(r *specs.LinuxResources) {
				r.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: throttle(1 << 20), ThrottleWriteBpsDevice: throttle(2 << 20), ThrottleReadIOPSDevice: throttle(30), ThrottleWriteIOPSDevice: throttle(40)}
			}))
			at := strconv.FormatInt(major, 10) + ":" + strconv.FormatInt(minor, 10) + " "
			c.equal("read", ct.controller("blkio", "blkio.throttle.read_bps_device"), at+"1048576")
			c.equal("write", ct.controller("blkio", "blkio.throttle.write_bps_device"), at+"2097152")
			c.equal("reads", ct.controller("blkio", "blkio.throttle.read_iops_device"), at+"30")
			c.equal("writes", ct.controller("blkio", "blkio.throttle.write_iops_device"), at+"40")
		}},
		{"cgroups/unified-is-not-ignored", "config-linux.md, Unified", func(c *check) {
			if unifiedCgroup() {
				ct := c.running(with(func(r *specs.LinuxResources) { r.Unified = map[string]string{"pids.max": "55"} }))
				c.equal("pids.max", ct.controller("pids", "pids.max"), "55")
				return
			}
			c.refused(with(func(r *specs.LinuxResources) { r.Unified = map[string]string{"memory.high": "1000000"} }))
		}},
		{"cgroups/no-limits-without-resources", "config-linux.md, Control groups", func(c *check) {
			ct := c.running(func(s *specs.Spec) { s.Linux.Resources = nil })
			c.equal("pids.max", ct.controller("pids", "pids.max"), "max")
		}},
		{"cgroups/children-are-inside", "config-linux.md, Control groups", func(c *check) {
			ct := c.create(script("sleep 1000 & sleep 1000 & wait"))
			ct.start()
			c.until("three processes", func() bool { return len(strings.Fields(ct.controller("memory", "cgroup.procs"))) == 3 })
		}},
		{"cgroups/a-container-can-not-leave", "runc, cgroups.bats", func(c *check) {
			ct := c.running(mounted(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}}))
			r := c.command("exec", ct.id, "sh", "-c", "find / -name cgroup.procs | while read f; do echo 0 > $f; done 2>/dev/null; mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo made; cat /proc/self/cgroup")
			if strings.Contains(r.out, "made") {
				c.failf("%s", r.out)
			}
			if _, err := os.Stat(filepath.Join(ct.cgroup("memory"), "x")); err == nil {
				c.failf("it made a cgroup")
			}
		}},
	}
}

// unmounted tells of a v1 hierarchy that is not there on this machine.
func unmounted(controllers string) bool {
	first, _, _ := strings.Cut(controllers, ":")
	name, _, _ := strings.Cut(first, ",")
	_, err := os.Stat("/sys/fs/cgroup/" + name)
	return err != nil
}

// disk is a block device of this machine.
func disk() (major, minor int64, ok bool) {
	devices, _ := filepath.Glob("/sys/block/[svx]d*/dev")
	for _, d := range devices {
		b, err := os.ReadFile(d)
		if err != nil {
			continue
		}
		a, z, found := strings.Cut(strings.TrimSpace(string(b)), ":")
		if !found {
			continue
		}
		major, _ = strconv.ParseInt(a, 10, 64)
		minor, _ = strconv.ParseInt(z, 10, 64)
		return major, minor, true
	}
	return 0, 0, false
}
