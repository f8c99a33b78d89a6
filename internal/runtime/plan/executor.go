package plan

import "golang.org/x/sys/unix"

// Executor is what works a plan's steps off.
type Executor string

const (
	// Interpreter is a process with no code but the interpreter of system calls (package calls).
	Interpreter Executor = "interpreter"
	// Stage is a process of this program.
	Stage Executor = "stage"
)

// interpreted are the steps that are nothing but system calls.
var interpreted = map[Op]bool{
	OpCgroup: true, OpUnshare: true, OpSetns: true, OpJoin: true, OpKeyring: true, OpLoopback: true, OpHostname: true, OpDomainname: true,
	OpSysctl: true, OpOOM: true, OpPersonality: true, OpPropagation: true, OpOverlay: true, OpRoot: true, OpMount: true, OpTmpfs: true, OpBind: true,
	OpSymlink: true, OpDevice: true, OpMask: true, OpReadonly: true, OpAttr: true, OpConsole: true, OpMakeCwd: true, OpPivot: true,
	OpRootPropagation: true, OpReady: true, OpRlimit: true, OpUmask: true, OpCwd: true, OpStdioOwner: true, OpIOPriority: true,
	OpBounding: true, OpUser: true, OpCapabilities: true, OpNoNewPrivs: true, OpSeccomp: true, OpExec: true,
}

// maxInterpreted is how many steps the interpreter takes; its programs are numbered with 16 bits.
const maxInterpreted = 1500

// Executor says what the plan has to be executed by, and for the stage why.
func (p *Plan) Executor() (Executor, string) {
	switch {
	case p.Entrance != nil || p.InUser():
		return Stage, "namespaces that are entered before the process is born"
	case p.PidNS != "":
		return Stage, "a pid namespace that is joined"
	case len(p.Steps) > maxInterpreted:
		return Stage, "more steps than the interpreter takes"
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		switch {
		case !interpreted[s.Op],
			s.Op == OpSetns && s.Flags == unix.CLONE_NEWNS,
			s.Op == OpBind && len(s.Num) != 0,
			s.Op == OpPivot && s.Flags != 0,
			s.Op == OpSeccomp && s.Flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0,
			// The process in between, from which the program is born, would count.
			p.JoinPid && s.Op == OpRlimit && s.Num[0] == unix.RLIMIT_NPROC:
			why := s.Why
			if why == "" {
				why = s.String()
			}
			return Stage, why
		}
	}
	return Interpreter, ""
}
