package launch

import (
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/plan"
)

// birth is everything about a child that is about to be born.
type birth struct {
	p       *plan.Plan
	join    int // pidfd of the process whose namespaces an exec joins
	program string
	argv    []string
	files   []uintptr
	sys     *syscall.SysProcAttr
	pid     int
}

// spawn makes the child. What a plan's Entrance asks for happens on a thread that is thrown away
// afterwards, or, where namespaces can be entered by a process with one thread only, in a process in between.
func (b *birth) spawn() error {
	e := b.p.Entrance
	if e == nil {
		return b.inPidNamespace(b.fork)
	}
	if e.JoinsUser() || e.JoinsTime() {
		return b.bridge()
	}
	if b.p.Clone&unix.CLONE_NEWUSER != 0 {
		b.sys.UidMappings, b.sys.GidMappings = mappings(e.UIDs), mappings(e.GIDs)
		b.sys.GidMappingsEnableSetgroups = true
		b.sys.Credential = &syscall.Credential{}
	}
	done := make(chan error)
	go func() { // locked until it ends: its thread ends with it
		runtime.LockOSThread()
		err := enterAll(e)
		if err == nil {
			err = because(setAffinity(e.CPUs), "process.execCPUAffinity.initial")
		}
		if err == nil {
			err = enterClocks(e.Offsets)
		}
		if err == nil {
			err = b.inPidNamespace(b.fork)
		}
		done <- err
	}()
	return <-done
}

func (b *birth) fork() (err error) {
	b.pid, err = syscall.ForkExec(b.program, b.argv, &syscall.ProcAttr{Dir: "/", Env: stageEnv, Files: b.files, Sys: b.sys})
	return err
}

func mappings(list []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	m := make([]syscall.SysProcIDMap, 0, len(list))
	for _, e := range list {
		m = append(m, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)})
	}
	return m
}

// inPidNamespace runs spawn where the plan has the child born.
func (b *birth) inPidNamespace(spawn func() error) error {
	if b.p.JoinPid && b.join >= 0 {
		return inPidNamespace(b.join, spawn)
	}
	if b.p.PidNS == "" {
		return spawn()
	}
	ns, err := unix.Open(b.p.PidNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Invalid("cannot open pid namespace %s: %w", b.p.PidNS, err)
	}
	defer unix.Close(ns)
	return inPidNamespace(ns, spawn)
}

// enterAll changes the calling thread, for its child to inherit.
func enterAll(e *plan.Entrance) error {
	for i := range e.Enter {
		s := &e.Enter[i]
		if s.Flags == unix.CLONE_NEWNS {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fault.Internal("cannot %s: %w", s.String(), err)
			}
		}
		if err := enter(s.Path, int(s.Flags)); err != nil {
			return fault.Invalid("cannot %s (%s): %w", s.String(), s.Why, err)
		}
	}
	return nil
}

func enterClocks(offsets []string) error {
	if offsets == nil {
		return nil
	}
	// The clocks are those of children, and of this thread's next program, until then they can be set.
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fault.Internal("cannot make a time namespace: %w", err)
	}
	if len(offsets) == 0 {
		return nil
	}
	if err := writeFile("/proc/"+strconv.Itoa(unix.Gettid())+"/timens_offsets", strings.Join(offsets, "\n")); err != nil {
		return fault.Invalid("cannot set linux.timeOffsets to %s: %w", strings.Join(offsets, ", "), err)
	}
	return nil
}

func setAffinity(mask []uint64) error {
	if len(mask) == 0 {
		return nil
	}
	var set unix.CPUSet
	for i, w := range mask {
		for bit := range 64 {
			if w&(1<<bit) != 0 {
				set.Set(64*i + bit)
			}
		}
	}
	return unix.SchedSetaffinity(0, &set)
}

// parentsShare opens what the steps need that only the parent can get at, and does those that only it
// can do. It returns the steps as the stage gets them and the descriptors that go with them.
type parentsShare struct {
	steps    []plan.Step
	fds      []int
	warnings []string
}

func (s *parentsShare) close() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
}

// prepare gives the descriptors numbers from first on.
func prepare(p *plan.Plan, first int) (*parentsShare, error) {
	s := &parentsShare{steps: p.Steps}
	inUser := p.InUser()
	copied := false
	for i := range p.Steps {
		st := &p.Steps[i]
		mapped := st.Op == plan.OpBind && len(st.Num) != 0
		if !inUser && !mapped {
			continue
		}
		fd := -1
		var err error
		switch st.Op {
		case plan.OpCgroup:
			fd, err = unix.Open(st.Path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		case plan.OpBind:
			fd, err = openTree(st)
			if err == unix.ENOENT {
				err = &failure{errno: unix.ENOENT, detail: sourceMissing}
			}
		case plan.OpHostDevice:
			fd, err = s.hostDevice(st)
		case plan.OpOOM:
		default:
			continue
		}
		if err != nil {
			s.close()
			proc := &Process{steps: p.Steps}
			detail := ""
			if f, ok := err.(*failure); ok {
				detail = f.detail
			}
			return nil, proc.stepError(i, errnoOf(err), detail)
		}
		if !copied {
			s.steps, copied = append([]plan.Step{}, p.Steps...), true
		}
		if fd < 0 {
			s.steps[i].FD = plan.ByParent
			continue
		}
		s.steps[i].FD = uint64(first + len(s.fds))
		s.fds = append(s.fds, fd)
	}
	return s, nil
}

// openTree is a copy of the mount at a bind's source, its ids mapped as the step says.
func openTree(st *plan.Step) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if st.Flags&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := openSource(st, flags)
	if err != nil || len(st.Num) == 0 {
		return tree, err
	}
	m := plan.UnpackIDMap(st.Num)
	ns, err := holdUserNamespace(m.UIDs, m.GIDs)
	if err == nil {
		at := uint(unix.AT_EMPTY_PATH)
		if m.Recursive {
			at |= unix.AT_RECURSIVE
		}
		err = unix.MountSetattr(tree, "", at, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
		unix.Close(ns)
		err = because(err, "mapping its ids")
	}
	if err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// hostDevice is the host's own node for a container that can't make one: it must be the same device. Its mode and owner can't be others.
func (s *parentsShare) hostDevice(st *plan.Step) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, st.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, because(err, "the host's "+st.Source)
	}
	var have unix.Stat_t
	if err = unix.Fstat(tree, &have); err == nil {
		kind := uint32(unix.S_IFCHR)
		if st.Type == "b" {
			kind = unix.S_IFBLK
		}
		if have.Mode&unix.S_IFMT != kind || have.Rdev != unix.Mkdev(uint32(st.Num[0]), uint32(st.Num[1])) {
			err = &failure{errno: unix.ENODEV, detail: "the host's " + st.Source + " is another device, and a user namespace forbids to make one"}
		} else if strings.HasPrefix(st.Why, "linux.devices") && (have.Mode&0o7777 != uint32(st.Num[2]) || uint64(have.Uid) != st.Num[3] || uint64(have.Gid) != st.Num[4]) {
			s.warnings = append(s.warnings, st.Why+": in a user namespace "+path.Base(st.Path)+" has the mode and owner of the host's "+st.Source)
		}
	}
	if err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// finish is the parent's part in the steps of a child that is born and waits.
func (s *parentsShare) finish(p *plan.Plan, pid int) error {
	if !p.InUser() {
		return nil
	}
	for i := range s.steps {
		st := &s.steps[i]
		switch {
		case st.Op == plan.OpOOM && st.FD == plan.ByParent:
			err := writeFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", st.Data)
			if err != nil && err != unix.EACCES && err != unix.EPERM {
				return fault.Internal("cannot %s: %w", st.String(), err)
			}
		case st.Op == plan.OpRlimit && st.Flags == 0:
			// Raising is for the host's root; the stage lowers them later, for the program alone.
			var have unix.Rlimit
			if unix.Prlimit(pid, int(st.Num[0]), nil, &have) == nil && have.Max < st.Num[2] {
				have.Max = st.Num[2]
				if err := unix.Prlimit(pid, int(st.Num[0]), &have, nil); err != nil {
					return fault.Internal("cannot %s: %w", st.String(), err)
				}
			}
		}
	}
	return nil
}

// holdUserNamespace makes a user namespace with these mappings and nobody in it.
func holdUserNamespace(uids, gids []specs.LinuxIDMapping) (int, error) {
	pid, err := forkPaused(unix.CLONE_NEWUSER)
	if err != nil {
		return -1, because(err, "user namespace")
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	dir := "/proc/" + strconv.Itoa(pid)
	for _, m := range []struct {
		file string
		list []specs.LinuxIDMapping
	}{{"/uid_map", uids}, {"/gid_map", gids}} {
		var text strings.Builder
		for _, e := range m.list {
			text.WriteString(strconv.FormatUint(uint64(e.ContainerID), 10) + " " + strconv.FormatUint(uint64(e.HostID), 10) + " " + strconv.FormatUint(uint64(e.Size), 10) + "\n")
		}
		if err := writeFile(dir+m.file, text.String()); err != nil {
			return -1, because(err, "id mapping")
		}
	}
	fd, err := unix.Open(dir+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return fd, because(err, "user namespace")
}

// openNamespaces opens what the bridge enters, in order.
func openNamespaces(e *plan.Entrance) (fds []int, kinds []int, err error) {
	for i := range e.Enter {
		s := &e.Enter[i]
		fd, err := unix.Open(s.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, nil, fault.Invalid("cannot %s (%s): %w", s.String(), s.Why, err)
		}
		fds, kinds = append(fds, fd), append(kinds, int(s.Flags))
	}
	return fds, kinds, nil
}
