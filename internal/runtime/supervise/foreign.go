package supervise

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
	"tare/internal/runtime/wire"
)

// A container may be run by any OCI runtime: its command line makes, starts, enters and deletes it, while its processes, which fall to us
// as their subreaper, have their stdio, records and descriptors here like all others. Each command is an errand: it is waited
// for by the loop, and while one is under way no upgrade begins.
//
// The root of layers is mounted in a mount namespace of the create command's own, so that here too the host sees nothing of it: that
// command is `tare-run supervise --in-root`, which mounts and then executes the runtime.

// foreign says how another OCI runtime runs a container.
type foreign struct {
	runtime.Foreign
	State   string `json:"state"` // the runtime's --root
	Dir     string `json:"dir"`   // bundle and files of this container
	Deleted bool   `json:"deleted,omitempty"`
}

// inRoot is what --in-root reads from descriptor 3.
type inRoot struct {
	Step *plan.Step `json:"step,omitempty"`
	Args []string   `json:"args"`
}

// createForeign has another runtime create the container; r is answered when it waits for start, or when nothing of it is left.
func (s runner) createForeign(r *request, req runtime.Create, spec *specs.Spec, c *container) error {
	f := &foreign{Foreign: *req.Runtime, State: filepath.Join(s.root, "runtimes", filepath.Base(req.Runtime.Path)), Dir: filepath.Join(s.root, "foreign", c.id)}
	c.foreign = f
	if err := os.MkdirAll(f.State, 0o700); err != nil {
		return fault.Internal("cannot make a folder for the runtime %s: %w", f.Path, err)
	}
	os.RemoveAll(f.Dir)
	os.RemoveAll(filepath.Join(f.State, c.id)) // of a command that a killed supervisor did not see the end of
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fault.Internal("cannot make a bundle for the runtime %s: %w", f.Path, err)
	}
	order := inRoot{}
	if req.Rootfs != nil {
		step, err := plan.Overlay(req.Rootfs)
		if err != nil {
			return err
		}
		order.Step = &step
		root := specs.Root{Path: step.Path}
		if spec.Root != nil {
			root.Readonly = spec.Root.Readonly
		}
		spec.Root = &root
	}
	spec.Version = "1.0.2" // crun before 1.9 takes no other, and whoever knows a later field does not look at the version
	if res := spec.Linux.Resources; res != nil && res.Pids != nil && (res.Pids.Limit == nil || *res.Pids.Limit < 0) {
		res.Pids = nil // none, which is so in a new cgroup; crun before 1.9 writes the number
	}
	data, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(f.Dir, "config.json"), data, 0o600)
	}
	if err != nil {
		return fault.Internal("cannot write a bundle for the runtime %s: %w", f.Path, err)
	}
	p := &c.init
	args := []string{"create", "--bundle", f.Dir, "--pid-file", f.file("pid")}
	err = (guest{p}).launchForeign(req.Stdio, spec.Process.User.UID, args, []string{c.id}, &order, func() {
		p.phase = created
		p.isCreated()
	})
	if err != nil {
		os.RemoveAll(f.Dir)
		return err
	}
	p.waiting = r
	s.containers[c.id] = c
	if p.log, err = s.log(req.ID, req.Stdio.Log); err != nil {
		p.failure = wire.FromError(err)
	}
	s.restLater()
	return nil
}

// claimed forgets the ends of children that nobody waits for any more.
func (s runner) claimed() {
	if s.pending == 0 {
		s.unclaimed = nil
	}
}

func (f *foreign) file(name string) string { return filepath.Join(f.Dir, name) }

// command is the runtime's command line.
func (f *foreign) command(log string, args ...string) []string {
	all := append([]string{f.Path}, f.Args...)
	all = append(all, "--root", f.State, "--log", log, "--log-format", "json")
	return append(all, args...)
}

// guest is a process, as what another runtime makes.
type guest struct{ *process }

// launchForeign runs a command of the runtime's that leaves a process behind, and takes that over.
func (p guest) launchForeign(io runtime.Stdio, uid uint32, args, tail []string, order *inRoot, then func()) error {
	s, f := p.s(), p.c.foreign
	std, ends, err := p.openStdio(io, uid)
	defer closeFiles(ends)
	if err != nil {
		return err
	}
	console := -1
	if io.Terminal {
		s.attachments++
		path := filepath.Join(s.root, "tty-"+utoa(s.attachments)) // a short one: the kernel takes 107 bytes
		if console, err = listenAt(path); err != nil {
			p.closeStdio()
			return err
		}
		args = append(args, "--console-socket", path)
	}
	log := f.file("log" + p.exec + ".json")
	order.Args = f.command(log, append(args, tail...)...)
	files := []*os.File{std.In, std.Out, std.Err}
	s.pending++
	err = runner{s}.runIn(order, files, func(status unix.WaitStatus) {
		s.pending--
		defer runner{s}.claimed()
		defer os.Remove(log)
		var master *os.File
		if console >= 0 {
			os.Remove(pathOf(args, "--console-socket"))
			master = receiveMaster(console)
			unix.Close(console)
		}
		pid, err := readPid(pathOf(args, "--pid-file"))
		if status.ExitStatus() != 0 || err != nil {
			if master != nil {
				master.Close()
			}
			(guest{p.process}).foreignFailed(f.reason(log, status))
			return
		}
		(guest{p.process}).adoptPid(pid, master, then)
	})
	if err != nil {
		s.pending--
		if console >= 0 {
			unix.Close(console)
			os.Remove(pathOf(args, "--console-socket"))
		}
		p.closeStdio()
	}
	return err
}

// adoptPid takes over the process that a runtime's command left.
func (p guest) adoptPid(pid int, master *os.File, then func()) {
	s := p.s()
	p.pid = pid
	status, early := s.unclaimed[pid]
	delete(s.unclaimed, pid)
	if !early {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			if master != nil {
				master.Close()
			}
			(guest{p.process}).foreignFailed(fault.Internal("cannot watch process %d: %w", pid, err))
			return
		}
		p.pidfd = fd
	}
	if p.terminal {
		if err := p.takeMaster(master); err != nil {
			p.failure = wire.FromError(err)
		}
	}
	p.out.resume()
	p.err.resume()
	if p.failure != nil && p.pidfd >= 0 { // its end does the rest
		_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	} else if p.failure == nil {
		then()
	}
	if early {
		p.end(codeOf(status))
		return
	}
	s.loop.watch(p.pidfd, (*exitWatch)(p.process), unix.EPOLLIN)
}

// foreignFailed ends a process that never came to be.
func (p guest) foreignFailed(err error) {
	p.closeStdio() // what the command wrote there is no output of the container
	p.failure = describe(err)
	p.end(p.failure.Code)
}

func describe(err error) *wire.Error {
	e := wire.FromError(err)
	var failed *launch.ExecError
	if errors.As(err, &failed) {
		e.Class = "invalid"
		e.Program, e.Errno, e.Code = failed.Program, int(failed.Errno), failed.Code()
	}
	return e
}

// goForeign starts what was created.
func (p guest) goForeign() {
	s, f := p.s(), p.c.foreign
	log := f.file("start.json")
	err := runner{s}.runIn(&inRoot{Args: f.command(log, "start", p.c.id)}, nil, func(status unix.WaitStatus) {
		defer os.Remove(log)
		switch {
		case p.phase == ended:
			return
		case status.ExitStatus() != 0:
			p.failure = describe(f.reason(log, status))
			_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
		default:
			p.becomeRunning()
		}
		if p.faster { // it ended before the command did
			p.end(codeOf(p.status))
		}
	})
	if err != nil {
		p.fail(err)
	}
}

// execForeign has the runtime start a further process; p is made, its spec complete.
func (p guest) execForeign(process *specs.Process, io runtime.Stdio) error {
	f := p.c.foreign
	file := f.file("exec" + p.exec + ".json")
	if io.Terminal && io.Width > 0 { // it runs before its terminal gets here
		process.ConsoleSize = &specs.Box{Width: uint(io.Width), Height: uint(io.Height)}
	}
	data, err := json.Marshal(process)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		return fault.Internal("cannot write the exec's process: %w", err)
	}
	pid := f.file("pid" + p.exec)
	args := []string{"exec", "--detach", "--process", file, "--pid-file", pid}
	err = (guest{p.process}).launchForeign(io, process.User.UID, args, []string{p.c.id}, &inRoot{}, func() {
		os.Remove(file)
		os.Remove(pid)
		p.becomeRunning()
	})
	if err != nil {
		os.Remove(file)
	}
	return err
}

// deleteForeign has the runtime forget a container that ended, then goes on with the removal.
func (m *removal) deleteForeign() {
	c := m.c
	f := c.foreign
	log := f.file("delete.json")
	done := func(unix.WaitStatus) {
		f.Deleted = true
		os.RemoveAll(f.Dir)
		m.try()
	}
	if err := (runner{c.s}).runIn(&inRoot{Args: f.command(log, "delete", "--force", c.id)}, nil, done); err != nil {
		complain("container %s: %v", c.id, err)
		done(0)
	}
}

// runIn runs a command as an errand, after the root of the order was mounted.
func (s runner) runIn(order *inRoot, files []*os.File, done func(unix.WaitStatus)) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fault.Internal("cannot open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	fds := []uintptr{null.Fd(), null.Fd(), null.Fd(), 0}
	for i, f := range files {
		if f != nil {
			fds[i] = f.Fd()
		}
	}
	memory, err := unix.MemfdCreate("order", unix.MFD_CLOEXEC)
	if err != nil {
		return fault.Internal("memfd_create: %w", err)
	}
	defer unix.Close(memory)
	data, err := json.Marshal(order)
	if err == nil {
		_, err = unix.Pwrite(memory, data, 0)
	}
	if err != nil {
		return fault.Internal("cannot hand over a runtime's command: %w", err)
	}
	fds[3] = uintptr(memory)
	attr := &syscall.ProcAttr{Dir: "/", Env: append(os.Environ(), "GOMAXPROCS=2"), Files: fds, Sys: &syscall.SysProcAttr{Setsid: true}}
	if order.Step != nil {
		attr.Sys.Cloneflags = unix.CLONE_NEWNS
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"tare-run", "supervise", "--in-root"}, attr)
	if err != nil {
		return fault.Internal("cannot run %s: %w", order.Args[0], err)
	}
	s.errands[pid] = &errand{done: done}
	return nil
}

// mountAndExecute is the child: `tare-run supervise --in-root`.
func mountAndExecute() int {
	data, err := io.ReadAll(io.NewSectionReader(os.NewFile(3, "order"), 0, 64<<20))
	var order inRoot
	if err == nil {
		err = json.Unmarshal(data, &order)
	}
	if err == nil && order.Step != nil {
		err = launch.MountRoot(order.Step)
	}
	if err == nil {
		unix.CloseOnExec(3)
		os.Unsetenv("GOMAXPROCS")
		err = unix.Exec(order.Args[0], order.Args, os.Environ())
	}
	if log := pathOf(order.Args, "--log"); log != "" { // where the runtime would have said it
		line, _ := json.Marshal(map[string]string{"level": "error", "msg": "cannot run " + order.Args[0] + ": " + err.Error()})
		_ = os.WriteFile(log, append(line, '\n'), 0o600)
	}
	return 1
}

// reason is why a runtime's command failed, from its log.
func (f *foreign) reason(log string, status unix.WaitStatus) error {
	data, _ := os.ReadFile(log)
	said := ""
	for line := range strings.Lines(string(data)) {
		var e struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &e) == nil && (e.Level == "error" || e.Level == "fatal") && e.Msg != "" {
			said = e.Msg
		}
	}
	if said == "" {
		return fault.Internal("the runtime %s ended with status %d and gave no reason", f.Path, status.ExitStatus())
	}
	if errno := execErrno(said); errno != 0 {
		return &launch.ExecError{Program: quoted(said), Errno: errno}
	}
	return fault.Internal("%s: %s", filepath.Base(f.Path), said)
}

// execErrno tells from a runtime's words that the program could not be executed, as Docker's engine does; 0 if it is something else.
func execErrno(said string) unix.Errno {
	low := strings.ToLower(said)
	about := strings.Contains(low, "exec") || strings.Contains(low, "open executable")
	switch {
	case strings.Contains(low, "executable file") && strings.Contains(low, "not found"):
		return unix.ENOENT
	case about && strings.Contains(low, "no such file or directory"):
		return unix.ENOENT
	case about && strings.Contains(low, "permission denied"):
		return unix.EACCES
	case about && strings.Contains(low, "exec format error"):
		return unix.ENOEXEC
	}
	return 0
}

// quoted is the last program that a message quotes: "…", `…`.
func quoted(said string) string {
	for _, q := range []string{"\"", "`"} {
		if parts := strings.Split(said, q); len(parts) >= 3 {
			return parts[1]
		}
	}
	return "the program"
}

// pathOf is the value of a flag.
func pathOf(args []string, flag string) string {
	for i, a := range args {
		if a == flag && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

func readPid(file string) (int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

func listenAt(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		os.Remove(path)
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
			if err = unix.Listen(fd, 1); err == nil {
				return fd, nil
			}
		}
		unix.Close(fd)
	}
	return -1, fault.Internal("cannot listen for a terminal on %s: %w", path, err)
}

// receiveMaster takes the terminal that a runtime sent before it ended; nil if it sent none.
func receiveMaster(listener int) *os.File {
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil
	}
	defer unix.Close(conn)
	var data [4096]byte
	var rights [64]byte
	_, n, _, _, err := unix.Recvmsg(conn, data[:], rights[:], unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil
	}
	fds := descriptorsOf(rights[:n])
	if len(fds) == 0 {
		return nil
	}
	closeFDs(fds[1:])
	return os.NewFile(uintptr(fds[0]), "ptmx")
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
