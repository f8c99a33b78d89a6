package plan

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/seccomp"
)

func console(process *specs.Process, at string) Step {
	var w, h uint64
	if s := process.ConsoleSize; s != nil {
		w, h = uint64(s.Width), uint64(s.Height)
	}
	return Step{Op: OpConsole, Why: "process.terminal", Path: at, Num: []uint64{w, h, uint64(process.User.UID)}}
}

// compileProcess is what a container's init and an exec have in common: from
// the report to the exec. Seccomp comes as late as it may: with no_new_privs as
// the very last, else before the capabilities that installing needs are gone.
func compileProcess(p *Plan, spec *specs.Spec, process *specs.Process, host Host) error {
	if process.OOMScoreAdj != nil {
		if n := *process.OOMScoreAdj; n < -1000 || n > 1000 {
			return fault.Invalid("process.oomScoreAdj %d is not between -1000 and 1000", n)
		} else if !host.CanRaiseLimits && n < host.OOMScore {
			p.warn("process.oomScoreAdj %d needs CAP_SYS_RESOURCE, which this runtime does not have: it stays %d", n, host.OOMScore)
		}
		p.Steps = slices.Insert(p.Steps, beforeBuild(p), Step{Op: OpOOM, Why: "process.oomScoreAdj", Data: strconv.Itoa(*process.OOMScoreAdj)})
	}
	if len(process.Args) == 0 || process.Args[0] == "" {
		return fault.Invalid("no command specified")
	}
	if !path.IsAbs(process.Cwd) {
		return fault.Invalid("process.cwd %q is not an absolute path", process.Cwd)
	}
	filter, err := compileSeccomp(spec.Linux.Seccomp)
	if err != nil {
		return err
	}
	u := process.User
	p.add(Step{Op: OpStdioOwner, Why: "process.user.uid", Num: []uint64{uint64(u.UID)}})
	p.add(Step{Op: OpReady})
	if spec.Process == process && spec.Hooks != nil {
		p.hooks("startContainer", spec.Hooks.StartContainer)
	}
	if err := compileScheduler(p, process); err != nil {
		return err
	}
	p.add(Step{Op: OpCwd, Why: "process.cwd", Path: path.Clean(process.Cwd)})
	umask := uint64(0o022)
	if u.Umask != nil {
		umask = uint64(*u.Umask)
	}
	p.add(Step{Op: OpUmask, Why: "process.user.umask", Num: []uint64{umask}})
	// Late, so that they bind the program and not the stage; early enough that raising one is still allowed.
	if err := compileRlimits(p, process, host); err != nil {
		return err
	}
	caps := process.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	var sets [5]uint64
	for i, set := range [...]struct {
		field string
		names []string
	}{
		{"bounding", caps.Bounding}, {"effective", caps.Effective}, {"permitted", caps.Permitted}, {"inheritable", caps.Inheritable}, {"ambient", caps.Ambient},
	} {
		if sets[i], err = capMask("process.capabilities."+set.field, set.names); err != nil {
			return err
		}
	}
	p.add(Step{Op: OpBounding, Why: "process.capabilities.bounding", Num: []uint64{sets[0]}})
	if filter != nil && !process.NoNewPrivileges {
		p.add(*filter)
	}
	ids := []uint64{uint64(u.UID), uint64(u.GID)}
	for _, g := range u.AdditionalGids {
		ids = append(ids, uint64(g))
	}
	p.add(Step{Op: OpUser, Why: "process.user", Num: ids})
	p.add(Step{Op: OpCapabilities, Why: "process.capabilities", Num: slices.Clone(sets[1:])})
	if process.NoNewPrivileges {
		p.add(Step{Op: OpNoNewPrivs, Why: "process.noNewPrivileges"})
		if filter != nil {
			p.add(*filter)
		}
	}
	for _, s := range append(slices.Clone(process.Args), process.Env...) {
		if strings.IndexByte(s, 0) >= 0 {
			return fault.Invalid("process arguments and environment can't contain a zero byte")
		}
	}
	p.add(Step{Op: OpExec, Why: "process.args", List: process.Args, Env: process.Env, Num: []uint64{uint64(u.UID)}})
	return nil
}

// beforeBuild is the place of steps that need the host's /proc.
func beforeBuild(p *Plan) int {
	for i := range p.Steps {
		if op := p.Steps[i].Op; op == OpPropagation || op == OpJoin {
			return i
		}
	}
	return 0
}

func compileSeccomp(profile *specs.LinuxSeccomp) (*Step, error) {
	if profile == nil {
		return nil, nil
	}
	f, err := seccomp.Cached(profile)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, nil
	}
	return &Step{Op: OpSeccomp, Why: "linux.seccomp", Data: string(f.Code), Flags: uint64(f.Flags)}, nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// RlimitNames are the limits that process.rlimits can have, and their numbers.
func RlimitNames(each func(name string, resource int)) {
	for _, r := range rlimits {
		each(r.name, int(r.num))
	}
}

var rlimits = []struct {
	name string
	num  uint64
}{
	{"RLIMIT_AS", unix.RLIMIT_AS}, {"RLIMIT_CORE", unix.RLIMIT_CORE}, {"RLIMIT_CPU", unix.RLIMIT_CPU}, {"RLIMIT_DATA", unix.RLIMIT_DATA},
	{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE}, {"RLIMIT_LOCKS", unix.RLIMIT_LOCKS}, {"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK},
	{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", unix.RLIMIT_NICE}, {"RLIMIT_NOFILE", unix.RLIMIT_NOFILE},
	{"RLIMIT_NPROC", unix.RLIMIT_NPROC}, {"RLIMIT_RSS", unix.RLIMIT_RSS}, {"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO},
	{"RLIMIT_RTTIME", unix.RLIMIT_RTTIME}, {"RLIMIT_SIGPENDING", unix.RLIMIT_SIGPENDING}, {"RLIMIT_STACK", unix.RLIMIT_STACK},
}

func rlimitName(n uint64) string {
	for _, r := range rlimits {
		if r.num == n {
			return r.name
		}
	}
	return "?"
}

func compileRlimits(p *Plan, process *specs.Process, host Host) error {
	seen := map[string]bool{}
	for i, r := range process.Rlimits {
		field := fmt.Sprintf("process.rlimits[%d]", i)
		if seen[r.Type] {
			return fault.Invalid("%s: %s is given twice", field, r.Type)
		}
		seen[r.Type] = true
		if r.Soft > r.Hard {
			return fault.Invalid("%s: soft limit %d is above the hard limit %d", field, r.Soft, r.Hard)
		}
		at := -1
		for j := range rlimits {
			if rlimits[j].name == r.Type {
				at = j
			}
		}
		if at < 0 {
			return fault.Invalid("%s: %s is unknown", field, r.Type)
		}
		s := Step{Op: OpRlimit, Why: field, Num: []uint64{rlimits[at].num, r.Soft, r.Hard}}
		if !host.CanRaiseLimits {
			s.Flags = 1
			if most, ok := host.Hard[r.Type]; ok && r.Hard > most {
				s.Num[1], s.Num[2] = min(r.Soft, most), most
				p.warn("%s: a hard limit of %s for %s needs CAP_SYS_RESOURCE, which this runtime does not have: it is %s", field, limit(r.Hard), r.Type, limit(most))
			}
		}
		p.add(s)
	}
	return nil
}
