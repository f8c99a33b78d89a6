// Package launch executes plans: it clones a child into the namespaces that the
// plan asks for, and the child (the stage: this program, re-executed with the
// plan on a descriptor) performs the steps, reports, waits for the word, execs.
//
// Nothing here blocks on the child: the supervisor's event loop watches
// Process.Sync and Process.PidFD itself. `tare-run create` and `run` use the
// blocking helper Next.
//
//	parent                                child (stage)
//	  New ── clone, plan on fd ──────────▶ steps …
//	      ◀──────── "runtime" ───────────  waits      where the spec has hooks
//	  On  ── "on" ───────────────────────▶ steps …
//	      ◀──────── "created" ───────────  waits
//	  Go  ── "go" ───────────────────────▶ execve
//	      ◀──────── EOF (close-on-exec), or "failed STEP ERRNO" ──
//
// With Detach the stage waits on a listening socket instead, so that another
// process may say go later (Resume).
//
// The stage runs inside the container's pid namespace before it becomes the
// container's program. Two things keep what runs there from reaching back: it
// is not dumpable, so /proc/PID/exe, /fd and /root of it are closed to all who
// lack CAP_SYS_PTRACE; and its program file is this program on a read-only mount of its own
// that no namespace has (or a sealed copy in memory), so that a container that is told
// to execute /proc/self/exe gets nothing that it could write to (CVE-2019-5736).
package launch

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/lower"
	"tare/internal/runtime/plan"
)

// Stdio are the child's descriptors 0, 1, 2; a nil one is /dev/null. With Console set
// (a pty's other end is opened inside the container's devpts by the stage) they are nil
// and the pty master arrives with the "created" message.
type Stdio struct {
	In, Out, Err *os.File
	Console      bool
	// Keep are further descriptors for the program, from 3 on.
	Keep []*os.File
}

// Process is a launched child. The caller owns its descriptors (see Close) and has to reap Pid.
type Process struct {
	Pid   int
	PidFD int
	Sync  int // non-blocking unix socket: see Message

	Warnings []string // where less is done than the spec asks for

	steps []plan.Step
	told  bool // Go was called
	bears bool // Pid bears the program and ends; until Started
	born  int  // the program's pid, as Pid said
}

// Message is one report of the stage.
type Message struct {
	Runtime bool     // everything is in place; the child waits until the runtime's hooks ran: On
	Notify  int      // not 0: the descriptor of the child that is about to become its seccomp listener; it then waits for On
	Created bool     // set-up is done, the child waits for Go
	Started bool     // the exec happened, or the child was killed on the way to it: its exit status tells
	Err     error    // a step failed; the child is gone
	ExecErr bool     // Err is an *ExecError
	Master  *os.File // the pty master, with Created, if Console was asked for
}

// Descriptors of the stage besides stdio; the program's own (Stdio.Keep) come after.
const (
	syncFD     = lower.SyncFD
	planFD     = lower.PlanFD
	pidFD      = lower.PidFD    // of the process whose namespaces an exec joins
	listenFD   = lower.ListenFD // where a detached stage waits for the word
	firstExtra = lower.FirstExtra
)

// maxKeep leaves the stage's own program file (see high) out of the way of the descriptors that it is given.
const maxKeep = 48

// stageName is the stage's argument 0, by which the program knows that it is one.
const stageName = lower.StageName

// stageEnv keeps Go's runtime from reading files that the container may control, and from collecting garbage.
var stageEnv = lower.StageEnv

// New starts the child. joinPid is 0 for a container's init, and for an exec the pid of the container's init.
func New(p *plan.Plan, joinPid int, stdio Stdio) (*Process, error) {
	return start(p, joinPid, stdio, -1)
}

// Detach is New for a child that takes the word to go from listener, a listening
// unix socket of type SOCK_SEQPACKET; see Resume.
func Detach(p *plan.Plan, stdio Stdio, listener *os.File) (*Process, error) {
	return start(p, 0, stdio, int(listener.Fd()))
}

// Resume is the parent's side of a detached child: conn is connected to its listener.
// The Process has neither Pid nor PidFD.
func Resume(p *plan.Plan, conn int) *Process {
	return &Process{PidFD: -1, Sync: conn, steps: p.Steps}
}

func start(p *plan.Plan, joinPid int, stdio Stdio, listener int) (*Process, error) {
	if len(stdio.Keep) > maxKeep {
		return nil, fault.Invalid("cannot pass on %d descriptors; the most is %d", len(stdio.Keep), maxKeep)
	}
	program, stageFile, err := stageProgram()
	if err != nil {
		return nil, fault.Internal("cannot prepare the program that sets containers up: %w", err)
	}
	null, err := devNull()
	if err != nil {
		return nil, fault.Internal("cannot open %s: %w", os.DevNull, err)
	}
	share, err := prepare(p, firstExtra+len(stdio.Keep))
	if err != nil {
		return nil, err
	}
	defer share.close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Internal("cannot make a socket: %w", err)
	}
	defer unix.Close(pair[1])
	executor, _ := Executor(p)
	proc := &Process{PidFD: -1, Sync: pair[0], bears: executor == plan.Interpreter && p.JoinPid && joinPid != 0, Warnings: append(share.warnings, p.Warnings...), steps: p.Steps}
	mode := "n"
	join, joined := null, -1
	if joinPid != 0 {
		if join, err = unix.PidfdOpen(joinPid, 0); err != nil {
			unix.Close(pair[0])
			return nil, fault.Conflict("the container's process %d is gone: %w", joinPid, err)
		}
		defer unix.Close(join)
		joined = join
	}
	if listener >= 0 {
		mode = "d"
	} else {
		listener = null
	}
	planfd := -1
	if executor == plan.Stage {
		planfd, err = memory("plan", plan.MarshalSteps(share.steps))
	} else if program, err = image(); err == nil {
		planfd, err = programFile(p, stdio, mode == "d", joinPid != 0)
	}
	if err != nil {
		unix.Close(pair[0])
		return nil, fault.Internal("cannot hand over the plan: %w", err)
	}
	defer unix.Close(planfd)
	fds := []uintptr{fdOr(stdio.In, null), fdOr(stdio.Out, null), fdOr(stdio.Err, null),
		uintptr(pair[1]), uintptr(planfd), uintptr(join), uintptr(listener)}
	for _, f := range stdio.Keep {
		fds = append(fds, f.Fd())
	}
	for _, fd := range share.fds {
		fds = append(fds, uintptr(fd))
	}
	sys := &syscall.SysProcAttr{Setsid: true, Cloneflags: uintptr(p.Clone), PidFD: &proc.PidFD}
	if p.CgroupDir != "" {
		dir, err := unix.Open(p.CgroupDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			unix.Close(pair[0])
			return nil, fault.Internal("cannot open cgroup %s: %w", p.CgroupDir, err)
		}
		defer unix.Close(dir)
		sys.UseCgroupFD, sys.CgroupFD = true, dir
	}
	argv := []string{stageName, p.Title, mode, strconv.Itoa(len(stdio.Keep))}
	child := birth{p: p, join: joined, program: program, argv: argv, files: fds, sys: sys}
	if executor == plan.Stage {
		err = child.spawn()
	} else {
		if joinPid == 0 {
			child.files = append(child.files, uintptr(stageFile))
		}
		if proc.bears {
			err = unix.SetsockoptInt(proc.Sync, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		}
		if err == nil {
			err = child.fork()
		}
	}
	proc.Pid = child.pid
	runtime.KeepAlive(stdio)
	if err == nil {
		err = unix.SetNonblock(proc.Sync, true)
	}
	if err == nil {
		err = share.finish(p, proc.Pid)
	}
	if err != nil {
		if proc.PidFD >= 0 && proc.Pid > 0 {
			_ = unix.PidfdSendSignal(proc.PidFD, unix.SIGKILL, nil, 0)
			_, _ = unix.Wait4(proc.Pid, nil, 0, nil)
		}
		proc.Close()
		return nil, fault.Internal("cannot start a process for %s: %w", p.Title, err)
	}
	return proc, nil
}

func fdOr(f *os.File, otherwise int) uintptr {
	if f == nil {
		return uintptr(otherwise)
	}
	return f.Fd()
}

var ownPidNS = sync.OnceValues(func() (int, error) {
	return unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
})

// inPidNamespace runs spawn on a thread whose children are born in that pid
// namespace, then gives the thread back as it was. Should that fail, the thread
// stays locked to the caller's goroutine and is never used for another.
func inPidNamespace(ns int, spawn func() error) error {
	own, err := ownPidNS()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Setns(ns, unix.CLONE_NEWPID); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = spawn()
	if back := unix.Setns(own, unix.CLONE_NEWPID); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

// Reports of the stage: a letter, then for failures the step's number and the errno
// as little-endian uint32s, then a detail in words; for failed execs the errno and the path.
const (
	saysCreated = lower.SaysCreated
	saysRuntime = 'r' // and waits for hearsOn
	saysNotify  = 'n' // and the descriptor that its seccomp listener will have; waits for hearsOn
	saysFailed  = lower.SaysFailed
	saysExec    = lower.SaysExec
	saysBorn    = lower.SaysBorn
	hearsGo     = lower.HearsGo
	hearsOn     = 'o'
)

const maxReport = 4096

// Receive returns the next message, or ok=false if none has arrived yet (EAGAIN).
func (p *Process) Receive() (m Message, ok bool, err error) {
	buf := make([]byte, maxReport)
	oob := make([]byte, unix.CmsgSpace(4)+unix.CmsgSpace(unix.SizeofUcred))
	var n, oobn int
	reset := false
	for {
		n, oobn, _, _, err = unix.Recvmsg(p.Sync, buf, oob, unix.MSG_CMSG_CLOEXEC)
		// The word to go was not read: the child died first. What it reported before that comes after this.
		if err == unix.ECONNRESET && !reset {
			reset = true
			continue
		}
		if err != unix.EINTR {
			break
		}
	}
	if reset && (err == nil && n == 0 || err == unix.EAGAIN) {
		err = unix.ECONNRESET
	}
	switch err {
	case nil:
	case unix.EAGAIN:
		return Message{}, false, nil
	case unix.ECONNRESET:
		return Message{Err: fault.Internal("the process that sets the container up was killed")}, true, nil
	default:
		return Message{}, false, err
	}
	if n > 0 && p.bears && !p.isFromPid(oob[:oobn]) {
		return p.Receive() // the program, or what traces it, found the socket before its exec closed it
	}
	if n == 0 {
		if p.told && p.bears {
			if err := p.follow(); err != nil {
				return Message{Err: err}, true, nil
			}
		}
		if p.told {
			return Message{Started: true}, true, nil
		}
		return Message{Err: fault.Internal("the process that sets the container up was killed")}, true, nil
	}
	b := buf[1:n]
	switch buf[0] {
	case saysCreated:
		m.Created = true
		if oobn > 0 {
			m.Master = receivedFile(oob[:oobn])
		}
		return m, true, nil
	case saysBorn:
		if len(b) >= 4 && p.bears {
			p.born = int(binary.LittleEndian.Uint32(b))
			return p.Receive()
		}
	case saysRuntime:
		m.Runtime = true
		return m, true, nil
	case saysNotify:
		if len(b) >= 4 {
			m.Notify = int(binary.LittleEndian.Uint32(b))
			return m, true, nil
		}
	case saysFailed:
		if len(b) >= 8 {
			at, errno, detail := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), string(b[8:])
			if i := int(at >> 16); i > 0 && i < len(lower.Details) { // the interpreter's
				at, detail = at&0xffff, lower.Details[i]
			}
			m.Err = p.stepError(int(at), unix.Errno(errno), detail)
			return m, true, nil
		}
	case saysExec:
		if len(b) >= 4 {
			p.bury()
			m.ExecErr = true
			m.Err = p.execError(unix.Errno(binary.LittleEndian.Uint32(b)))
			return m, true, nil
		}
	}
	return Message{}, false, fault.Internal("the process that sets the container up sent nonsense")
}

// Next waits for the next message.
func (p *Process) Next() (Message, error) {
	for {
		m, ok, err := p.Receive()
		if ok || err != nil {
			return m, err
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(p.Sync), Events: unix.POLLIN}}, -1); err != nil && err != unix.EINTR {
			return Message{}, err
		}
	}
}

func receivedFile(oob []byte) *os.File {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil && len(fds) > 0 {
			return os.NewFile(uintptr(fds[0]), "ptmx")
		}
	}
	return nil
}

// Go lets a created child exec. It may be called before Created arrived: the child then does not wait.
func (p *Process) Go() error {
	p.told = true
	err := unix.Sendto(p.Sync, []byte{hearsGo}, unix.MSG_NOSIGNAL, nil)
	if err == unix.EPIPE || err == unix.ECONNRESET {
		p.told = false // it is gone already; Receive tells what it said
		return nil
	}
	if err != nil {
		return fault.Internal("the process that sets the container up is gone: %w", err)
	}
	return nil
}

// On lets a child go on that waits since Runtime or Notify.
func (p *Process) On() error {
	if err := unix.Sendto(p.Sync, []byte{hearsOn}, unix.MSG_NOSIGNAL, nil); err != nil {
		return fault.Internal("the process that sets the container up is gone: %w", err)
	}
	return nil
}

// Close closes Sync and PidFD. A child that still waits for Go then ends.
func (p *Process) Close() {
	for _, fd := range []*int{&p.Sync, &p.PidFD} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}
