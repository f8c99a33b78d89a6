package launch

import (
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// The stage does everything on the process's first thread: it is the one whose
// cgroup, ids and capabilities the program inherits.
func init() {
	if isStage() {
		runtime.LockOSThread()
	}
}

func isStage() bool { return (len(os.Args) == 4 || len(os.Args) == 7) && os.Args[0] == stageName }

// StageMain is the child's entry; tare-run (and a test's TestMain) calls it before
// anything else. It returns at once if this process is not the stage, else never.
func StageMain() {
	if !isStage() {
		return
	}
	s := &stage{sync: syncFD, listener: listenFD, root: -1, master: -1, detached: os.Args[2] == "d"}
	s.keep, _ = strconv.Atoi(os.Args[3])
	if len(os.Args) == 7 { // the interpreter did the steps before; see lowering
		s.from, _ = strconv.Atoi(os.Args[4])
		s.root, _ = strconv.Atoi(os.Args[5])
		s.size, _ = strconv.Atoi(os.Args[6])
	}
	at, err := s.run()
	s.fail(at, err)
}

// stage is the child's state while it works through the plan.
type stage struct {
	sync     int
	listener int // where a detached stage waits
	root     int // the new root, O_PATH
	master   int // of the pty that waits to be sent
	detached bool
	keep     int // how many descriptors from firstExtra on are the program's
	steps    []plan.Step
	program  program
	from     int // the first step
	size     int // of the steps at the end of planFD; 0: they are all of it
}

// failure is an errno with what it happened to. It never has to be formatted: the stage makes no use of fmt.
type failure struct {
	errno  unix.Errno
	detail string
	exec   bool
}

func (f *failure) Error() string { return f.detail + ": " + f.errno.Error() }

// because adds a detail to an error that is an errno.
func because(err error, detail string) error {
	if err == nil {
		return nil
	}
	if f, ok := err.(*failure); ok {
		return f
	}
	return &failure{errno: errnoOf(err), detail: detail}
}

func errnoOf(err error) unix.Errno {
	switch e := err.(type) {
	case unix.Errno:
		return e
	case *failure:
		return e.errno
	}
	return unix.EIO
}

func (s *stage) run() (at int, err error) {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		if err := closeOnExec(); err != nil {
			return 0, because(err, "close-on-exec")
		}
	}
	if s.keep > 0 {
		// The program's own descriptors will want these places.
		for _, fd := range []*int{&s.sync, &s.listener} {
			if *fd, err = unix.FcntlInt(uintptr(*fd), unix.F_DUPFD_CLOEXEC, firstExtra+s.keep); err != nil {
				return 0, because(err, "descriptors")
			}
		}
		unix.Close(syncFD)
		unix.Close(listenFD)
	}
	resetSignals()
	unix.Umask(0)
	b, err := readPlan(s.size)
	if err != nil {
		return 0, because(err, "reading the plan")
	}
	unix.Close(planFD)
	if s.steps, err = plan.Unmarshal(b); err != nil {
		return 0, &failure{errno: unix.EBADMSG, detail: "reading the plan"}
	}
	for at = s.from; at < len(s.steps); at++ {
		if err := s.do(&s.steps[at]); err != nil {
			return at, err
		}
	}
	return at, &failure{errno: unix.EBADMSG, detail: "the plan has no exec"}
}

// readPlan reads the last size bytes of the plan's descriptor, or with 0 all.
func readPlan(size int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(planFD, &st); err != nil {
		return nil, err
	}
	if size == 0 {
		size = int(st.Size)
	}
	b, start := make([]byte, size), st.Size-int64(size)
	for off := 0; off < len(b); {
		n, err := unix.Pread(planFD, b[off:], start+int64(off))
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, unix.EIO
		}
		off += n
	}
	return b, nil
}

// closeOnExec is for kernels before 5.11.
func closeOnExec() error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	for fd := 3; fd < int(min(lim.Cur, 1<<20)); fd++ {
		unix.CloseOnExec(fd)
	}
	return nil
}

// resetSignals gives every signal its default action where the parent ignored
// it, and blocks none. Go's own handlers vanish with the exec.
func resetSignals() {
	type sigaction struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	for sig := uintptr(1); sig <= 64; sig++ {
		var old sigaction
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		if old.handler == 1 { // SIG_IGN
			var dfl sigaction
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
		}
	}
	var none uint64
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, 2 /* SIG_SETMASK */, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
}

// fail reports and ends the process.
func (s *stage) fail(at int, err error) {
	f, ok := err.(*failure)
	if !ok {
		f = &failure{errno: errnoOf(err)}
	}
	var b []byte
	code := 1
	if f.exec {
		b = binary.LittleEndian.AppendUint32([]byte{saysExec}, uint32(f.errno))
		code = exitCode(f.errno)
	} else {
		b = binary.LittleEndian.AppendUint32([]byte{saysFailed}, uint32(at))
		b = binary.LittleEndian.AppendUint32(b, uint32(f.errno))
	}
	b = append(b, f.detail...)
	_ = unix.Sendto(s.sync, b[:min(len(b), maxReport)], unix.MSG_NOSIGNAL, nil)
	unix.Exit(code)
}

// report sends a letter and a number.
func report(sync int, letter byte, n uint32) error {
	return unix.Sendto(sync, binary.LittleEndian.AppendUint32([]byte{letter}, n), unix.MSG_NOSIGNAL, nil)
}

// waitForRuntime lets the parent do its part while everything is in place.
func waitForRuntime(sync int) error {
	if err := report(sync, saysRuntime, 0); err != nil {
		return because(err, "reporting")
	}
	if hearWord(sync) != hearsOn {
		unix.Exit(1)
	}
	return nil
}

// ready reports that set-up is done and waits for the word to go. When the other end goes away, so does the stage.
func (s *stage) ready() error {
	if err := s.program.prepare(&s.steps[len(s.steps)-1]); err != nil {
		return err
	}
	if err := s.program.check(s.steps); err != nil {
		return err
	}
	var oob []byte
	if s.master >= 0 {
		oob = unix.UnixRights(s.master)
	}
	if err := unix.Sendmsg(s.sync, []byte{saysCreated}, oob, nil, unix.MSG_NOSIGNAL); err != nil {
		return because(err, "reporting")
	}
	if s.master >= 0 {
		unix.Close(s.master)
		s.master = -1
	}
	if s.detached {
		unix.Close(s.sync)
		for {
			fd, _, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				unix.Exit(1)
			}
			s.sync = fd
			if s.hear() {
				break
			}
			unix.Close(fd)
		}
		unix.Close(s.listener)
	} else if !s.hear() {
		unix.Exit(1)
	}
	return s.keepOpen()
}

// keepOpen puts the program's own descriptors where it looks for them.
func (s *stage) keepOpen() error {
	for i := range s.keep {
		if err := unix.Dup3(firstExtra+i, 3+i, 0); err != nil {
			return because(err, "descriptors")
		}
	}
	return nil
}

// hear waits for the word to go.
func (s *stage) hear() bool { return hearWord(s.sync) == hearsGo }

// hearWord is the next word, 0 if there will be none.
func hearWord(sync int) byte {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(sync, b[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != 1 {
			return 0
		}
		return b[0]
	}
}
