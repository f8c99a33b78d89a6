package launch

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/calls"
	"tare/internal/runtime/plan"
)

// lowering turns a plan's steps into system calls. Each file here that is called lower… has a twin
// without: what the stage does for the same step. What they make of it must not differ (TestExecutors).
//
// The interpreter knows the way on which nothing is unusual. Where the way forks (a mount point that
// is a link to nowhere, an overlay that the kernel explains a failure of), a container's first
// process becomes the stage and goes on there from the step that it is at; see handOver.
type lowering struct {
	p      *calls.Program
	pl     *plan.Plan
	opts   lowerOptions
	at     int    // the step
	detail uint32 // of what is being done, an index of details
	failed calls.Label

	root   uint64 // slots
	sync   uint64
	listen uint64
	master uint64 // in the control message of created
	tmp    [4]uint64
	stat   uint64
	hear   uint64
	over   calls.Label // handOver's end
	bound  uint64      // bounding set by now
	late   bool        // the program is a child of this process, born into the container's pid namespace at the end
	path   execPaths
	tops   map[string]uint64 // slots of /proc and /sys, as far as they were opened for masks
}

type lowerOptions struct {
	stdio     [3]uintptr // what the child has there
	console   bool
	keep      int
	detached  bool
	join      bool
	stageFD   int // 0: there is none to become
	stepsSize int // of the steps for the stage, at the end of ProgramFD
}

// details are what failure messages of the interpreter can say; their index is in the upper half of the step's number.
var details = []string{"", sourceMissing, "source", "mount point", "attributes", "propagation", "attaching", "making the mount below private",
	"fsopen", "fsmount", "/dev/null", "/dev/null of the container is something else", "something else is there", "/dev/pts/ptmx",
	"/dev/pts/ptmx of the container is not a pty master", "unlock", "peer", "size", "owner", "controlling terminal", "/dev/console",
	"it is outside of the root", "setgroups", "setgid", "setuid", "capset", "ambient", "descriptors", "reporting", "unshare",
	"close-on-exec", "entering the pid namespace", "the process itself", insideProc, exchanged}

// lower makes the program. It fails for what plan.Executor should have told: that is a mistake of this program.
func lower(pl *plan.Plan, o lowerOptions) (*calls.Program, error) {
	p := calls.New(saysFailed, saysExec)
	l := &lowering{p: p, pl: pl, opts: o, failed: p.Label(), over: p.Label(), late: o.join && pl.JoinPid}
	l.root, l.sync, l.listen = p.Words(^uint64(0)), p.Words(syncFD), p.Words(listenFD)
	l.hear = p.Words(0)
	for i := range l.tmp {
		l.tmp[i] = p.Words(0)
	}
	l.stat = p.Space(int(max(unsafe.Sizeof(unix.Stat_t{}), unsafe.Sizeof(unix.Statfs_t{}))))
	p.Failed(l.failed)
	l.begin()
	for l.at = range pl.Steps {
		l.detail = 0
		if !l.step(&pl.Steps[l.at]) {
			return nil, &failure{errno: unix.ENOSYS, detail: "the interpreter does not know: " + pl.Steps[l.at].String()}
		}
	}
	l.end()
	return p, nil
}

// do adds a call that belongs to this step.
func (l *lowering) do(nr uintptr, args ...calls.Arg) *calls.Call {
	c := l.p.Call(nr, args...)
	c.At = uint32(l.at) | l.detail<<16
	return c
}

// about names what the following calls are about.
func (l *lowering) about(detail string) {
	l.detail = uint32(slices.Index(details, detail))
}

func n[T ~int | ~uint32 | ~uint64 | ~uintptr](v T) calls.Arg { return calls.V(v) }

func (l *lowering) str(s string) calls.Arg { return calls.V(l.p.String(s)) }

var cwd = calls.V(uint64(^uint64(99))) // AT_FDCWD

// on goes on at to after any of these errnos.
func on(to calls.Label, errnos ...unix.Errno) []calls.On {
	list := make([]calls.On, 0, len(errnos))
	for _, e := range errnos {
		list = append(list, calls.On{Errno: uint16(e), To: to})
	}
	return list
}

var ignore = []calls.On{{Errno: calls.Any}} // and go on with the next

func (l *lowering) close(slot uint64) { l.do(unix.SYS_CLOSE, calls.Slot(slot)).On = ignore }

// test goes on if the 8 bytes at address, masked, are value, else at the label.
func (l *lowering) test(address, mask, value uint64, otherwise calls.Label) {
	l.do(calls.Test, n(address), n(mask), n(value), calls.To(otherwise))
}

func (l *lowering) fail(errno unix.Errno, detail string) {
	l.about(detail)
	l.do(calls.Fail, n(uintptr(errno)))
}

// jump goes to a label.
func (l *lowering) jump(to calls.Label) { l.do(calls.Set, n(0), n(l.tmp[3])).Next = to }

// openIn is the stage's: root as "/". The descriptor is in out.
func (l *lowering) openIn(root calls.Arg, path string, flags, resolve uint64, out uint64) *calls.Call {
	how := l.p.Words(unix.O_CLOEXEC|flags, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS|resolve)
	again := l.p.Label()
	l.p.Here(again)
	c := l.do(unix.SYS_OPENAT2, root, l.str(path), n(how), n(24))
	c.Out, c.On = out, on(again, unix.EAGAIN)
	return c
}

func (l *lowering) inRoot() calls.Arg { return calls.Slot(l.root) }

// ensure opens a directory, or anything, in the root and makes what is missing of it.
func (l *lowering) ensure(path string, dir bool, out uint64) {
	flags := uint64(unix.O_PATH)
	if dir {
		flags |= unix.O_DIRECTORY
	}
	if path == "/" {
		l.openIn(l.inRoot(), path, flags, 0, out)
		return
	}
	done, missing := l.p.Label(), l.p.Label()
	c := l.openIn(l.inRoot(), path, flags, 0, out)
	c.Next, c.On = done, append(c.On, on(missing, unix.ENOENT)...)
	l.p.Here(missing)
	parentPath, name := split(path)
	parent := l.p.Words(0)
	l.ensure(parentPath, true, parent)
	odd := l.handOver()
	if dir {
		l.do(unix.SYS_MKDIRAT, calls.Slot(parent), l.str(name), n(0o755)).On = on(odd, unix.EEXIST)
	} else {
		c := l.do(unix.SYS_OPENAT, calls.Slot(parent), l.str(name), n(unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC), n(0o644))
		c.Out, c.On = out, on(odd, unix.EEXIST)
		l.close(out)
	}
	how := l.p.Words(unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	l.do(unix.SYS_OPENAT2, calls.Slot(parent), l.str(name), n(how), n(24)).Out = out
	l.close(parent)
	l.p.Here(done)
}

// handOver is a place that becomes the stage, which goes on from this step. It is put here, behind a jump around it.
func (l *lowering) handOver() calls.Label {
	if l.opts.stageFD == 0 {
		return l.failed
	}
	around, here := l.p.Label(), l.p.Label()
	l.jump(around)
	l.p.Here(here)
	l.do(calls.Set, l.str(strconv.Itoa(l.at)), n(l.fromArgument())).Next = l.over
	l.p.Here(around)
	return here
}

// fromArgument is the address of the pointer to the stage's argument that says where to go on.
func (l *lowering) fromArgument() uint64 {
	if l.path.stageArgs == 0 {
		mode := "n"
		if l.opts.detached {
			mode = "d"
		}
		o := &l.opts
		l.path.stageArgs = l.p.Strings([]string{stageName, l.pl.Title, mode, strconv.Itoa(o.keep), "", strconv.Itoa(o.stageFD + 1), strconv.Itoa(o.stepsSize)})
	}
	return l.path.stageArgs + 4*8
}

func (l *lowering) begin() {
	p := l.p
	l.about("the process itself")
	l.do(unix.SYS_PRCTL, n(unix.PR_SET_DUMPABLE), n(0), n(0), n(0), n(0))
	for _, sig := range ignoredSignals() { // sigaction: SIG_DFL
		l.do(unix.SYS_RT_SIGACTION, n(sig), n(p.Words(0, 0, 0, 0)), n(0), n(8))
	}
	l.do(unix.SYS_RT_SIGPROCMASK, n(2 /* SIG_SETMASK */), n(p.Words(0)), n(0), n(8))
	l.do(unix.SYS_UMASK, n(0))
	l.about("close-on-exec")
	l.do(unix.SYS_CLOSE_RANGE, n(firstExtra+l.opts.keep+1), n(^uint32(0)), n(unix.CLOSE_RANGE_CLOEXEC))
	if l.opts.stageFD == 0 {
		l.do(unix.SYS_CLOSE, n(planFD))
	}
	l.detail = 0
}

// ignoredSignals are those that this process ignores: a child would too.
func ignoredSignals() (list []int) {
	for sig := 1; sig <= 64; sig++ {
		var old [4]uint64
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		if old[0] == 1 { // SIG_IGN
			list = append(list, sig)
		}
	}
	return list
}

// end is what comes after the last step, which has executed the program unless something failed.
func (l *lowering) end() {
	p := l.p
	p.Here(l.failed)
	p.Call(unix.SYS_SENDTO, calls.Slot(l.sync), n(uintptr(calls.Failure)), n(calls.FailureSize), n(unix.MSG_NOSIGNAL)).On = ignore
	p.Call(unix.SYS_EXIT_GROUP, n(1))
	p.Here(l.over)
	if l.opts.stageFD == 0 || l.path.stageArgs == 0 {
		return
	}
	// The root may be that very descriptor already; then the duplicate is not closed at the exec either.
	c := p.Call(unix.SYS_DUP, calls.Slot(l.root))
	c.Out, c.On = l.root, ignore // there may be no root yet
	p.Call(unix.SYS_DUP3, calls.Slot(l.root), n(l.opts.stageFD+1), n(0)).On = ignore
	env := p.Strings(stageEnv)
	p.Call(unix.SYS_EXECVEAT, n(l.opts.stageFD), l.str(""), n(l.path.stageArgs), n(env), n(unix.AT_EMPTY_PATH)).At = uint32(l.at)
}

// image is a path that executes the interpreter; an error if this machine can't.
func newImage() (string, error) {
	if !calls.Supported {
		return "", unix.ENOSYS
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_MOUNT_SETATTR, ^uintptr(0), 0, 0, 0, 0, 0); errno == unix.ENOSYS {
		return "", errno // before Linux 5.12
	}
	fd, err := unix.MemfdCreate("tare-run-setup", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|mfdExec)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("tare-run-setup", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return "", err
	}
	if _, err = unix.Write(fd, calls.Image()); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err == nil {
		err = unix.Fchmod(fd, 0o500)
	}
	if err == nil {
		// Out of the way of syscall.ForkExec too, which uses the numbers after the largest that it is given.
		fd, err = from(fd, 200)
	}
	if err == nil {
		err = unix.Access("/proc/self/fd/"+strconv.Itoa(fd), unix.X_OK)
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), err
}

const mfdExec = 0x10 // MFD_EXEC, linux/memfd.h

// memory is a file in memory with these parts, each on a page of its own.
func memory(name string, parts ...[]byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	at := int64(0)
	for _, b := range parts {
		for off := 0; off < len(b); {
			n, err := unix.Pwrite(fd, b[off:], at+int64(off))
			if err != nil {
				unix.Close(fd)
				return -1, err
			}
			off += n
		}
		at = pages(at + int64(len(b)))
	}
	return fd, nil
}

func pages(n int64) int64 {
	size := int64(os.Getpagesize())
	return (n + size - 1) / size * size
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
