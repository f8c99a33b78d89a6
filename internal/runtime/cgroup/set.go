package cgroup

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// Set changes limits of a live group; nil fields stay as they are.
func (g *Group) Set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	return g.apply(r, false)
}

// apply writes what r gives. Device rules are for a new group only: a live one keeps
// those it has, for they are given as a whole.
func (g *Group) apply(r *specs.LinuxResources, fresh bool) error {
	if err := refuse(r, g.host.V2); err != nil {
		return err
	}
	w := writer{g: g}
	if g.host.V2 {
		w.memoryV2(r.Memory)
		w.cpuV2(r.CPU)
		w.ioV2(r.BlockIO)
	} else {
		w.memoryV1(r.Memory)
		w.cpuV1(r.CPU)
		w.blkio(r.BlockIO)
	}
	if r.CPU != nil {
		w.text("cpuset", "cpuset.cpus", r.CPU.Cpus)
		w.text("cpuset", "cpuset.mems", r.CPU.Mems)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		limit := "max"
		if n := *r.Pids.Limit; n > 0 {
			limit = strconv.FormatInt(n, 10)
		}
		w.put("pids", "pids.max", limit)
	}
	for _, h := range r.HugepageLimits {
		file := "hugetlb." + h.Pagesize + ".limit_in_bytes"
		if g.host.V2 {
			file = "hugetlb." + h.Pagesize + ".max"
		}
		w.put("hugetlb", file, strconv.FormatUint(h.Limit, 10))
	}
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		w.put("", file, r.Unified[file])
	}
	if fresh && w.err == nil {
		w.err = g.devices(r.Devices)
	}
	return w.err
}

// refuse names what is asked for and not done here.
func refuse(r *specs.LinuxResources, v2 bool) error {
	unsupported := func(field string) error {
		return fault.Unsupported("linux.resources.%s is not supported by this runtime", field)
	}
	switch {
	case r.Network != nil:
		return unsupported("network")
	case len(r.Rdma) != 0:
		return unsupported("rdma")
	case len(r.Unified) != 0 && !v2:
		return fault.Invalid("linux.resources.unified needs cgroup v2; this machine has v1")
	}
	for file := range r.Unified {
		if strings.Contains(file, "/") || !strings.Contains(file, ".") {
			return fault.Invalid("linux.resources.unified: %q is not a cgroup file", file)
		}
	}
	if m := r.Memory; m != nil {
		switch {
		case m.Kernel != nil && *m.Kernel > 0:
			return unsupported("memory.kernel")
		case m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate:
			return unsupported("memory.checkBeforeUpdate")
		}
	}
	if c := r.CPU; c != nil && v2 && (c.RealtimePeriod != nil || c.RealtimeRuntime != nil) {
		return fault.Invalid("linux.resources.cpu.realtimeRuntime needs cgroup v1; this machine has v2")
	}
	for _, h := range r.HugepageLimits {
		if strings.ContainsAny(h.Pagesize, "/.") {
			return fault.Invalid("linux.resources.hugepageLimits: %q is not a page size", h.Pagesize)
		}
	}
	return nil
}

// writer writes control files until the first error.
type writer struct {
	g   *Group
	err error
}

func (w *writer) put(controller, file, value string) {
	if w.err != nil {
		return
	}
	dir := w.g.dir(controller)
	if dir == "" {
		w.err = fault.Invalid("this machine has no %s cgroup controller: cannot set %s", controller, file)
		return
	}
	if err := write(dir, file, value); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if !w.g.exists() {
				w.err = fault.NotFound("cgroup %s does not exist", w.g.path)
			} else {
				w.err = fault.Invalid("this kernel has no %s: it can't be set", file)
			}
			return
		}
		w.err = fault.Invalid("cannot set %s to %s: %w", path.Join(dir, file), value, err)
	}
}

func (w *writer) text(controller, file, value string) {
	if value != "" {
		w.put(controller, file, value)
	}
}

func (w *writer) uint(controller, file string, value *uint64) {
	if value != nil {
		w.put(controller, file, strconv.FormatUint(*value, 10))
	}
}

func (w *writer) int(controller, file string, value *int64) {
	if value != nil {
		w.put(controller, file, strconv.FormatInt(*value, 10))
	}
}

func (w *writer) cpuV1(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Shares != nil && *c.Shares != 0 {
		w.uint("cpu", "cpu.shares", c.Shares)
	}
	// The kernel checks quota against period and burst against quota at each write: a lower quota first, or a higher period.
	if c.Burst != nil {
		w.put("cpu", "cpu.cfs_burst_us", "0")
	}
	if c.Period != nil && *c.Period != 0 {
		w.uint("cpu", "cpu.cfs_period_us", c.Period)
	}
	if c.Quota != nil && *c.Quota != 0 {
		w.int("cpu", "cpu.cfs_quota_us", c.Quota)
	}
	if c.Burst != nil {
		w.uint("cpu", "cpu.cfs_burst_us", c.Burst)
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		w.uint("cpu", "cpu.rt_period_us", c.RealtimePeriod)
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		w.int("cpu", "cpu.rt_runtime_us", c.RealtimeRuntime)
	}
	w.int("cpu", "cpu.idle", c.Idle)
}

// memoryV1 sets the limit and that of memory plus swap. The kernel wants limit ≤ memsw at every
// moment: raising starts with memsw, lowering with the limit.
func (w *writer) memoryV1(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	const limit, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	nonzero := func(p *int64) *int64 {
		if p != nil && *p == 0 {
			return nil
		}
		return p
	}
	mem, swap := nonzero(m.Limit), nonzero(m.Swap)
	if mem != nil && *mem == -1 && swap == nil {
		swap = mem
	}
	if mem != nil && swap != nil {
		now := readNumber(path.Join(w.g.dir("memory"), limit))
		if *swap == -1 || (*mem > 0 && uint64(*swap) > now) {
			w.int("memory", both, swap)
			w.int("memory", limit, mem)
		} else {
			w.int("memory", limit, mem)
			w.int("memory", both, swap)
		}
	} else {
		w.int("memory", limit, mem)
		w.int("memory", both, swap)
	}
	w.int("memory", "memory.soft_limit_in_bytes", nonzero(m.Reservation))
	w.int("memory", "memory.kmem.tcp.limit_in_bytes", nonzero(m.KernelTCP))
	w.uint("memory", "memory.swappiness", m.Swappiness)
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		w.put("memory", "memory.oom_control", "1")
	}
}

func (w *writer) blkio(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	weight := func(plain, bfq, value string) {
		if w.err != nil {
			return
		}
		w.put("blkio", plain, value)
		if w.err != nil {
			w.err = nil
			w.put("blkio", bfq, value)
		}
	}
	if b.Weight != nil && *b.Weight != 0 {
		weight("blkio.weight", "blkio.bfq.weight", strconv.Itoa(int(*b.Weight)))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		w.put("blkio", "blkio.leaf_weight", strconv.Itoa(int(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			weight("blkio.weight_device", "blkio.bfq.weight_device", number(d.LinuxBlockIODevice)+" "+strconv.Itoa(int(*d.Weight)))
		}
		if d.LeafWeight != nil {
			w.put("blkio", "blkio.leaf_weight_device", number(d.LinuxBlockIODevice)+" "+strconv.Itoa(int(*d.LeafWeight)))
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			w.put("blkio", t.v1, number(d.LinuxBlockIODevice)+" "+strconv.FormatUint(d.Rate, 10))
		}
	}
}

type throttle struct {
	v1, v2  string
	devices []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{
		{"blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

func number(d specs.LinuxBlockIODevice) string {
	return strconv.FormatInt(d.Major, 10) + ":" + strconv.FormatInt(d.Minor, 10)
}

func limitV2(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// memoryV2 translates v1's sum of memory and swap to v2's swap alone.
func (w *writer) memoryV2(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	if m.Swap != nil && *m.Swap != 0 {
		swap := *m.Swap
		switch {
		case swap == -1:
		case m.Limit == nil || *m.Limit <= 0:
			w.err = fault.Invalid("a limit of memory plus swap needs a limit of memory")
			return
		case swap < *m.Limit:
			w.err = fault.Invalid("the limit of memory plus swap is below the limit of memory")
			return
		default:
			swap -= *m.Limit
		}
		w.put("memory", "memory.swap.max", limitV2(swap))
	} else if m.Limit != nil && *m.Limit == -1 {
		w.put("memory", "memory.swap.max", "max")
	}
	if m.Limit != nil && *m.Limit != 0 {
		w.put("memory", "memory.max", limitV2(*m.Limit))
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		w.put("memory", "memory.low", limitV2(*m.Reservation))
	}
	switch {
	case m.Swappiness != nil:
		w.err = fault.Invalid("memory swappiness needs cgroup v1; this machine has v2")
	case m.DisableOOMKiller != nil && *m.DisableOOMKiller:
		w.err = fault.Invalid("disabling the OOM killer needs cgroup v1; this machine has v2")
	case m.KernelTCP != nil && *m.KernelTCP > 0:
		w.err = fault.Invalid("a limit of kernel TCP memory needs cgroup v1; this machine has v2")
	}
}

func (w *writer) cpuV2(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Shares != nil && *c.Shares != 0 {
		w.put("cpu", "cpu.weight", strconv.FormatUint(weightOfShares(*c.Shares), 10))
	}
	if (c.Quota != nil && *c.Quota != 0) || (c.Period != nil && *c.Period != 0) {
		quota, period := "max", "100000"
		if now := strings.Fields(readString(path.Join(w.g.dir(""), "cpu.max"))); len(now) == 2 {
			quota, period = now[0], now[1]
		}
		if c.Quota != nil && *c.Quota != 0 {
			quota = limitV2(*c.Quota)
		}
		if c.Period != nil && *c.Period != 0 {
			period = strconv.FormatUint(*c.Period, 10)
		}
		w.put("cpu", "cpu.max", quota+" "+period)
	}
	w.uint("cpu", "cpu.max.burst", c.Burst)
	w.int("cpu", "cpu.idle", c.Idle)
}

// weightOfShares maps v1's 2…262144 onto v2's 1…10000, ends on ends.
func weightOfShares(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + ((shares-2)*9999)/262142
}

func (w *writer) ioV2(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		w.err = fault.Invalid("a block I/O leaf weight needs cgroup v1; this machine has v2")
		return
	}
	if b.Weight != nil && *b.Weight != 0 {
		// v1's 10…1000 onto v2's 1…10000.
		w.put("io", "io.weight", strconv.Itoa(1+(int(*b.Weight)-10)*9999/990))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			w.put("io", "io.bfq.weight", number(d.LinuxBlockIODevice)+" "+strconv.Itoa(int(*d.Weight)))
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			w.put("io", "io.max", number(d.LinuxBlockIODevice)+" "+t.v2+"="+strconv.FormatUint(d.Rate, 10))
		}
	}
}
