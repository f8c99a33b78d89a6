package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// Numbers of linux/sched.h, linux/ioprio.h and linux/mempolicy.h.
var (
	policies = map[specs.LinuxSchedulerPolicy]uint64{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}
	policyFlags = map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8,
		specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
	}
	ioClasses = map[specs.IOPriorityClass]uint64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

	memoryModes = map[specs.MemoryPolicyModeType]uint64{
		specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3, specs.MpolLocal: 4,
		specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
	}
	memoryFlags = map[specs.MemoryPolicyFlagType]uint64{
		specs.MpolFStaticNodes: 1 << 15, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFNumaBalancing: 1 << 13,
	}
)

func compileScheduler(p *Plan, process *specs.Process) error {
	if s := process.Scheduler; s != nil {
		policy, ok := policies[s.Policy]
		if !ok {
			return fault.Invalid("process.scheduler.policy %q is unknown", s.Policy)
		}
		var flags uint64
		for _, f := range s.Flags {
			bit, ok := policyFlags[f]
			if !ok {
				return fault.Invalid("process.scheduler.flags %q is unknown", f)
			}
			if bit >= 0x20 {
				return unsupported("process.scheduler.flags " + string(f) + " (the spec has no field for the clamp)")
			}
			flags |= bit
		}
		switch realtime := policy == 1 || policy == 2; {
		case s.Nice < -20 || s.Nice > 19:
			return fault.Invalid("process.scheduler.nice %d is not between -20 and 19", s.Nice)
		case s.Priority != 0 && !realtime:
			return fault.Invalid("process.scheduler.priority is for SCHED_FIFO and SCHED_RR")
		case realtime && (s.Priority < 1 || s.Priority > 99):
			return fault.Invalid("process.scheduler.priority %d is not between 1 and 99", s.Priority)
		case policy != 6 && s.Runtime|s.Deadline|s.Period != 0:
			return fault.Invalid("process.scheduler.runtime, deadline and period are for SCHED_DEADLINE")
		}
		p.add(Step{Op: OpScheduler, Why: "process.scheduler", Num: []uint64{policy, flags, uint64(uint32(s.Nice)), uint64(s.Priority), s.Runtime, s.Deadline, s.Period}})
	}
	if io := process.IOPriority; io != nil {
		class, ok := ioClasses[io.Class]
		if !ok {
			return fault.Invalid("process.ioPriority.class %q is unknown", io.Class)
		}
		if io.Priority < 0 || io.Priority > 7 {
			return fault.Invalid("process.ioPriority.priority %d is not between 0 and 7", io.Priority)
		}
		p.add(Step{Op: OpIOPriority, Why: "process.ioPriority", Num: []uint64{class<<13 | uint64(io.Priority)}})
	}
	return nil
}

func compileMemoryPolicy(p *Plan, m *specs.LinuxMemoryPolicy) error {
	if m == nil {
		return nil
	}
	mode, ok := memoryModes[m.Mode]
	if !ok {
		return fault.Invalid("linux.memoryPolicy.mode %q is unknown", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return fault.Invalid("linux.memoryPolicy.flags %q is unknown", f)
		}
		mode |= bit
	}
	nodes, err := parseSet("linux.memoryPolicy.nodes", m.Nodes)
	if err != nil {
		return err
	}
	p.add(Step{Op: OpMemoryPolicy, Why: "linux.memoryPolicy", Flags: mode, Num: nodes})
	return nil
}

// compileAffinity is for execs: the CPUs before the container's cgroup is joined, and those after.
func compileAffinity(p *Plan, process *specs.Process) error {
	a := process.ExecCPUAffinity
	if a == nil {
		return nil
	}
	if a.Initial != "" {
		cpus, err := parseSet("process.execCPUAffinity.initial", a.Initial)
		if err != nil {
			return err
		}
		p.entrance().CPUs = cpus
	}
	if a.Final != "" {
		cpus, err := parseSet("process.execCPUAffinity.final", a.Final)
		if err != nil {
			return err
		}
		p.add(Step{Op: OpAffinity, Why: "process.execCPUAffinity.final", Num: cpus})
	}
	return nil
}

// maxSet bounds the numbers in a set; the kernel's masks end at 8,192 CPUs.
const maxSet = 8192

// parseSet reads a list of numbers and ranges, "0-3,7" (cpuset(7), "List format"), into a mask.
func parseSet(field, list string) ([]uint64, error) {
	var mask []uint64
	bad := func() ([]uint64, error) {
		return nil, fault.Invalid("%s: %q is not a list of numbers and ranges", field, list)
	}
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 32)
		if err != nil {
			return bad()
		}
		to, err := strconv.ParseUint(high, 10, 32)
		if err != nil || to < from || to >= maxSet {
			return bad()
		}
		for n := from; n <= to; n++ {
			for uint64(len(mask)) <= n/64 {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, nil
}

// MemoryPolicyModes and MemoryPolicyFlags are what linux.memoryPolicy can have, sorted.
func MemoryPolicyModes() []string { return sortedKeys(memoryModes) }
func MemoryPolicyFlags() []string { return sortedKeys(memoryFlags) }

func sortedKeys[K ~string](m map[K]uint64) []string {
	var names []string
	for n := range m {
		names = append(names, string(n))
	}
	slices.Sort(names)
	return names
}

// compileLabels is what Linux security modules are told: the label that the exec gets.
func compileLabels(p *Plan, process *specs.Process, host Host) {
	if host.AppArmor && process.ApparmorProfile != "" {
		p.add(Step{Op: OpLabel, Why: "process.apparmorProfile", Path: "apparmor/exec", Data: "exec " + process.ApparmorProfile})
	}
	if process.SelinuxLabel != "" {
		p.add(Step{Op: OpLabel, Why: "process.selinuxLabel", Path: "exec", Data: process.SelinuxLabel})
		p.add(Step{Op: OpLabel, Why: "process.selinuxLabel", Path: "keycreate", Data: process.SelinuxLabel})
	}
}

// quoted is a label as a mount option takes it; it may contain commas.
func quoted(label string) string { return fmt.Sprintf("context=%q", label) }
