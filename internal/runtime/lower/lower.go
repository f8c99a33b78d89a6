// Package lower turns a plan into a program of system calls (package calls).
//
// The interpreter knows the way on which nothing is unusual. Where the way forks (a mount point that
// is a link to nowhere, an overlay that the kernel explains a failure of), a container's first
// process becomes the stage and goes on there from the step that it is at; see handOver.
//
// What it makes of a step must not differ from what the stage (package launch) makes of it: launch's TestExecutors.
package lower

import (
	"encoding/binary"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/calls"
	"tare/internal/runtime/plan"
)

// lowering is a program in the making.
type lowering struct {
	p      *calls.Program
	pl     *plan.Plan
	opts   Options
	at     int    // the step
	detail uint32 // of what is being done, an index of Details
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

// Options are what a program depends on besides its plan.
type Options struct {
	Stdio     [3]uintptr // what the child has there
	Console   bool
	Keep      int  // how many descriptors from FirstExtra on are the program's
	Detached  bool // the word to go comes over ListenFD
	Join      bool // an exec: PidFD is of the container's first process
	StageFD   int  // 0: there is none to become
	StepsSize int  // of the steps for the stage, at the end of PlanFD
}

// Details are what failure messages of the interpreter can say; their index is in the upper half of the step's number.
var Details = []string{"", SourceMissing, "source", "mount point", "attributes", "propagation", "attaching", "making the mount below private",
	"fsopen", "fsmount", "/dev/null", "/dev/null of the container is something else", "something else is there", "/dev/pts/ptmx",
	"/dev/pts/ptmx of the container is not a pty master", "unlock", "peer", "size", "owner", "controlling terminal", "/dev/console",
	"it is outside of the root", "setgroups", "setgid", "setuid", "capset", "ambient", "descriptors", "reporting", "unshare",
	"close-on-exec", "entering the pid namespace", "the process itself", InsideProc, Exchanged}

// Program makes the program. It fails for what plan.Executor should have told: that is a mistake of this program.
func Program(pl *plan.Plan, o Options) (*calls.Program, error) {
	p := calls.New(SaysFailed, SaysExec)
	l := &lowering{p: p, pl: pl, opts: o, failed: p.Label(), over: p.Label(), late: o.Join && pl.JoinPid}
	l.root, l.sync, l.listen = p.Words(^uint64(0)), p.Words(SyncFD), p.Words(ListenFD)
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
			return nil, fault.Internal("the interpreter does not know: %s", pl.Steps[l.at].String())
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
	l.detail = uint32(slices.Index(Details, detail))
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

// Reports of the process, and the word that it waits for; see launch.
const (
	SaysCreated = 'c'
	SaysFailed  = 'f'
	SaysExec    = 'x'
	SaysBorn    = 'b' // and the program's pid: this process ends
	HearsGo     = 'g'
)

// Descriptors of the process besides stdio; the program's own come after.
const (
	SyncFD     = 3
	PlanFD     = calls.ProgramFD
	PidFD      = 5 // of the process whose namespaces an exec joins
	ListenFD   = 6 // where a detached process waits for the word
	FirstExtra = 7
)

// StageName is the stage's argument 0, by which the program knows that it is one.
const StageName = "tare-run-stage"

// StageEnv keeps Go's runtime from reading files that the container may control, and from collecting garbage.
var StageEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOTRACEBACK=none", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// OverlayFixed are set whatever the kernel was built with: an upper directory
// must hold plain files and whiteouts only, so that it can be read as a layer,
// and redirects that an image brings along must not be followed.
var OverlayFixed = [...][2]string{{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "nofollow"}}

// SourceMissing is the detail of a bind mount's failure.
const SourceMissing = "source missing"

const (
	moveByFD    = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	devptsMagic = 0x1cd1 // linux/magic.h
)

func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

func hasSlash(s string) bool { return strings.Contains(s, "/") }

func split(p string) (dir, name string) { return path.Dir(p), path.Base(p) }

// handOver is a place that becomes the stage, which goes on from this step. It is put here, behind a jump around it.
func (l *lowering) handOver() calls.Label {
	if l.opts.StageFD == 0 {
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
		if l.opts.Detached {
			mode = "d"
		}
		o := &l.opts
		l.path.stageArgs = l.p.Strings([]string{StageName, l.pl.Title, mode, strconv.Itoa(o.Keep), "", strconv.Itoa(o.StageFD + 1), strconv.Itoa(o.StepsSize)})
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
	l.do(unix.SYS_CLOSE_RANGE, n(FirstExtra+l.opts.Keep+1), n(^uint32(0)), n(unix.CLOSE_RANGE_CLOEXEC))
	if l.opts.StageFD == 0 {
		l.do(unix.SYS_CLOSE, n(PlanFD))
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
	if l.opts.StageFD == 0 || l.path.stageArgs == 0 {
		return
	}
	// The root may be that very descriptor already; then the duplicate is not closed at the exec either.
	c := p.Call(unix.SYS_DUP, calls.Slot(l.root))
	c.Out, c.On = l.root, ignore // there may be no root yet
	p.Call(unix.SYS_DUP3, calls.Slot(l.root), n(l.opts.StageFD+1), n(0)).On = ignore
	env := p.Strings(StageEnv)
	p.Call(unix.SYS_EXECVEAT, n(l.opts.StageFD), l.str(""), n(l.path.stageArgs), n(env), n(unix.AT_EMPTY_PATH)).At = uint32(l.at)
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
