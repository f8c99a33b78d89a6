package launch

import (
	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// do performs one step.
func (s *stage) do(st *plan.Step) error {
	switch st.Op {
	case plan.OpCgroup:
		if st.FD != 0 {
			_, err := unix.Write(int(st.FD), []byte("0"))
			unix.Close(int(st.FD))
			return err
		}
		return writeFile(st.Path, "0")
	case plan.OpUnshare:
		return unix.Unshare(int(st.Flags))
	case plan.OpSetns:
		if st.Flags == unix.CLONE_NEWNS { // a thread may do so once it shares its root with no other
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return because(err, "unshare")
			}
		}
		return enter(st.Path, int(st.Flags))
	case plan.OpJoin:
		return s.join(int(st.Flags))
	case plan.OpKeyring:
		return keyring()
	case plan.OpLoopback:
		return loopbackUp()
	case plan.OpHostname:
		return unix.Sethostname([]byte(st.Data))
	case plan.OpDomainname:
		return unix.Setdomainname([]byte(st.Data))
	case plan.OpSysctl:
		return writeFile(st.Path, st.Data)
	case plan.OpOOM:
		if st.FD == plan.ByParent {
			return nil
		}
		return oomScore(st.Data)
	case plan.OpLabel:
		return label(st.Path, st.Data)
	case plan.OpAffinity:
		return setAffinity(st.Num)
	case plan.OpMemoryPolicy:
		return memoryPolicy(st)
	case plan.OpPersonality:
		if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(st.Flags), 0, 0); errno != 0 {
			return errno
		}
		return nil
	case plan.OpPropagation:
		return unix.Mount("", st.Path, "", uintptr(st.Prop), "")
	case plan.OpOverlay:
		return s.overlay(st)
	case plan.OpRoot:
		return s.bindRoot(st.Path)
	case plan.OpMount:
		return s.mount(st)
	case plan.OpTmpfs:
		return tmpfs(s, st)
	case plan.OpCopyUp:
		return copyUp(s.root, st)
	case plan.OpRemount:
		return remount(s.root, st)
	case plan.OpBind:
		return s.bind(st)
	case plan.OpHostDevice:
		return hostDevice(s.root, st)
	case plan.OpSymlink:
		return s.symlink(st.Path, st.Source)
	case plan.OpDevice:
		return s.device(st)
	case plan.OpMask:
		return s.mask(st.Path)
	case plan.OpReadonly:
		return s.readonly(st.Path)
	case plan.OpAttr:
		return setAttr(s.root, st)
	case plan.OpConsole:
		return s.console(st)
	case plan.OpMakeCwd:
		// Where it can't be made, OpCwd says so, as a failure of start.
		if fd, err := ensureDir(s.root, st.Path); err == nil {
			unix.Close(fd)
		}
		return nil
	case plan.OpRuntime:
		return waitForRuntime(s.sync)
	case plan.OpHook:
		return runHookStep(st)
	case plan.OpPivot:
		if st.Flags != 0 {
			return moveRoot(s.root)
		}
		return s.pivot()
	case plan.OpRootPropagation:
		return unix.Mount("", "/", "", uintptr(st.Prop), "")
	case plan.OpReady:
		return s.ready()
	}
	return s.become(st)
}

// become performs the steps that turn the process itself into the program's.
func (s *stage) become(st *plan.Step) error {
	switch st.Op {
	case plan.OpRlimit:
		return rlimit(st)
	case plan.OpUmask:
		unix.Umask(int(st.Num[0]))
		return nil
	case plan.OpCwd:
		return s.chdir(st.Path)
	case plan.OpStdioOwner:
		return stdioOwner(int(st.Num[0]))
	case plan.OpScheduler:
		return schedule(st.Num)
	case plan.OpIOPriority:
		if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, 1 /* IOPRIO_WHO_PROCESS */, 0, uintptr(st.Num[0])); errno != 0 {
			return errno
		}
		return nil
	case plan.OpBounding:
		return bounding(st.Num[0])
	case plan.OpUser:
		return user(st.Num)
	case plan.OpCapabilities:
		return capabilities(st.Num)
	case plan.OpNoNewPrivs:
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	case plan.OpSeccomp:
		return installFilter(s.sync, st)
	case plan.OpExec:
		return s.exec()
	}
	return &failure{errno: unix.ENOSYS, detail: "unknown step"}
}

func writeFile(path, data string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(data))
	return err
}

func enter(path string, kind int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, kind)
}

// join enters a container. A thread may change its mount namespace once it shares its root and
// working directory with no other.
func (s *stage) join(kinds int) (err error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return because(err, "unshare")
	}
	if err := unix.Setns(pidFD, kinds); err != nil {
		return err
	}
	unix.Close(pidFD)
	s.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

func keyring() error {
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 && errno != unix.ENOSYS {
		return errno
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// oomScore sets oom_score_adj. Lowering it needs CAP_SYS_RESOURCE: without, it stays what it was.
func oomScore(value string) error {
	err := writeFile("/proc/self/oom_score_adj", value)
	if err == unix.EACCES || err == unix.EPERM {
		return nil
	}
	return err
}
