package spec

import (
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Resources are the cgroup limits of r; parts without a limit are nil.
func Resources(r container.Resources, host Host, block map[string]Number) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: memory(r, host), CPU: cpu(r), Pids: pids(r), BlockIO: blockIO(r, block)}
}

func memory(r container.Resources, host Host) *specs.LinuxMemory {
	var m specs.LinuxMemory
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if swap := r.MemorySwap; swap != 0 && host.SwapLimit {
		m.Swap = &swap
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		v := uint64(*r.MemorySwappiness)
		m.Swappiness = &v
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

// cpuPeriod is the CFS period that --cpus is counted in, in µs.
const cpuPeriod = 100_000

func cpu(r container.Resources) *specs.LinuxCPU {
	var c specs.LinuxCPU
	if r.CPUShares > 0 {
		v := uint64(r.CPUShares)
		c.Shares = &v
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cpuPeriod), r.NanoCPUs*cpuPeriod/1e9
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUPeriod != 0 {
		v := uint64(r.CPUPeriod)
		c.Period = &v
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod != 0 {
		v := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &v
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	c.Cpus, c.Mems = r.CpusetCpus, r.CpusetMems
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func pids(r container.Resources) *specs.LinuxPids {
	if r.PidsLimit == nil {
		return nil
	}
	limit := *r.PidsLimit
	if limit <= 0 {
		limit = -1
	}
	return &specs.LinuxPids{Limit: &limit}
}

func blockIO(r container.Resources, block map[string]Number) *specs.LinuxBlockIO {
	var b specs.LinuxBlockIO
	some := false
	if r.BlkioWeight > 0 {
		b.Weight, some = &r.BlkioWeight, true
	}
	for _, d := range r.BlkioWeightDevice {
		w := specs.LinuxWeightDevice{Weight: &d.Weight}
		w.Major, w.Minor = block[d.Path].Major, block[d.Path].Minor
		b.WeightDevice, some = append(b.WeightDevice, w), true
	}
	throttle := func(ds []*blkiodev.ThrottleDevice) (out []specs.LinuxThrottleDevice) {
		for _, d := range ds {
			t := specs.LinuxThrottleDevice{Rate: d.Rate}
			t.Major, t.Minor = block[d.Path].Major, block[d.Path].Minor
			out, some = append(out, t), true
		}
		return out
	}
	b.ThrottleReadBpsDevice = throttle(r.BlkioDeviceReadBps)
	b.ThrottleWriteBpsDevice = throttle(r.BlkioDeviceWriteBps)
	b.ThrottleReadIOPSDevice = throttle(r.BlkioDeviceReadIOps)
	b.ThrottleWriteIOPSDevice = throttle(r.BlkioDeviceWriteIOps)
	if !some {
		return nil
	}
	return &b
}

// BlockDevices lists the device paths whose numbers Build wants in Input.Block.
func BlockDevices(r container.Resources) []string {
	var out []string
	for _, d := range r.BlkioWeightDevice {
		out = append(out, d.Path)
	}
	for _, ds := range [][]*blkiodev.ThrottleDevice{r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps} {
		for _, d := range ds {
			out = append(out, d.Path)
		}
	}
	return out
}
