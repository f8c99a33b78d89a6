package launch

import (
	"encoding/binary"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/plan"
)

// A process with more than one thread can't enter a user namespace or a time namespace (setns(2)), and a Go
// program always has more. The bridge is a fork of this process that runs no Go beyond raw system calls: it
// enters the namespaces, makes the stage as its own sibling, and ends.
//
//	parent                     bridge (1 thread)              stage
//	  fork ─────────────────────▶ setns …
//	                              clone(PARENT|NEW…) ──────────▶ ids, descriptors
//	  pid ◀───────────────────── pid, exit                       execveat(stage program)
//	  EOF, or step and errno ◀──────────────────────────────────

// crossing is all that the bridge needs, in memory that is there before the fork.
type crossing struct {
	enter    []entry
	clone    cloneArgs
	fds      []int // already out of the way of 0…
	pipe     int
	program  int
	empty    *byte
	root     *byte
	argv     []*byte
	envp     []*byte
	becoming bool    // root of the user namespace
	report   [8]byte // what happened, errno or pid
}

type entry struct{ fd, kind int }

// cloneArgs is struct clone_args (linux/sched.h).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// Steps of the bridge, for the report.
const (
	crossedPid = iota
	crossEnter // and the number of the entry
	crossClone = 100 + iota
	crossIDs
	crossFDs
	crossExec
)

func (b *birth) bridge() error {
	e := b.p.Entrance
	fds, kinds, err := openNamespaces(e)
	if err != nil {
		return err
	}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	c := &crossing{becoming: e.JoinsUser(), program: -1}
	flags := b.p.Clone
	for i, fd := range fds {
		if b.p.PidNS != "" && kinds[i] == unix.CLONE_NEWUSER {
			ns, err := unix.Open(b.p.PidNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fault.Invalid("cannot open pid namespace %s: %w", b.p.PidNS, err)
			}
			defer unix.Close(ns)
			c.enter = append(c.enter, entry{ns, unix.CLONE_NEWPID})
		}
		c.enter = append(c.enter, entry{fd, kinds[i]})
	}
	if e.Join != 0 {
		first := e.Join &^ unix.CLONE_NEWUSER
		if b.p.JoinPid {
			first |= unix.CLONE_NEWPID
		}
		c.enter = append(c.enter, entry{b.join, int(first)})
		if e.Join&unix.CLONE_NEWUSER != 0 {
			c.enter = append(c.enter, entry{b.join, unix.CLONE_NEWUSER})
		}
	}
	c.clone = cloneArgs{flags: flags | unix.CLONE_PARENT}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	closeWrite := func() {
		if pipe[1] >= 0 {
			unix.Close(pipe[1])
			pipe[1] = -1
		}
	}
	defer closeWrite()
	// 0… are the stage's own; everything that is still wanted must lie above them.
	above := func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 128) }
	var high []int
	defer func() {
		for _, fd := range high {
			unix.Close(fd)
		}
	}()
	lift := func(fd int) int {
		n, lerr := above(fd)
		if lerr != nil {
			err = lerr
			return -1
		}
		high = append(high, n)
		return n
	}
	for _, f := range b.files {
		c.fds = append(c.fds, lift(int(f)))
	}
	c.pipe = lift(pipe[1])
	if c.becoming {
		program, perr := opaqueProgram()
		if perr != nil {
			return perr
		}
		c.program = lift(program)
	} else {
		program, perr := unix.Open(b.program, unix.O_PATH|unix.O_CLOEXEC, 0)
		if perr != nil {
			return perr
		}
		defer unix.Close(program)
		c.program = lift(program)
	}
	if err != nil {
		return err
	}
	if c.argv, err = syscall.SlicePtrFromStrings(b.argv); err != nil {
		return err
	}
	if c.envp, err = syscall.SlicePtrFromStrings(stageEnv); err != nil {
		return err
	}
	c.empty, c.root = new(byte), &[]byte("/\x00")[0]
	done := make(chan error)
	var helper int
	go func() { // its thread may have changed: it ends with it
		runtime.LockOSThread()
		err := because(setAffinity(e.CPUs), "process.execCPUAffinity.initial")
		if err == nil {
			err = enterClocks(e.Offsets)
		}
		if err == nil {
			helper, err = cross(c, b.sys.CgroupFD, b.sys.UseCgroupFD)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return err
	}
	closeWrite()
	unix.Close(c.pipe)
	high = remove(high, c.pipe)
	err = b.await(pipe[0], c)
	_, _ = unix.Wait4(helper, nil, 0, nil)
	if err == nil && b.sys.PidFD != nil {
		*b.sys.PidFD, err = unix.PidfdOpen(b.pid, 0)
	}
	if err != nil && b.pid != 0 {
		_ = unix.Kill(b.pid, unix.SIGKILL)
		_, _ = unix.Wait4(b.pid, nil, 0, nil)
	}
	return err
}

// opaqueProgram is this program in a file that can be executed and not read. The process that executes it in
// a user namespace is closed to ptrace(2) from its first instruction on, also by the namespace's own root: the
// stage still sees the host's files at that time.
var opaqueProgram = sync.OnceValues(func() (int, error) {
	fd, err := sealedCopy("/proc/self/exe")
	if err != nil {
		return -1, err
	}
	if err := unix.Fchmod(fd, 0o111); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return high(fd)
})

func remove(list []int, n int) []int {
	out := list[:0]
	for _, v := range list {
		if v != n {
			out = append(out, v)
		}
	}
	return out
}

// await reads the reports until the stage has been executed.
func (b *birth) await(pipe int, c *crossing) error {
	var buf [8]byte
	for {
		n, err := unix.Read(pipe, buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0 && b.pid == 0:
			return fault.Internal("the process that enters the namespaces was killed")
		case n == 0:
			return nil
		case n != len(buf):
			return unix.EIO
		}
		what, value := binary.NativeEndian.Uint32(buf[:]), binary.NativeEndian.Uint32(buf[4:])
		errno := unix.Errno(value)
		switch {
		case what == crossedPid:
			b.pid = int(value)
		case what >= crossEnter && what < crossClone:
			kind := plan.Step{Op: plan.OpJoin, Flags: uint64(c.enter[what-crossEnter].kind)}
			return fault.Invalid("cannot %s (linux.namespaces): %w", kind.String(), errno)
		case what == crossIDs:
			return fault.Invalid("cannot become root of the user namespace (linux.namespaces user): %w", errno)
		default:
			return fault.Internal("cannot start a process in the namespaces: %w", errno)
		}
	}
}

// cross forks the bridge. From the fork on nothing may allocate, grow the stack or be preempted: all
// signals are blocked, and the stage unblocks them.
func cross(c *crossing, cgroup int, useCgroup bool) (int, error) {
	first := cloneArgs{exitSignal: uint64(unix.SIGCHLD)}
	if useCgroup {
		first.flags, first.cgroup = unix.CLONE_INTO_CGROUP, uint64(cgroup)
	}
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err != nil {
		return 0, err
	}
	pid, errno := forkBridge(c, &first)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil && errno == 0 {
		return 0, err
	}
	runtime.KeepAlive(c)
	if errno != 0 {
		return 0, errno
	}
	return int(pid), nil
}

//go:norace
//go:nosplit
func forkBridge(c *crossing, first *cloneArgs) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(first)), unsafe.Sizeof(*first), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	// From the moment that it is in the container's namespaces on, processes in there may look at it; they find it closed.
	syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0)
	for i := range c.enter {
		e := &c.enter[i]
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(e.fd), uintptr(e.kind), 0); errno != 0 {
			c.tell(uint32(crossEnter+i), uint32(errno))
		}
	}
	pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.clone)), unsafe.Sizeof(c.clone), 0)
	if errno != 0 {
		c.tell(crossClone, uint32(errno))
	}
	if pid != 0 {
		c.say(crossedPid, uint32(pid))
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	if c.becoming {
		syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
			c.tell(crossIDs, uint32(errno))
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			c.tell(crossIDs, uint32(errno))
		}
	}
	syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.root)), 0, 0)
	for i := range c.fds {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.fds[i]), uintptr(i), 0); errno != 0 {
			c.tell(crossFDs, uint32(errno))
		}
	}
	_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(c.program), uintptr(unsafe.Pointer(c.empty)),
		uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.envp[0])), unix.AT_EMPTY_PATH, 0)
	c.tell(crossExec, uint32(errno))
	return 0, errno
}

//go:norace
//go:nosplit
func (c *crossing) say(what, value uint32) {
	*(*uint32)(unsafe.Pointer(&c.report[0])) = what
	*(*uint32)(unsafe.Pointer(&c.report[4])) = value
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.pipe), uintptr(unsafe.Pointer(&c.report[0])), 8)
}

// tell is say, and the end.
//
//go:norace
//go:nosplit
func (c *crossing) tell(what, value uint32) {
	c.say(what, value)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

// forkPaused is a process in new namespaces that does nothing. The caller kills and reaps it.
func forkPaused(flags uint64) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	args := cloneArgs{flags: flags, exitSignal: uint64(unix.SIGCHLD)}
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err != nil {
		return 0, err
	}
	pid, errno := forkAndPause(&args)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil && errno == 0 {
		errno = err.(unix.Errno)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(pid), nil
}

//go:norace
//go:nosplit
func forkAndPause(args *cloneArgs) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	// Not even standard streams are kept open by it.
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, ^uintptr(0)>>32, 0)
	syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
