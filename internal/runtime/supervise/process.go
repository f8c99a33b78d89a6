package supervise

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
	"tare/internal/runtime/wire"
)

// phase of a process's life; see the package comment.
type phase uint8

const (
	launching phase = iota
	created         // waits for start
	going           // was told to exec
	running
	ended
)

// process is a container's init or one of its execs.
type process struct {
	c        *container
	exec     string          // "" for init
	child    *launch.Process // until it runs
	sync     int             // child's socket; -1 when closed
	pid      int
	pidfd    int
	phase    phase
	terminal bool
	once     bool // the end of the first attached client's stdin is the end of stdin
	log      *logFile
	stdin    stdin
	out, err source
	attached []*attachment
	pipes    [3]uint64 // inodes of init's stdin, stdout and stderr; 0: none
	kept     bool      // engines have its descriptors too
	begun    bool      // all is watched, if it was taken over
	faster   bool      // it ended with status before a foreign runtime's command to start it did
	status   unix.WaitStatus
	reason   string      // why its exit code is not known
	failure  *wire.Error // why it never ran
	waiting  *request    // Create, Start or Exec to be answered
	size     unix.Winsize
}

func (p *process) s() *supervisor { return p.c.s }

func (p *process) ref() runtime.Ref { return runtime.Ref{Container: p.c.id, Exec: p.exec} }

// openStdio makes the process's pipes; uid owns them, so that the program may open /dev/stdout anew. The child's
// ends are the caller's to close, and are among those that ends lists.
func (p *process) openStdio(io runtime.Stdio, uid uint32) (std launch.Stdio, ends []*os.File, err error) {
	p.terminal, p.once = io.Terminal, io.StdinOnce || p.exec != ""
	p.size = unix.Winsize{Col: io.Width, Row: io.Height}
	p.stdin.p, p.stdin.fd = p, -1
	p.out, p.err = source{p: p, fd: -1, stream: stdout}, source{p: p, fd: -1, stream: stderr}
	p.sync, p.pidfd = -1, -1

	std.Console = io.Terminal
	pipe := func(ours *int, write bool, inode *uint64) *os.File {
		var fds [2]int
		if e := unix.Pipe2(fds[:], unix.O_CLOEXEC); e != nil {
			err = fault.Internal("cannot make a pipe: %w", e)
			return nil
		}
		mine, theirs := fds[0], fds[1]
		if write {
			mine, theirs = theirs, mine
		}
		_ = unix.SetNonblock(mine, true)
		if uid != 0 {
			_ = unix.Fchown(theirs, int(uid), -1)
		}
		*ours = mine
		if p.exec == "" {
			*inode = inodeOf(mine)
			if !write {
				theirs = bothWays(theirs)
			}
		}
		f := os.NewFile(uintptr(theirs), "stdio")
		ends = append(ends, f)
		return f
	}
	if io.Terminal {
		return std, nil, nil
	}
	if io.OpenStdin {
		std.In = pipe(&p.stdin.fd, true, &p.pipes[0])
	}
	std.Out = pipe(&p.out.fd, false, &p.pipes[1])
	std.Err = pipe(&p.err.fd, false, &p.pipes[2])
	if err != nil {
		p.closeStdio()
	}
	return std, ends, err
}

// launch makes the pipes and starts the child; its "created" comes later.
func (p *process) launch(compiled *plan.Plan, join int, io runtime.Stdio, uid uint32) error {
	std, ends, err := p.openStdio(io, uid)
	defer closeFiles(ends)
	if err != nil {
		return err
	}
	p.child, err = launch.New(compiled, join, std)
	if err != nil {
		p.closeStdio()
		return err
	}
	p.pid, p.pidfd, p.sync = p.child.Pid, p.child.PidFD, p.child.Sync
	l := p.s().loop
	l.watch(p.sync, (*syncWatch)(p), unix.EPOLLIN)
	l.watch(p.pidfd, (*exitWatch)(p), unix.EPOLLIN)
	p.out.resume()
	p.err.resume()
	return nil
}

func (p *process) closeStdio() {
	l := p.s().loop
	l.close(&p.stdin.fd)
	l.close(&p.out.fd)
	l.close(&p.err.fd)
}

// syncWatch is the process as the handler of its child's socket.
type syncWatch process

func (w *syncWatch) ready(uint32) { (*process)(w).receive() }

// receive handles what the child reported until there is nothing more for now.
func (p *process) receive() {
	for p.sync >= 0 {
		m, ok, err := p.child.Receive()
		switch {
		case err != nil:
			p.fail(err)
		case !ok:
			return
		case m.Err != nil:
			p.fail(m.Err)
		case m.Created:
			p.becomeCreated(m.Master)
		case m.Started:
			p.becomeRunning()
		}
	}
}

// fail notes why the process never ran. Its end, which is near, does the rest.
func (p *process) fail(err error) {
	p.s().loop.close(&p.sync)
	if p.failure != nil {
		return
	}
	p.failure = describe(err)
	_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
}

// becomeCreated takes the terminal, and answers Create; an exec goes on at once.
func (p *process) becomeCreated(master *os.File) {
	if p.phase == going {
		return // it was told beforehand
	}
	p.phase = created
	if p.terminal {
		if err := p.takeMaster(master); err != nil {
			p.fail(err)
			return
		}
	}
	if p.exec != "" {
		p.goOn()
		return
	}
	p.isCreated()
}

// isCreated answers Create.
func (p *process) isCreated() {
	if err := p.c.group.Settle(); err != nil {
		p.fail(err)
		return
	}
	(heir{p}).keep()
	p.answer(wire.Pid{Pid: p.pid}, nil)
}

// bothWays opens a pipe's writing end for reading too. Init's stdout and stderr are such: should supervisor and engine be
// killed together, it waits for a new reader instead of being ended by SIGPIPE.
func bothWays(fd int) int {
	both, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fd
	}
	unix.Close(fd)
	return both
}

// takeMaster makes the pty master stdin and stdout of the process.
func (p *process) takeMaster(master *os.File) error {
	if master == nil {
		return fault.Internal("the stage sent no terminal")
	}
	defer master.Close()
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var dup error
	err = raw.Control(func(fd uintptr) {
		// Two descriptors, because reading and writing are watched apart.
		if p.out.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); dup == nil {
			p.stdin.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
		}
	})
	if err = errors.Join(err, dup); err != nil {
		return err
	}
	_ = unix.SetNonblock(p.out.fd, true) // of the open file, so of both
	p.out.tty = true
	if p.size.Col != 0 || p.size.Row != 0 {
		_ = unix.IoctlSetWinsize(p.out.fd, unix.TIOCSWINSZ, &p.size)
	}
	p.out.resume()
	return nil
}

// goOn lets the created child exec.
func (p *process) goOn() {
	p.phase = going
	if p.c.foreign != nil {
		(guest{p}).goForeign()
		return
	}
	if err := p.child.Go(); err != nil {
		p.fail(err)
	}
}

func (p *process) becomeRunning() {
	p.s().loop.close(&p.sync)
	if p.child != nil && p.child.Pid > 0 && p.child.Pid != p.pid { // an exec is born at the end, by a process that is gone now
		l := p.s().loop
		l.watch(p.pidfd, nil, 0)
		p.pid, p.pidfd = p.child.Pid, p.child.PidFD
		l.watch(p.pidfd, (*exitWatch)(p), unix.EPOLLIN)
		l.post(p.s().reapAll) // what was left for not knowing it
	}
	p.phase = running
	p.child = nil
	if p.exec == "" {
		p.c.started = time.Now().UnixNano()
		p.c.rootfs = nil
		p.c.note()
		p.c.watchOOM()
	} else {
		(heir{p}).keep()
		for _, a := range p.attached {
			a.keep()
		}
	}
	p.answer(wire.Pid{Pid: p.pid}, nil)
}

// answer answers the request that waits for this process, if one does.
func (p *process) answer(body any, err error) {
	r := p.waiting
	p.waiting = nil
	r.reply(body, err)
}

// refuse answers the request that waits for this process with why it never ran.
func (p *process) refuse() {
	if p.waiting != nil {
		p.answer(nil, p.failure)
	}
}

// signal sends a signal to this process and no other.
func (p *process) signal(sig int) error {
	err := unix.PidfdSendSignal(p.pidfd, unix.Signal(sig), nil, 0)
	switch err {
	case nil:
		return nil
	case unix.ESRCH:
		return fault.Conflict("container %s is not running", p.c.id)
	case unix.EINVAL:
		return fault.Invalid("Invalid signal: %d", sig)
	}
	return fault.Internal("cannot signal process %d of container %s: %w", p.pid, p.c.id, err)
}

// resize sets the terminal's size; before the process has one, it is kept for it.
func (p *process) resize(width, height uint16) error {
	if !p.terminal {
		return fault.Invalid("container %s: the process has no terminal", p.c.id)
	}
	p.size = unix.Winsize{Col: width, Row: height}
	if p.out.fd < 0 {
		return nil
	}
	if err := unix.IoctlSetWinsize(p.out.fd, unix.TIOCSWINSZ, &p.size); err != nil {
		return fault.Internal("cannot resize the terminal of container %s: %w", p.c.id, err)
	}
	return nil
}
