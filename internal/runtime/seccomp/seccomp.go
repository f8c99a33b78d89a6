// Package seccomp compiles OCI seccomp profiles to the BPF that seccomp(2)
// takes. The filter finds the architecture, then searches a few ranges of system
// call numbers that share an action, instead of comparing number after
// number: it is short, installs fast and decides in about eight jumps.
//
// Meaning of a profile, where the OCI spec leaves it open (what runc does, unless said otherwise):
//
//   - A rule whose action is the default action is dropped.
//   - A rule's conditions must all hold; if two of them are on the same argument, any one is enough.
//   - Rules for the same call are tried in order, those with conditions first.
//   - Names that an architecture does not have are skipped.
//   - If the default is an error other than ENOSYS, calls with a number above all that the profile
//     names give ENOSYS: programs fall back when a call is missing, not when it is forbidden.
//   - The native architecture is always included; others that are not listed are killed.
package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Filter is a compiled profile.
type Filter struct {
	Code  []byte // struct sock_filter[], little endian
	Flags uint   // of seccomp(SECCOMP_SET_MODE_FILTER)
}

// condition is one comparison of an argument.
type condition struct {
	arg        uint
	op         specs.LinuxSeccompOperator
	value, two uint64
}

// branch is a rule for one call: return action if all conditions hold.
type branch struct {
	conditions []condition
	action     uint32
}

// decision is what happens to one call: the branches in order, else action.
type decision struct {
	branches []branch
	action   uint32
}

func (d decision) equal(e decision) bool {
	return d.action == e.action && len(d.branches) == 0 && len(e.branches) == 0
}

// Compile returns nil for a profile that allows everything.
func Compile(profile *specs.LinuxSeccomp) (*Filter, error) {
	fallback, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	if profile.ListenerPath == "" && profile.ListenerMetadata != "" {
		return nil, fault.Invalid("linux.seccomp.listenerMetadata goes with a listenerPath")
	}
	rules, err := parseRules(profile)
	if err != nil {
		return nil, err
	}
	if len(rules) == 0 && fallback == retAllow {
		return nil, nil
	}
	archs, err := architectures(profile.Architectures)
	if err != nil {
		return nil, err
	}
	f := &Filter{Flags: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW}
	if len(profile.Flags) > 0 {
		f.Flags = 0
	}
	listens := fallback == retNotify || slices.ContainsFunc(rules, func(r rule) bool { return r.action == retNotify })
	if listens {
		if profile.ListenerPath == "" {
			return nil, fault.Invalid("linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath")
		}
		f.Flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	for _, flag := range profile.Flags {
		switch flag {
		case specs.LinuxSeccompFlagLog:
			f.Flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			f.Flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if listens { // else there is nobody to wait for
				f.Flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
			}
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// The process that execs has one thread: nothing to synchronise.
		default:
			return nil, fault.Unsupported("linux.seccomp.flags %s is not supported by this runtime", flag)
		}
	}
	var sections []section
	for _, a := range archs {
		sections = append(sections, section{a, ranges(a, rules, fallback)})
	}
	f.Code, err = assemble(sections)
	return f, err
}

// rule is a profile's rule with its action and conditions understood.
type rule struct {
	names  []string
	any    [][]condition // alternatives; none: unconditional
	action uint32
}

func parseRules(profile *specs.LinuxSeccomp) ([]rule, error) {
	var rules []rule
	for i := range profile.Syscalls {
		s := &profile.Syscalls[i]
		act, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, err
		}
		if s.Action == profile.DefaultAction && errno(s.ErrnoRet) == errno(profile.DefaultErrnoRet) {
			continue
		}
		r := rule{names: s.Names, action: act}
		var all []condition
		var used [6]int
		for _, a := range s.Args {
			if a.Index > 5 {
				return nil, fault.Invalid("linux.seccomp: argument index %d of %v is above 5", a.Index, s.Names)
			}
			switch a.Op {
			case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
			default:
				return nil, fault.Invalid("linux.seccomp: operator %q is unknown", a.Op)
			}
			used[a.Index]++
			all = append(all, condition{a.Index, a.Op, a.Value, a.ValueTwo})
		}
		switch {
		case slices.Max(used[:]) > 1:
			for _, c := range all {
				r.any = append(r.any, []condition{c})
			}
		case len(all) > 0:
			r.any = [][]condition{all}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func errno(p *uint) uint {
	if p == nil {
		return uint(unix.EPERM)
	}
	return *p
}

// What a filter returns (linux/seccomp.h).
const (
	retKillProcess = unix.SECCOMP_RET_KILL_PROCESS
	retKillThread  = unix.SECCOMP_RET_KILL_THREAD
	retTrap        = unix.SECCOMP_RET_TRAP
	retErrno       = unix.SECCOMP_RET_ERRNO
	retTrace       = unix.SECCOMP_RET_TRACE
	retLog         = unix.SECCOMP_RET_LOG
	retAllow       = unix.SECCOMP_RET_ALLOW
	retNotify      = unix.SECCOMP_RET_USER_NOTIF
)

func action(a specs.LinuxSeccompAction, ret *uint) (uint32, error) {
	if e := errno(ret); e > 0xffff {
		return 0, fault.Invalid("linux.seccomp: error number %d is out of range", e)
	}
	switch a {
	case specs.ActErrno, specs.ActTrace:
	default:
		if ret != nil {
			return 0, fault.Invalid("linux.seccomp: action %s takes no error number", a)
		}
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActErrno:
		return retErrno | uint32(errno(ret)), nil
	case specs.ActTrace:
		return retTrace | uint32(errno(ret)), nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActNotify:
		return retNotify, nil
	}
	return 0, fault.Invalid("linux.seccomp: action %q is unknown", a)
}

// span is the numbers from first up to the next span's first.
type span struct {
	first uint32
	decision
}

// ranges is the whole number space of an architecture, cut where the decision changes.
func ranges(a *arch, rules []rule, fallback uint32) []span {
	calls := map[uint32]*decision{}
	settled := map[uint32]bool{}
	var highest uint32
	for i := range rules {
		r := &rules[i]
		for _, name := range r.names {
			nr, ok := a.numbers[name]
			if !ok {
				continue
			}
			highest = max(highest, nr)
			d := calls[nr]
			if d == nil {
				d = &decision{action: fallback}
				calls[nr] = d
			}
			if len(r.any) == 0 {
				if !settled[nr] {
					d.action, settled[nr] = r.action, true
				}
				continue
			}
			for _, c := range r.any {
				d.branches = append(d.branches, branch{c, r.action})
			}
		}
	}
	numbers := make([]uint32, 0, len(calls))
	for nr := range calls {
		numbers = append(numbers, nr)
	}
	slices.Sort(numbers)
	spans := []span{{0, decision{action: fallback}}}
	put := func(first uint32, d decision) {
		last := &spans[len(spans)-1]
		switch {
		case last.first == first:
			last.decision = d
			if n := len(spans); n > 1 && spans[n-2].equal(d) {
				spans = spans[:n-1]
			}
		case !last.equal(d):
			spans = append(spans, span{first, d})
		}
	}
	for _, nr := range numbers {
		put(nr, *calls[nr])
		put(nr+1, decision{action: fallback})
	}
	if fallback&unix.SECCOMP_RET_ACTION_FULL == retErrno && fallback != retErrno|uint32(unix.ENOSYS) && len(numbers) > 0 {
		put(highest+1, decision{action: retErrno | uint32(unix.ENOSYS)})
	}
	return spans
}
