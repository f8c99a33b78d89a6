package cgroup

import (
	"errors"
	"path"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

func (g *place) refuseMemory(m *specs.LinuxMemory) error {
	dir, v2 := g.on("memory")
	needsV1 := func(what string) error { return fault.Invalid("%s needs cgroup v1; this machine has v2", what) }
	switch {
	case v2 && m.Swappiness != nil:
		return needsV1("memory swappiness")
	case v2 && m.DisableOOMKiller != nil && *m.DisableOOMKiller:
		return needsV1("disabling the OOM killer")
	case v2 && m.KernelTCP != nil && *m.KernelTCP > 0:
		return needsV1("a limit of kernel TCP memory")
	case v2 && m.Kernel != nil && *m.Kernel > 0:
		return needsV1("a limit of kernel memory")
	case v2 && m.UseHierarchy != nil && !*m.UseHierarchy:
		return needsV1("memory accounting without hierarchy")
	}
	if m.Limit != nil && *m.Limit > 0 && m.Swap != nil && *m.Swap > 0 && *m.Swap < *m.Limit {
		return fault.Invalid("the limit of memory plus swap is below the limit of memory")
	}
	if v2 && m.Swap != nil && *m.Swap > 0 && (m.Limit == nil || *m.Limit <= 0) {
		return fault.Invalid("a limit of memory plus swap needs a limit of memory")
	}
	if m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate && m.Limit != nil && *m.Limit > 0 {
		file := "memory.usage_in_bytes"
		if v2 {
			file = "memory.current"
		}
		if used := readNumber(path.Join(dir, file)); used > uint64(*m.Limit) {
			return fault.Conflict("unable to set memory limit to %d: the cgroup uses %d already", *m.Limit, used)
		}
	}
	return nil
}

func (w *writer) memory(m *specs.LinuxMemory) {
	if m == nil || w.err != nil {
		return
	}
	if _, v2 := w.g.on("memory"); v2 {
		w.memoryV2(m)
	} else {
		w.memoryV1(m)
	}
}

// given is nil for a limit that says nothing: none, or 0.
func given(p *int64) *int64 {
	if p != nil && *p == 0 {
		return nil
	}
	return p
}

// memoryV1 keeps memory ≤ memory plus swap at each step: the kernel checks that with every write.
func (w *writer) memoryV1(m *specs.LinuxMemory) {
	const limit, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	if m.UseHierarchy != nil && w.has("memory", "memory.use_hierarchy") {
		value := "0"
		if *m.UseHierarchy {
			value = "1"
		}
		w.put("memory", "memory.use_hierarchy", value)
	}
	mem, swap := given(m.Limit), given(m.Swap)
	if mem != nil && *mem == -1 && swap == nil && w.has("memory", both) {
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
	if errors.Is(w.err, unix.EBUSY) && mem != nil {
		d := w.g.dir("memory")
		w.err = fault.Conflict("unable to set memory limit to %d (current usage: %d, peak usage: %d)", *mem,
			readNumber(path.Join(d, "memory.usage_in_bytes")), readNumber(path.Join(d, "memory.max_usage_in_bytes")))
	}
	w.int("memory", "memory.soft_limit_in_bytes", given(m.Reservation))
	if k := given(m.Kernel); k != nil && (*k > 0 || w.has("memory", "memory.kmem.limit_in_bytes")) {
		// Since Linux 5.16 the kernel answers ENOTSUP to any limit but none.
		if w.int("memory", "memory.kmem.limit_in_bytes", k); *k < 0 && errors.Is(w.err, unix.ENOTSUP) {
			w.err = nil
		}
	}
	if t := given(m.KernelTCP); t != nil && (*t > 0 || w.has("memory", "memory.kmem.tcp.limit_in_bytes")) {
		w.int("memory", "memory.kmem.tcp.limit_in_bytes", t)
	}
	w.uint("memory", "memory.swappiness", m.Swappiness)
	if m.DisableOOMKiller != nil {
		value := "0"
		if *m.DisableOOMKiller {
			value = "1"
		}
		w.put("memory", "memory.oom_control", value)
	}
}

// swapV2 translates v1's sum of memory and swap to v2's swap alone: memory.swap.max, or "" to leave it.
func swapV2(m *specs.LinuxMemory) string {
	switch limit, swap := given(m.Limit), given(m.Swap); {
	case swap != nil && *swap == -1, swap == nil && limit != nil && *limit == -1:
		return "max"
	case swap == nil:
		return ""
	default:
		return strconv.FormatInt(*swap-*limit, 10)
	}
}

func (w *writer) memoryV2(m *specs.LinuxMemory) {
	// A machine without swap accounting has no limit to lift.
	if swap := swapV2(m); swap != "" && (swap != "max" || w.has("memory", "memory.swap.max")) {
		w.put("memory", "memory.swap.max", swap)
	}
	if limit := given(m.Limit); limit != nil {
		w.put("memory", "memory.max", limitV2(*limit))
	}
	if low := given(m.Reservation); low != nil {
		w.put("memory", "memory.low", limitV2(*low))
	}
}
