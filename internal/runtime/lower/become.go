package lower

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/calls"
	"tare/internal/runtime/plan"
)

// become is the stage's. What depends on this process only, whose child it will be, is decided here already.
func (l *lowering) become(st *plan.Step) bool {
	switch st.Op {
	case plan.OpRlimit:
		rlimit(l, st)
	case plan.OpUmask:
		l.do(unix.SYS_UMASK, n(st.Num[0]))
	case plan.OpCwd:
		chdir(l, st.Path)
	case plan.OpStdioOwner:
		if !l.opts.Console { // a terminal was given to its user when it was made
			stdioOwner(l, st.Num[0])
		}
	case plan.OpIOPriority:
		l.do(unix.SYS_IOPRIO_SET, n(1 /* IOPRIO_WHO_PROCESS */), n(0), n(st.Num[0]))
	case plan.OpBounding:
		bounding(l, st.Num[0])
	case plan.OpUser:
		user(l, st.Num)
	case plan.OpCapabilities:
		capabilities(l, st.Num)
	case plan.OpNoNewPrivs:
		l.do(unix.SYS_PRCTL, n(unix.PR_SET_NO_NEW_PRIVS), n(1), n(0), n(0), n(0))
	case plan.OpSeccomp:
		if st.Flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 || len(st.List) != 0 {
			return false
		}
		code := l.p.Bytes([]byte(st.Data))
		l.do(unix.SYS_SECCOMP, n(unix.SECCOMP_SET_MODE_FILTER), n(st.Flags), n(l.p.Words(uint64(len(st.Data)/8), code)))
	case plan.OpExec:
		exec(l, st)
	default:
		return false
	}
	return true
}

func rlimit(l *lowering, st *plan.Step) {
	soft, hard := st.Num[1], st.Num[2]
	if have := (unix.Rlimit{}); st.Flags != 0 && unix.Getrlimit(int(st.Num[0]), &have) == nil && hard > have.Max {
		hard = have.Max
		soft = min(soft, hard)
	}
	l.do(unix.SYS_PRLIMIT64, n(0), n(st.Num[0]), n(l.p.Words(soft, hard)), n(0))
}

func chdir(l *lowering, path string) {
	p, root, fd := l.p, l.tmp[0], l.tmp[1]
	l.do(unix.SYS_OPENAT, cwd, l.str("/"), n(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).Out = root
	l.openIn(calls.Slot(root), path, unix.O_PATH|unix.O_DIRECTORY, 0, fd)
	l.do(unix.SYS_FCHDIR, calls.Slot(fd))
	l.about("it is outside of the root")
	buf := p.Space(unix.PathMax)
	l.do(unix.SYS_GETCWD, n(buf), n(unix.PathMax))
	outside, inside := p.Label(), p.Label()
	l.test(buf, 0xff, '/', outside)
	l.jump(inside)
	p.Here(outside)
	l.fail(unix.ENOENT, "it is outside of the root")
	p.Here(inside)
	l.close(fd)
	l.close(root)
	l.detail = 0
}

func stdioOwner(l *lowering, uid uint64) {
	for fd, file := range l.opts.Stdio {
		var st unix.Stat_t
		if unix.Fstat(int(file), &st) != nil || uint64(st.Uid) == uid || isNull(&st) {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFSOCK:
			l.do(unix.SYS_FCHOWN, n(fd), n(uid), n(^uint32(0))).On = on(0, unix.EINVAL, unix.EPERM, unix.EROFS)
		}
	}
}

func bounding(l *lowering, keep uint64) {
	l.bound = 0
	for c := range uintptr(64) {
		have, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c, 0)
		if errno != 0 {
			return
		}
		if have == 0 {
			continue
		}
		if keep&(1<<c) != 0 {
			l.bound |= 1 << c
			continue
		}
		l.do(unix.SYS_PRCTL, n(unix.PR_CAPBSET_DROP), n(c), n(0), n(0), n(0))
	}
}

func user(l *lowering, ids []uint64) {
	l.do(unix.SYS_PRCTL, n(unix.PR_SET_KEEPCAPS), n(1), n(0), n(0), n(0))
	groups := make([]byte, 0, 4*len(ids))
	for _, g := range ids[2:] {
		groups = append(groups, le32(uint32(g))...)
	}
	l.about("setgroups")
	l.do(unix.SYS_SETGROUPS, n(len(ids)-2), n(l.p.Bytes(groups)))
	l.about("setgid")
	l.do(unix.SYS_SETRESGID, n(ids[1]), n(ids[1]), n(ids[1]))
	l.about("setuid")
	l.do(unix.SYS_SETRESUID, n(ids[0]), n(ids[0]), n(ids[0]))
	l.detail = 0
	l.do(unix.SYS_PRCTL, n(unix.PR_SET_DUMPABLE), n(0), n(0), n(0), n(0))
}

func capabilities(l *lowering, want []uint64) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_ = unix.Capget(&header, &data[0])
	have := uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
	permitted := want[1] & have
	effective := want[0] & permitted
	inheritable := want[2] & have & l.bound
	l.about("capset")
	var b []byte
	for shift := 0; shift < 64; shift += 32 {
		for _, set := range [...]uint64{effective, permitted, inheritable} {
			b = append(b, le32(uint32(set>>shift))...)
		}
	}
	l.do(unix.SYS_CAPSET, n(l.p.Words(unix.LINUX_CAPABILITY_VERSION_3)), n(l.p.Bytes(b)))
	l.about("ambient")
	l.do(unix.SYS_PRCTL, n(unix.PR_CAP_AMBIENT), n(unix.PR_CAP_AMBIENT_CLEAR_ALL), n(0), n(0), n(0)).On = on(0, unix.EINVAL)
	for c := range uintptr(64) {
		if want[3]&permitted&inheritable&(1<<c) != 0 {
			l.do(unix.SYS_PRCTL, n(unix.PR_CAP_AMBIENT), n(unix.PR_CAP_AMBIENT_RAISE), n(c), n(0), n(0))
		}
	}
	l.do(unix.SYS_PRCTL, n(unix.PR_SET_DUMPABLE), n(0), n(0), n(0), n(0))
	l.detail = 0
}

// execPaths is what executing needs, made ready at OpReady.
type execPaths struct {
	paths     []string // of the program, to try in order
	home      uint64   // "HOME=…", 0 if it is given
	stageArgs uint64
}

const (
	maxHome   = 4096
	maxPasswd = 1 << 20
)

// shared is where the page is that a late child shares with its parent.
const shared = 0x20000000

// SearchPaths are where a program may be (execvp(3)).
func SearchPaths(name string, env []string) (paths []string) {
	if hasSlash(name) {
		return []string{name}
	}
	search := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	for dir := range strings.SplitSeq(search, ":") {
		if strings.HasPrefix(dir, "/") {
			paths = append(paths, dir+"/"+name)
		}
	}
	return paths
}

// findHome is the stage's homeOf.
func findHome(l *lowering, st *plan.Step) {
	l.path.paths = SearchPaths(st.List[0], st.Env)
	for _, kv := range st.Env {
		if strings.HasPrefix(kv, "HOME=") {
			return
		}
	}
	p, root, fd, text, size := l.p, l.tmp[0], l.tmp[1], l.tmp[2], l.p.Words(0)
	l.path.home = p.Bytes([]byte("HOME=/\x00\x00"))
	p.Space(maxHome)
	none, noFile, noText := p.Label(), p.Label(), p.Label()
	skip := []calls.On{{Errno: calls.Any, To: none}}
	c := l.do(unix.SYS_OPENAT, cwd, l.str("/"), n(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
	c.Out, c.On = root, skip
	c = l.openIn(calls.Slot(root), "/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0, fd)
	c.On = append(c.On, calls.On{Errno: calls.Any, To: noFile})
	skip = []calls.On{{Errno: calls.Any, To: noText}}
	l.do(unix.SYS_FSTAT, calls.Slot(fd), n(l.stat)).On = skip
	l.isKind(unix.S_IFREG, noText)
	c = l.do(unix.SYS_MMAP, n(0), n(maxPasswd), n(unix.PROT_READ|unix.PROT_WRITE), n(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS), n(^uint64(0)), n(0))
	c.Out, c.On = text, skip
	c = l.do(unix.SYS_READ, calls.Slot(fd), calls.Slot(text), n(maxPasswd))
	c.Out, c.On = size, skip
	l.do(calls.Home, calls.Slot(text), calls.Slot(size), l.str(strconv.Itoa(int(st.Num[0]))), n(l.path.home+5), n(maxHome))
	p.Here(noText)
	l.close(fd)
	p.Here(noFile)
	l.close(root)
	p.Here(none)
}

// checkProgram is the stage's check: what can't be executed is told before the container is created.
func checkProgram(l *lowering, st *plan.Step) {
	var ids []uint64
	for i := range l.pl.Steps {
		if l.pl.Steps[i].Op == plan.OpUser {
			ids = l.pl.Steps[i].Num
		}
	}
	p := l.p
	done := p.Label()
	as := len(ids) > 1 && ids[0]|ids[1] != 0
	if as {
		l.do(unix.SYS_SETFSGID, n(ids[1]))
		l.do(unix.SYS_SETFSUID, n(ids[0]))
	}
	back := func() {
		if as {
			l.do(unix.SYS_SETFSUID, n(0))
			l.do(unix.SYS_SETFSGID, n(0))
		}
	}
	slash := hasSlash(st.List[0])
	denied := p.Words(0)
	refused, other, report := p.Label(), p.Label(), p.Label()
	for _, path := range l.path.paths {
		if !strings.HasPrefix(path, "/") {
			l.jump(done)
			break
		}
		next, note := p.Label(), p.Label()
		elsewhere := calls.On{Errno: calls.Any, To: next}
		if slash {
			elsewhere.To = other
		}
		l.do(unix.SYS_NEWFSTATAT, cwd, l.str(path), n(l.stat), n(0)).On = append(on(note, unix.EACCES), elsewhere)
		l.isKind(unix.S_IFREG, note)
		c := l.do(unix.SYS_FACCESSAT2, cwd, l.str(path), n(unix.X_OK), n(unix.AT_EACCESS))
		c.Next, c.On = done, append(on(note, unix.EACCES), elsewhere)
		p.Here(note)
		l.do(calls.Set, n(1), n(denied))
		p.Here(next)
	}
	l.test(denied, ^uint64(0), 0, refused)
	l.do(calls.Set, n(uintptr(unix.ENOENT)), n(uintptr(calls.LastErrno))).Next = report
	p.Here(refused)
	if len(ids) > 2 {
		l.jump(done)
	}
	l.do(calls.Set, n(uintptr(unix.EACCES)), n(uintptr(calls.LastErrno)))
	p.Here(report)
	p.Here(other)
	l.sayExec()
	p.Here(done)
	back()
}

// sayExec reports the last errno as that of the exec, and ends as a shell would.
func (l *lowering) sayExec() {
	p := l.p
	l.p.Call(unix.SYS_SENDTO, calls.Slot(l.sync), n(uintptr(calls.Errno)), n(calls.ErrnoSize), n(unix.MSG_NOSIGNAL)).On = ignore
	notDir, else126 := p.Label(), p.Label()
	l.test(calls.LastErrno, ^uint64(0), uint64(unix.ENOENT), notDir)
	p.Call(unix.SYS_EXIT_GROUP, n(127))
	p.Here(notDir)
	l.test(calls.LastErrno, ^uint64(0), uint64(unix.ENOTDIR), else126)
	p.Call(unix.SYS_EXIT_GROUP, n(127))
	p.Here(else126)
	p.Call(unix.SYS_EXIT_GROUP, n(126))
}

// exec becomes the program, or bears it.
func exec(l *lowering, st *plan.Step) {
	p := l.p
	argv := p.Strings(st.List)
	var more []uint64
	if l.path.home != 0 {
		more = []uint64{l.path.home}
	}
	env := p.Strings(st.Env, more...)
	if !l.late {
		l.execve(st, argv, env)
		l.sayExec()
		return
	}
	// The child gets a copy of this process's memory, not a share in it: it can be traced by
	// processes of the container. One page of its own is what it can say an errno in.
	pid, born := p.Words(0), p.Label()
	l.do(unix.SYS_MMAP, n(shared), n(4096), n(unix.PROT_READ|unix.PROT_WRITE), n(unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_FIXED), n(^uint64(0)), n(0))
	l.close(l.root)
	l.about("entering the pid namespace")
	l.do(unix.SYS_CLONE, n(unix.CLONE_PARENT|unix.CLONE_VFORK|uintptr(unix.SIGCHLD)), n(0), n(0), n(0), n(0)).Out = pid
	l.detail = 0
	l.test(pid, ^uint64(0), 0, born)
	p.Call(unix.SYS_SETSID)
	if l.opts.Console {
		p.Call(unix.SYS_IOCTL, n(0), n(unix.TIOCSCTTY), n(0)).On = ignore
	}
	l.execve(st, argv, env)
	p.Call(calls.Set, calls.Slot(calls.LastErrno), n(shared))
	p.Call(unix.SYS_EXIT_GROUP, n(126))

	p.Here(born)
	word := p.Bytes([]byte{7: SaysBorn})
	pidAgain := p.Words(0) // behind the letter
	p.Call(calls.Set, calls.Slot(pid), n(pidAgain))
	p.Call(unix.SYS_SENDTO, calls.Slot(l.sync), n(word+7), n(5), n(unix.MSG_NOSIGNAL)).On = ignore
	failed := p.Label()
	p.Call(calls.Test, n(shared), n(^uint64(0)), n(0), calls.To(failed))
	p.Call(unix.SYS_EXIT_GROUP, n(0))
	p.Here(failed)
	p.Call(calls.Set, calls.Slot(shared), n(uintptr(calls.LastErrno)))
	l.sayExec()
}

// execve tries the paths as the stage's exec does; it goes on after the last failed, whose errno is LastErrno.
func (l *lowering) execve(st *plan.Step, argv, env uint64) {
	p := l.p
	slash := hasSlash(st.List[0])
	failed, denied := p.Label(), p.Words(0)
	for _, path := range l.path.paths {
		next, note := p.Label(), p.Label()
		to := next
		if slash {
			to = failed
		}
		c := p.Call(unix.SYS_EXECVE, l.str(path), n(argv), n(env))
		c.On = append(on(to, unix.ENOENT, unix.ENOTDIR), calls.On{Errno: uint16(unix.EACCES), To: note}, calls.On{Errno: calls.Any, To: failed})
		p.Here(note)
		p.Call(calls.Set, n(1), n(denied))
		p.Here(next)
	}
	none := p.Label()
	l.test(denied, ^uint64(0), 1, none)
	p.Call(calls.Set, n(uintptr(unix.EACCES)), n(uintptr(calls.LastErrno))).Next = failed
	p.Here(none)
	p.Call(calls.Set, n(uintptr(unix.ENOENT)), n(uintptr(calls.LastErrno)))
	p.Here(failed)
}
