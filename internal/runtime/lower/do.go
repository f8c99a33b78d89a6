package lower

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/calls"
	"tare/internal/runtime/plan"
)

// step is the stage's do; false means that it is not known.
func (l *lowering) step(st *plan.Step) bool {
	if st.FD != 0 {
		return false
	}
	switch st.Op {
	case plan.OpCgroup:
		l.write(st.Path, "0")
	case plan.OpUnshare:
		l.do(unix.SYS_UNSHARE, n(st.Flags))
	case plan.OpSetns:
		l.do(unix.SYS_OPENAT, cwd, l.str(st.Path), n(unix.O_RDONLY|unix.O_CLOEXEC)).Out = l.tmp[0]
		l.do(unix.SYS_SETNS, calls.Slot(l.tmp[0]), n(st.Flags))
		l.close(l.tmp[0])
	case plan.OpJoin:
		join(l, st)
	case plan.OpKeyring:
		l.do(unix.SYS_KEYCTL, n(unix.KEYCTL_JOIN_SESSION_KEYRING), n(0)).On = on(0, unix.ENOSYS)
	case plan.OpLoopback:
		loopback(l)
	case plan.OpHostname:
		l.do(unix.SYS_SETHOSTNAME, l.str(st.Data), n(len(st.Data)))
	case plan.OpDomainname:
		l.do(unix.SYS_SETDOMAINNAME, l.str(st.Data), n(len(st.Data)))
	case plan.OpSysctl:
		l.write(st.Path, st.Data)
	case plan.OpOOM:
		l.write("/proc/self/oom_score_adj", st.Data, unix.EACCES, unix.EPERM)
	case plan.OpPersonality:
		l.do(unix.SYS_PERSONALITY, n(st.Flags))
	case plan.OpPropagation:
		l.mountCall("", st.Path, "", st.Prop, "")
	case plan.OpOverlay:
		overlay(l, st)
	case plan.OpRoot:
		setRoot(l, st.Path, st.Path, unix.AT_RECURSIVE)
	case plan.OpMount:
		mount(l, st)
	case plan.OpTmpfs:
		tmpfs(l, st)
	case plan.OpBind:
		return bind(l, st)
	case plan.OpSymlink:
		dir, name := split(st.Path)
		l.ensure(dir, true, l.tmp[0])
		l.do(unix.SYS_SYMLINKAT, l.str(st.Source), calls.Slot(l.tmp[0]), l.str(name)).On = on(0, unix.EEXIST)
		l.close(l.tmp[0])
	case plan.OpDevice:
		device(l, st)
	case plan.OpMask:
		mask(l, st.Path)
	case plan.OpReadonly:
		readonly(l, st.Path)
	case plan.OpAttr:
		attr(l, st)
	case plan.OpConsole:
		console(l, st)
	case plan.OpMakeCwd:
		makeCwd(l, st.Path)
	case plan.OpPivot:
		if st.Flags != 0 {
			return false
		}
		pivot(l)
	case plan.OpRootPropagation:
		l.mountCall("", "/", "", st.Prop, "")
	case plan.OpReady:
		ready(l)
	default:
		return l.become(st)
	}
	return true
}

// write writes data to a file; after one of these errnos as if it had.
func (l *lowering) write(path, data string, fine ...unix.Errno) {
	done := l.p.Label()
	c := l.do(unix.SYS_OPENAT, cwd, l.str(path), n(unix.O_WRONLY|unix.O_CLOEXEC))
	c.Out, c.On = l.tmp[0], on(done, fine...)
	l.do(unix.SYS_WRITE, calls.Slot(l.tmp[0]), l.str(data), n(len(data))).On = on(0, fine...)
	l.close(l.tmp[0])
	l.p.Here(done)
}

// join enters the container. Its pid namespace is for the child that becomes the program, at the
// very end: until then no process of the container can see, signal or trace this one.
func join(l *lowering, st *plan.Step) {
	kinds := st.Flags
	if l.late {
		kinds |= unix.CLONE_NEWPID
	}
	l.do(unix.SYS_SETNS, n(PidFD), n(kinds))
	l.do(unix.SYS_CLOSE, n(PidFD))
	l.do(unix.SYS_OPENAT, cwd, l.str("/"), n(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).Out = l.root
}

func loopback(l *lowering) {
	l.do(unix.SYS_SOCKET, n(unix.AF_INET), n(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), n(0)).Out = l.tmp[0]
	req := make([]byte, 40) // struct ifreq, netdevice(7): a name of 16 bytes, flags
	copy(req, "lo")
	flags := uint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	req[16], req[17] = byte(flags), byte(flags>>8)
	l.do(unix.SYS_IOCTL, calls.Slot(l.tmp[0]), n(unix.SIOCSIFFLAGS), n(l.p.Bytes(req)))
	l.close(l.tmp[0])
}

const (
	statMode = uint64(unsafe.Offsetof(unix.Stat_t{}.Mode))
	statRdev = uint64(unsafe.Offsetof(unix.Stat_t{}.Rdev))
)

// isKind tests what fstat found.
func (l *lowering) isKind(kind uint64, otherwise calls.Label) {
	l.test(l.stat+statMode, unix.S_IFMT, kind, otherwise)
}

// ready reports, waits for the word, and puts the program's descriptors in their places.
func ready(l *lowering) {
	last := &l.pl.Steps[len(l.pl.Steps)-1]
	findHome(l, last)
	checkProgram(l, last)
	p := l.p
	l.about("reporting")
	word := p.Bytes([]byte{SaysCreated})
	if l.opts.Console {
		l.do(unix.SYS_SENDMSG, calls.Slot(l.sync), n(message(l, word)), n(unix.MSG_NOSIGNAL))
		l.close(l.master)
	} else {
		l.do(unix.SYS_SENDTO, calls.Slot(l.sync), n(word), n(1), n(unix.MSG_NOSIGNAL))
	}
	gone, got, buf := p.Label(), p.Words(0), p.Words(0)
	if l.opts.Detached {
		l.close(l.sync)
		accept, again, yes := p.Label(), p.Label(), p.Label()
		p.Here(accept)
		c := l.do(unix.SYS_ACCEPT4, n(ListenFD), n(0), n(0), n(unix.SOCK_CLOEXEC))
		c.Out, c.On = l.sync, []calls.On{{Errno: calls.Any, To: gone}}
		l.do(unix.SYS_RECVFROM, calls.Slot(l.sync), n(buf), n(1), n(0)).On = []calls.On{{Errno: calls.Any, To: again}}
		l.test(buf, 0xff, HearsGo, again)
		l.jump(yes)
		p.Here(again)
		l.close(l.sync)
		l.jump(accept)
		p.Here(yes)
		l.do(unix.SYS_CLOSE, n(ListenFD))
	} else {
		c := l.do(unix.SYS_RECVFROM, calls.Slot(l.sync), n(buf), n(1), n(0))
		c.Out, c.On = got, []calls.On{{Errno: calls.Any, To: gone}}
		l.test(got, ^uint64(0), 1, gone)
		l.test(buf, 0xff, HearsGo, gone)
	}
	ready := p.Label()
	l.jump(ready)
	p.Here(gone)
	p.Call(unix.SYS_EXIT_GROUP, n(1))
	p.Here(ready)
	l.about("close-on-exec")
	l.do(unix.SYS_CLOSE_RANGE, n(3), n(^uint32(0)), n(unix.CLOSE_RANGE_CLOEXEC))
	l.about("descriptors")
	if l.opts.Keep > 0 {
		l.do(unix.SYS_FCNTL, calls.Slot(l.sync), n(unix.F_DUPFD_CLOEXEC), n(FirstExtra+l.opts.Keep)).Out = l.sync
	}
	for i := range l.opts.Keep {
		l.do(unix.SYS_DUP3, n(FirstExtra+i), n(3+i), n(0))
	}
	l.detail = 0
}

// message is a struct msghdr with one word and the terminal's master.
func message(l *lowering, word uint64) uint64 {
	p := l.p
	control := l.master - 2*8
	return p.Words(0, 0, p.Words(word, 1), 1, control, 3*8, 0)
}
