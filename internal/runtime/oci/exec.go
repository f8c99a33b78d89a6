package oci

import (
	"flag"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/runtime"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
)

// words collects a flag that may be given more than once.
type words []string

func (w *words) String() string     { return strings.Join(*w, ",") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

type execFlags struct {
	options
	process      string
	cwd          string
	user         string
	env          words
	caps         words
	gids         words
	tty          bool
	noNewPrivs   bool
	ignorePaused bool
}

func execute(g *global, fs *flag.FlagSet, args []string) (int, error) {
	var o execFlags
	o.flags(fs)
	both := func(long, short string, set func(name, usage string), usage string) {
		set(long, usage)
		set(short, "short for --"+long)
	}
	both("process", "p", func(n, u string) { fs.StringVar(&o.process, n, "", u) }, "file with an OCI process")
	both("user", "u", func(n, u string) { fs.StringVar(&o.user, n, "", u) }, "UID[:GID]")
	both("env", "e", func(n, u string) { fs.Var(&o.env, n, u) }, "set a variable")
	both("cap", "c", func(n, u string) { fs.Var(&o.caps, n, u) }, "add a capability")
	both("additional-gids", "g", func(n, u string) { fs.Var(&o.gids, n, u) }, "add a group")
	both("tty", "t", func(n, u string) { fs.BoolVar(&o.tty, n, false, u) }, "make a terminal")
	both("detach", "d", func(n, u string) { fs.BoolVar(&o.detach, n, false, u) }, "don't wait for the process's end")
	fs.StringVar(&o.cwd, "cwd", "", "working directory")
	fs.BoolVar(&o.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	fs.BoolVar(&o.ignorePaused, "ignore-paused", false, "allow in a paused container")
	if err := parse(fs, args, 1, -1); err != nil {
		return 1, err
	}
	r, dir, err := g.load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	switch r.Status {
	case specs.StateStopped:
		return 1, fault.Conflict("cannot exec in a stopped container")
	case specs.ContainerState(runtime.Paused):
		if !o.ignorePaused {
			return 1, fault.Conflict("cannot exec in a paused container (use --ignore-paused to override)")
		}
	}
	s, err := r.spec(dir)
	if err != nil {
		return 1, err
	}
	p, err := o.makeProcess(s, fs.Args()[1:])
	if err != nil {
		return 1, err
	}
	return o.exec(r, s, p)
}

func (o *execFlags) exec(r *record, s *specs.Spec, process *specs.Process) (int, error) {
	if process.Terminal && o.detach && o.consoleSocket == "" {
		return 1, fault.Invalid("cannot allocate tty if runc will detach without setting console socket")
	}
	activate(process)
	stdio, err := o.stdio(process)
	if err != nil {
		return 1, err
	}
	host, err := launch.Host()
	if err != nil {
		return 1, err
	}
	compiled, err := plan.CompileExec(s, process, host)
	if err != nil {
		return 1, err
	}
	child, err := launch.New(compiled, r.Pid, stdio)
	if err != nil {
		return 1, err
	}
	defer child.Close()
	abort := func(err error) (int, error) {
		_ = unix.PidfdSendSignal(child.PidFD, unix.SIGKILL, nil, 0)
		_, _ = unix.Wait4(child.Pid, nil, 0, nil)
		return 1, err
	}
	m, err := child.Next()
	if err == nil {
		err = m.Err
	}
	if err != nil {
		return abort(err)
	}
	tty := m.Master
	if tty != nil && o.consoleSocket != "" {
		err := sendMaster(o.consoleSocket, tty)
		tty.Close()
		if tty = nil; err != nil {
			return abort(err)
		}
	}
	var fg foreground
	if !o.detach {
		fg.begin(child.PidFD, tty)
		defer fg.end()
	}
	if err := writePid(o.pidFile, child.Pid); err != nil {
		return abort(err)
	}
	if err := goAndReport(child); err != nil {
		return abort(err)
	}
	if o.detach {
		return 0, nil
	}
	return fg.wait(child.Pid)
}

// makeProcess is the process file, or the container's own process with the flags' changes.
func (o *execFlags) makeProcess(s *specs.Spec, args []string) (*specs.Process, error) {
	if o.process != "" {
		p := new(specs.Process)
		if err := files.ReadJSON(o.process, p); err != nil {
			return nil, fault.Invalid("cannot read the process file: %w", err)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, fault.Invalid("exec: process args cannot be empty")
	}
	p := *s.Process
	p.Args, p.Terminal = args, o.tty
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	p.Env = append(append([]string{}, p.Env...), o.env...)
	p.NoNewPrivileges = p.NoNewPrivileges || o.noNewPrivs
	if o.user != "" {
		u, err := parseUser(o.user)
		if err != nil {
			return nil, err
		}
		u.Umask = p.User.Umask
		p.User = u
	}
	for _, g := range o.gids {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return nil, fault.Invalid("additional gid %q is not a number", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(n))
	}
	if len(o.caps) > 0 {
		c := specs.LinuxCapabilities{}
		if p.Capabilities != nil {
			c = *p.Capabilities
		}
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
			*set = append(append([]string{}, *set...), o.caps...)
		}
		p.Capabilities = &c
	}
	return &p, nil
}

func parseUser(s string) (u specs.User, err error) {
	uid, gid, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err == nil && ok {
		var g uint64
		g, err = strconv.ParseUint(gid, 10, 32)
		u.GID = uint32(g)
	}
	if err != nil {
		return u, fault.Invalid("user %q is not UID[:GID] in numbers", s)
	}
	u.UID = uint32(n)
	return u, nil
}
