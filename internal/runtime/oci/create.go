package oci

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
)

// options are the flags that create, run and exec share.
type options struct {
	bundle        string
	consoleSocket string
	pidFile       string
	preserve      int
	detach        bool
	keepKeyring   bool
	noPivot       bool
}

func (o *options) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.consoleSocket, "console-socket", "", "unix socket that is sent the terminal's master")
	fs.StringVar(&o.pidFile, "pid-file", "", "file for the process id")
	fs.IntVar(&o.preserve, "preserve-fds", 0, "further descriptors to pass, from 3 on")
}

func create(g *global, fs *flag.FlagSet, args []string) (int, error) {
	var o options
	o.flags(fs)
	bundleFlag(fs, &o)
	if err := parse(fs, args, 1, 1); err != nil {
		return 1, err
	}
	o.detach = true
	c, err := g.newContainer(fs.Arg(0), o)
	if err != nil {
		return 1, err
	}
	if err := c.create(); err != nil {
		c.discard()
		return 1, err
	}
	return 0, nil
}

// bundleFlag adds the flags of create and run that exec does not have.
func bundleFlag(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.noPivot, "no-pivot", false, "move the root instead of pivot_root, for a host that runs from a ramdisk")
	fs.BoolVar(&o.keepKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	fs.StringVar(&o.bundle, "bundle", ".", "folder with config.json")
	fs.StringVar(&o.bundle, "b", ".", "short for --bundle")
}

// check finds what this command line does not take in a spec, and gives it a cgroup if it names none.
func (g *global) check(s *specs.Spec, id string) error {
	if s.Version == "" {
		return fault.Invalid("config.json has no ociVersion")
	}
	if major, _, _ := strings.Cut(s.Version, "."); major != "1" {
		return fault.Unsupported("ociVersion %s is not supported by this runtime, which knows %s", s.Version, specs.Version)
	}
	if s.Linux == nil {
		return nil // refused with a better word later
	}
	switch p := &s.Linux.CgroupsPath; {
	case g.systemd && *p == "":
		*p = "system.slice:tare:" + id
	case g.systemd && !cgroup.IsUnit(*p):
		return fault.Invalid("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", *p)
	case *p == "":
		*p = "/" + id
	}
	return nil
}

// owner is the name of whoever runs this, its number if it has none.
func owner() string {
	uid := strconv.Itoa(os.Getuid())
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "#" + uid
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == uid {
			return f[0]
		}
	}
	return "#" + uid
}

// container is one that is being made.
type container struct {
	options
	g     *global
	id    string
	dir   string
	spec  *specs.Spec
	plan  *plan.Plan
	group *cgroup.Group
	child *launch.Process
	rec   record
	tty   *os.File // the terminal's master, unless it went to the console socket
}

// newContainer claims the id and compiles the plan; nothing runs yet.
func (g *global) newContainer(id string, o options) (*container, error) {
	dir, err := g.dir(id)
	if err != nil {
		return nil, err
	}
	c := &container{options: o, g: g, id: id, dir: dir}
	if c.bundle, err = filepath.Abs(o.bundle); err != nil {
		return nil, err
	}
	if c.spec, err = runtime.LoadBundle(c.bundle); err != nil {
		return nil, err
	}
	if err := g.check(c.spec, id); err != nil {
		return nil, err
	}
	if p := c.spec.Process; p != nil && p.Terminal && o.detach && o.consoleSocket == "" {
		return nil, fault.Invalid("cannot allocate tty if runc will detach without setting console socket")
	} else if o.consoleSocket != "" && (p == nil || !p.Terminal) {
		return nil, fault.Invalid("cannot use console socket if runc will not detach or allocate tty")
	}
	host, err := launch.Host()
	if err != nil {
		return nil, err
	}
	if c.spec.Process != nil {
		activate(c.spec.Process)
	}
	c.rec = record{
		told: told{Version: specs.Version, ID: id, Status: specs.StateCreating, Bundle: c.bundle, Annotations: c.spec.Annotations,
			Created: time.Now().UTC(), Owner: owner()},
		Options: plan.Options{NoPivot: o.noPivot, NoKeyring: o.keepKeyring, Runtime: true},
	}
	if c.plan, err = plan.CompileWith(c.spec, nil, host, c.rec.Options); err != nil {
		return nil, err
	}
	if err := launch.ShieldFor(c.plan); err != nil {
		return nil, fault.Internal("cannot run from a file that is safe from containers: %w", err)
	}
	if err := c.plan.SetState(c.rec.state(specs.StateCreating)); err != nil {
		return nil, err
	}
	c.rec.Rootfs, c.rec.Cgroup = c.spec.Root.Path, c.spec.Linux.CgroupsPath
	if g.debug {
		g.entry("debug", c.plan.String())
	}
	if c.group, err = cgroup.Open(c.spec.Linux.CgroupsPath); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(g.root, 0o711); err != nil {
		return nil, fault.Internal("cannot make the folder for states: %w", err)
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fault.Conflict("container with given ID already exists: %s", id)
		}
		return nil, fault.Internal("cannot make the folder for container %s: %w", id, err)
	}
	return c, nil
}

// create makes cgroup and process, up to where it waits for start.
func (c *container) create() error {
	if err := files.WriteJSON(filepath.Join(c.dir, specFile), c.spec, files.Fast); err != nil {
		return fault.Internal("cannot keep the spec of container %s: %w", c.id, err)
	}
	if err := c.group.Create(c.spec.Linux.Resources); err != nil {
		return err
	}
	if err := c.group.Delegate(c.spec); err != nil {
		return err
	}
	listener, err := c.listen()
	if err != nil {
		return fault.Internal("cannot make the start socket of container %s: %w", c.id, err)
	}
	defer listener.Close()
	stdio, err := c.stdio(c.spec.Process)
	if err != nil {
		return err
	}
	if c.child, err = launch.Detach(c.plan, stdio, listener); err != nil {
		return err
	}
	for _, w := range c.child.Warnings {
		c.g.warn("%s", w)
	}
	c.rec.Pid = c.child.Pid
	m, err := c.g.follow(c.child, c.child.PidFD, c.spec, &c.rec, specs.StateCreating)
	if err != nil {
		return err
	}
	if err := c.group.Settle(); err != nil {
		return err
	}
	if m.Master != nil {
		if err := c.giveMaster(m.Master); err != nil {
			return err
		}
	}
	_, began, err := procStat(c.child.Pid)
	if err != nil {
		return fault.Internal("the process of container %s is gone: %w", c.id, err)
	}
	c.rec.Status, c.rec.StartTime = specs.StateCreated, began
	if err := c.rec.save(c.dir); err != nil {
		return fault.Internal("cannot write the state of container %s: %w", c.id, err)
	}
	return writePid(c.pidFile, c.child.Pid)
}

func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	if err := files.Write(file, []byte(strconv.Itoa(pid)), 0o644, files.Fast); err != nil {
		return fault.Invalid("cannot write the pid file: %w", err)
	}
	return nil
}

// discard undoes everything. The hooks that come after a container's end come here too.
func (c *container) discard() {
	defer c.g.poststop(c.spec, &c.rec)
	if c.child != nil {
		_ = unix.PidfdSendSignal(c.child.PidFD, unix.SIGKILL, nil, 0)
		_, _ = unix.Wait4(c.child.Pid, nil, 0, nil)
		c.child.Close()
	}
	_ = c.group.Remove()
	_ = os.RemoveAll(c.dir)
}

// listen makes the start socket. Its path is taken from the folder's
// descriptor: the kernel allows 107 bytes for it.
func (c *container) listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), socketFile)
	err = atSocket(c.dir, func(a unix.Sockaddr) error { return unix.Bind(fd, a) })
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func atSocket(dir string, do func(unix.Sockaddr) error) error {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return do(&unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(d) + "/" + socketFile})
}

// listenFDs is how many descriptors this process was given by socket activation (sd_listen_fds(3)).
func listenFDs() int {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// activate tells the process of the sockets that go on to it.
func activate(p *specs.Process) {
	if n := listenFDs(); n > 0 {
		p.Env = append(p.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
}

// stdio are this process's own streams, or none with a terminal, and what --preserve-fds and LISTEN_FDS say.
func (o *options) stdio(p *specs.Process) (launch.Stdio, error) {
	s := launch.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	if p.Terminal {
		s = launch.Stdio{Console: true}
	}
	for fd := 3; fd < 3+o.preserve+listenFDs(); fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return s, fault.Invalid("--preserve-fds: descriptor %d is not open", fd)
		}
		s.Keep = append(s.Keep, os.NewFile(uintptr(fd), "preserved"))
	}
	return s, nil
}

// giveMaster sends the terminal to the console socket, or keeps it for the foreground.
func (c *container) giveMaster(master *os.File) error {
	if c.consoleSocket == "" {
		c.tty = master
		return nil
	}
	defer master.Close()
	return sendMaster(c.consoleSocket, master)
}

func sendMaster(socket string, master *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	}
	if err == nil {
		err = unix.Sendmsg(fd, []byte("/dev/ptmx"), unix.UnixRights(int(master.Fd())), nil, unix.MSG_NOSIGNAL)
	}
	if err != nil {
		return fault.Invalid("cannot send the terminal to %s: %w", socket, err)
	}
	return nil
}
