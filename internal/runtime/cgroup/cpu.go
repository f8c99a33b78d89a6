package cgroup

import (
	"math"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (w *writer) cpu(c *specs.LinuxCPU) {
	if c == nil || w.err != nil {
		return
	}
	if _, v2 := w.g.on("cpu"); v2 {
		w.cpuV2(c)
	} else {
		w.cpuV1(c)
	}
	w.text("cpuset", "cpuset.cpus", c.Cpus)
	w.text("cpuset", "cpuset.mems", c.Mems)
}

func (w *writer) cpuV1(c *specs.LinuxCPU) {
	if c.Shares != nil && *c.Shares != 0 {
		w.uint("cpu", "cpu.shares", c.Shares)
	}
	// The kernel checks burst against quota at each write.
	if c.Burst != nil {
		w.put("cpu", "cpu.cfs_burst_us", "0")
	}
	period, quota := c.Period, given(c.Quota)
	if period != nil && *period == 0 {
		period = nil
	}
	// And quota against the parent's share of the period: whichever order fails, the other one may do.
	if period != nil && quota != nil {
		w.uint("cpu", "cpu.cfs_period_us", period)
		if w.err != nil {
			w.err = nil
			w.int("cpu", "cpu.cfs_quota_us", quota)
			w.uint("cpu", "cpu.cfs_period_us", period)
		} else {
			w.int("cpu", "cpu.cfs_quota_us", quota)
		}
	} else {
		w.uint("cpu", "cpu.cfs_period_us", period)
		w.int("cpu", "cpu.cfs_quota_us", quota)
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

func (w *writer) cpuV2(c *specs.LinuxCPU) {
	// A group that is idle takes no weight (EINVAL): wake it first, or leave it.
	if c.Idle != nil && *c.Idle == 0 {
		w.int("cpu", "cpu.idle", c.Idle)
	}
	if c.Shares != nil && *c.Shares != 0 {
		w.put("cpu", "cpu.weight", strconv.FormatUint(WeightOfShares(*c.Shares), 10))
	}
	if c.Idle != nil && *c.Idle != 0 {
		w.int("cpu", "cpu.idle", c.Idle)
	}
	if c.Burst != nil {
		w.put("cpu", "cpu.max.burst", "0")
	}
	if given(c.Quota) != nil || c.Period != nil && *c.Period != 0 {
		quota, period := "max", "100000"
		if now := strings.Fields(readString(path.Join(w.g.dir("cpu"), "cpu.max"))); len(now) == 2 {
			quota, period = now[0], now[1]
		}
		if q := given(c.Quota); q != nil {
			quota = limitV2(*q)
		}
		if c.Period != nil && *c.Period != 0 {
			period = strconv.FormatUint(*c.Period, 10)
		}
		w.put("cpu", "cpu.max", quota+" "+period)
	}
	if c.Burst != nil {
		w.uint("cpu", "cpu.max.burst", c.Burst)
	}
}

// WeightOfShares maps v1's 2…262144 onto v2's 1…10000 so that the ends meet and so do the
// defaults, 1024 and 100: a parabola over the logarithms, as the newest crun and runc have it.
func WeightOfShares(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	l := math.Log2(float64(shares))
	return min(uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34))), 10000)
}
