package launch

import (
	"sync"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/lower"
	"tare/internal/runtime/plan"
	"tare/internal/runtime/seccomp"
)

var image = sync.OnceValues(newImage)

// forced is for tests and for the command line, which compare the executors.
var forced plan.Executor

// Force has all plans executed by that executor, whatever they ask for; "" ends that. A plan that the
// interpreter can't execute fails then. It is not for use while anything is launched.
func Force(e plan.Executor) { forced = e }

// Executor says what will execute a plan on this machine, and for the stage why.
func Executor(p *plan.Plan) (plan.Executor, string) {
	e, why := p.Executor()
	if e == plan.Interpreter {
		if _, err := image(); err != nil {
			e, why = plan.Stage, "this machine can't run the interpreter: "+err.Error()
		} else if p.JoinPid && !bornUnderFilter(p) {
			e, why = plan.Stage, "linux.seccomp forbids to be born late"
		}
	}
	if forced != "" && forced != e {
		return forced, "it was told to"
	}
	return e, why
}

// bornUnderFilter tells whether the seccomp filter, which is in force by then, allows what the
// interpreter does to bear the program into the container's pid namespace.
func bornUnderFilter(p *plan.Plan) bool {
	for i := range p.Steps {
		if st := &p.Steps[i]; st.Op == plan.OpSeccomp {
			for _, c := range [...]struct {
				number uint32
				args   [6]uint64
			}{
				{unix.SYS_CLONE, [6]uint64{unix.CLONE_PARENT | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}},
				{unix.SYS_SETSID, [6]uint64{}},
				{unix.SYS_IOCTL, [6]uint64{0, unix.TIOCSCTTY}},
				{unix.SYS_SENDTO, [6]uint64{syncFD, 0, 5, unix.MSG_NOSIGNAL}},
				{unix.SYS_EXIT_GROUP, [6]uint64{}},
			} {
				if !seccomp.Allows([]byte(st.Data), c.number, c.args) {
					return false
				}
			}
		}
	}
	return true
}

// programFile is the interpreter's program; with the steps behind it, where it may become the stage.
func programFile(p *plan.Plan, stdio Stdio, detached, join bool) (int, error) {
	null, _ := devNull()
	o := lower.Options{
		Stdio:   [3]uintptr{fdOr(stdio.In, null), fdOr(stdio.Out, null), fdOr(stdio.Err, null)},
		Console: stdio.Console, Keep: len(stdio.Keep), Detached: detached, Join: join,
	}
	if join {
		program, err := lower.Program(p, o)
		if err != nil {
			return -1, err
		}
		b, err := program.Marshal()
		if err != nil {
			return -1, err
		}
		return memory("program", b)
	}
	o.StageFD = firstExtra + o.Keep
	steps := plan.MarshalSteps(p.Steps)
	o.StepsSize = len(steps)
	program, err := lower.Program(p, o)
	if err != nil {
		return -1, err
	}
	b, err := program.Marshal()
	if err != nil {
		return -1, err
	}
	return memory("program", b, steps)
}

// isFromPid tells whether a message came from Pid: the kernel says so (unix(7), SCM_CREDENTIALS).
func (p *Process) isFromPid(oob []byte) bool {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for i := range msgs {
		if c, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
			return int(c.Pid) == p.Pid
		}
	}
	return false
}

// follow goes over to the program that was born: Pid and PidFD are its own from now on.
func (p *Process) follow() error {
	p.bears = false
	if p.born == 0 {
		return nil // Pid was killed on the way; its exit status tells
	}
	fd, err := unix.PidfdOpen(p.born, 0)
	if err != nil {
		return fault.Internal("the process that was started is gone: %w", err)
	}
	p.reapBearer()
	// The number stays the same: whoever watches it does so once more.
	err = unix.Dup3(fd, p.PidFD, unix.O_CLOEXEC)
	unix.Close(fd)
	p.Pid = p.born
	return err
}

// bury collects a child that could not become the program.
func (p *Process) bury() {
	if p.born != 0 {
		_, _ = wait(p.born)
		p.born = 0
	}
}

// reapBearer collects Pid, which closed its end of the socket and so is as good as dead.
func (p *Process) reapBearer() { _, _ = wait(p.Pid) }

func wait(pid int) (ws unix.WaitStatus, err error) {
	for {
		if _, err = unix.Wait4(pid, &ws, unix.WALL, nil); err != unix.EINTR {
			return ws, err
		}
	}
}

// Bearing tells whether the program may be a child of this process already that nobody knows the pid of yet.
func (p *Process) Bearing() bool { return p.bears }
