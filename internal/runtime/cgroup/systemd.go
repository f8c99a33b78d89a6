package cgroup

import (
	"context"
	"errors"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// property is one of a unit's, as org.freedesktop.systemd1(5) names them.
type property struct {
	Name  string
	Value any
}

// bus is what is asked of systemd. Each call returns once it is done.
type bus interface {
	// start makes a transient unit.
	start(ctx context.Context, unit string, props []property) error
	// set changes its properties, until it ends.
	set(ctx context.Context, unit string, props []property) error
	// stop ends it, its processes too; one that is not there is no error.
	stop(ctx context.Context, unit string) error
	close()
}

// busLimit is how long systemd may take for one request.
const busLimit = 30 * time.Second

func (g *Group) withBus(do func(context.Context, bus) error) error {
	b, err := g.bus()
	if err != nil {
		return fault.Unavailable("cannot reach systemd, which manages cgroup %s: %w", g.path, err)
	}
	defer b.close()
	ctx, cancel := context.WithTimeout(context.Background(), busLimit)
	defer cancel()
	return do(ctx, b)
}

// startUnit makes the scope, with a process that holds it until Settle.
func (g *Group) startUnit(r *specs.LinuxResources) error {
	props := []property{
		{"Description", "container " + strings.TrimSuffix(g.unit.Name, ".scope")},
		{"CollectMode", "inactive-or-failed"}, // or a failed one would keep its name taken
		{"DefaultDependencies", false},        // or it would be stopped early at shutdown, before who manages it
	}
	for _, accounting := range []string{"MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"} {
		if accounting == "IOAccounting" && !g.host.V2 {
			accounting = "BlockIOAccounting"
		}
		props = append(props, property{accounting, true})
	}
	var holds *holder
	if g.unit.IsSlice() {
		if dir := path.Dir(g.unit.Path()); dir != "/" {
			props = append(props, property{"Wants", []string{path.Base(dir)}})
		}
	} else {
		var err error
		if holds, err = hold(); err != nil {
			return err
		}
		props = append(props, property{"Slice", g.unit.Slice}, property{"Delegate", true}, property{"PIDs", []uint32{uint32(holds.pid)}})
	}
	limits, err := g.properties(r, true)
	if err == nil {
		err = g.withBus(func(ctx context.Context, b bus) error { return b.start(ctx, g.unit.Name, append(props, limits...)) })
	}
	if err != nil {
		if holds != nil {
			holds.release()
		}
		return g.unitError("make", err)
	}
	if old := g.holder.Swap(holds); old != nil {
		old.release()
	}
	return nil
}

func (g *Group) setUnit(r *specs.LinuxResources) error {
	props, err := g.properties(r, false)
	if err != nil || len(props) == 0 {
		return err
	}
	return g.unitError("change", g.withBus(func(ctx context.Context, b bus) error { return b.set(ctx, g.unit.Name, props) }))
}

// dropUnit ends a unit; a slice only where nothing else is in it. What is left of directories goes with Remove.
func (g *Group) dropUnit() {
	if g.unit == nil {
		return
	}
	if h := g.holder.Swap(nil); h != nil {
		h.release()
	}
	if g.unit.IsSlice() && g.exists() {
		if names, err := g.Children(); err != nil || len(names) > 0 {
			return
		}
	}
	if pids, err := g.Pids(); err == nil && len(pids) > 0 {
		return // Remove does not kill
	}
	_ = g.withBus(func(ctx context.Context, b bus) error { return b.stop(ctx, g.unit.Name) })
}

func (g *Group) unitError(verb string, err error) error {
	var busy *unitBusy
	switch {
	case err == nil:
		return nil
	case errors.As(err, &busy):
		return fault.Conflict("cannot %s systemd unit %s: %w", verb, g.unit.Name, err)
	}
	return fault.Internal("cannot %s systemd unit %s: %w", verb, g.unit.Name, err)
}

// unitBusy is systemd's answer that a unit of this name is there.
type unitBusy struct{ message string }

func (e *unitBusy) Error() string { return e.message }

// properties are the limits in systemd's words (systemd.resource-control(5)). What it has no word for
// is written to the group's files alone. Whatever is here is written there too: systemd
// takes its time, rounds, and some versions skip.
func (g *Group) properties(r *specs.LinuxResources, fresh bool) ([]property, error) {
	var props []property
	add := func(name string, value any) { props = append(props, property{name, value}) }
	v2 := g.host.V2
	if m := r.Memory; m != nil {
		if n := given(m.Limit); n != nil {
			add(map[bool]string{true: "MemoryMax", false: "MemoryLimit"}[v2], bytesOrInfinity(*n))
		}
		if v2 {
			if swap := swapV2(m); swap != "" {
				add("MemorySwapMax", bytesText(swap))
			}
			if n := given(m.Reservation); n != nil {
				add("MemoryLow", bytesOrInfinity(*n))
			}
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			if v2 {
				add("CPUWeight", WeightOfShares(*c.Shares))
			} else {
				add("CPUShares", *c.Shares)
			}
		}
		if c.Idle != nil && *c.Idle == 1 && v2 {
			add("CPUWeight", uint64(0))
		}
		if q := given(c.Quota); q != nil || c.Period != nil && *c.Period != 0 {
			now := strings.Fields(readString(path.Join(g.v2(), "cpu.max"))) // the other half, of a live group
			quota, period := int64(-1), uint64(100000)
			if v2 && !fresh && len(now) == 2 {
				if n, err := strconv.ParseInt(now[0], 10, 64); err == nil {
					quota = n
				}
				period, _ = strconv.ParseUint(now[1], 10, 64)
			} else if d := g.dir("cpu"); !v2 && !fresh && d != "" {
				if n, err := strconv.ParseInt(readString(path.Join(d, "cpu.cfs_quota_us")), 10, 64); err == nil {
					quota = n
				}
				period = max(readNumber(path.Join(d, "cpu.cfs_period_us")), 1)
			}
			if q != nil {
				quota = *q
			}
			if c.Period != nil && *c.Period != 0 {
				period = *c.Period
			}
			add("CPUQuotaPerSecUSec", quotaPerSecond(quota, period))
			add("CPUQuotaPeriodUSec", period)
		}
		if v2 {
			for name, list := range map[string]string{"AllowedCPUs": c.Cpus, "AllowedMemoryNodes": c.Mems} {
				if list == "" {
					continue
				}
				bits, err := cpuMask(list)
				if err != nil {
					return nil, err
				}
				add(name, bits)
			}
		}
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		if v2 {
			add("IOWeight", ioWeight(*b.Weight))
		} else {
			add("BlockIOWeight", uint64(*b.Weight))
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		switch n := *p.Limit; {
		case n < 0:
			add("TasksMax", uint64(math.MaxUint64))
		case n == 0: // systemd has no such limit
			add("TasksMax", uint64(1))
		default:
			add("TasksMax", uint64(n))
		}
	}
	for file, name := range map[string]string{"memory.min": "MemoryMin", "memory.low": "MemoryLow", "memory.high": "MemoryHigh", "memory.max": "MemoryMax",
		"memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax", "cpu.weight": "CPUWeight"} {
		if text := r.Unified[file]; text != "" {
			if n := bytesText(text); n != 0 || text == "0" {
				add(name, n)
			}
		}
	}
	if !v2 && len(r.Devices) > 0 {
		// Its own reloads write this controller's files anew, with what it knows.
		if rules := decide(withEveryContainers(r.Devices)); !rules.all {
			add("DevicePolicy", "strict")
			add("DeviceAllow", rules.systemd())
		} else {
			add("DevicePolicy", "auto")
			add("DeviceAllow", []deviceAllow{})
		}
	}
	slices.SortStableFunc(props, func(a, b property) int { return strings.Compare(a.Name, b.Name) })
	return props, nil
}

func bytesOrInfinity(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

func bytesText(s string) uint64 {
	if s == "max" {
		return math.MaxUint64
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// quotaPerSecond is in µs, rounded up to 1 %: a reload keeps whole per cents only.
func quotaPerSecond(quota int64, period uint64) uint64 {
	if quota <= 0 || period == 0 {
		return math.MaxUint64
	}
	n := uint64(quota) * 1e6 / period
	return (n + 9999) / 10000 * 10000
}

// cpuMask is a list such as "0-3,7" as bytes, the lowest first.
func cpuMask(list string) ([]byte, error) {
	var mask []byte
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		from, err1 := strconv.ParseUint(strings.TrimSpace(a), 10, 13)
		to, err2 := strconv.ParseUint(strings.TrimSpace(b), 10, 13)
		if err := errors.Join(err1, err2); err != nil || to < from {
			return nil, fault.Invalid("linux.resources.cpu: %q is not a list of numbers", list)
		}
		for n := from; n <= to; n++ {
			for uint64(len(mask)) <= n/8 {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, nil
}

// hasSystemd tells whether systemd manages this machine (sd_booted(3)).
func hasSystemd() bool { return unix.Access("/run/systemd/system", unix.F_OK) == nil }
