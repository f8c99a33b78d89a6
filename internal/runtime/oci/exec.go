package oci

import (
	"flag"
	"fmt"
	"os"
	"path"
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
	apparmor     string
	label        string
	cgroups      words
}

// execFailed is the exit code of an exec that did not come to be.
const execFailed = 255

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
	fs.StringVar(&o.apparmor, "apparmor", "", "AppArmor profile of the process")
	fs.StringVar(&o.label, "process-label", "", "SELinux label of the process")
	fs.Var(&o.cgroups, "cgroup", "[CONTROLLERS:]PATH of a cgroup below the container's")
	fs.Bool("no-subreaper", false, "accepted: a detached process has no parent of its own here")
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
	if code, err := o.exec(g, r, s, p); err != nil {
		return execFailed, fmt.Errorf("exec failed: %w", err)
	} else {
		return code, nil
	}
}

func (o *execFlags) exec(g *global, r *record, s *specs.Spec, process *specs.Process) (int, error) {
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
	if err == nil {
		err = o.inCgroups(compiled, r, host)
	}
	if err != nil {
		return 1, err
	}
	if err := launch.ShieldFor(compiled); err != nil {
		return 1, fault.Internal("cannot run from a file that is safe from containers: %w", err)
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
	for _, w := range child.Warnings {
		g.warn("%s", w)
	}
	state := *r
	state.Pid = child.Pid
	m, err := g.follow(child, child.PidFD, s, &state, specs.StateRunning)
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
	if err := child.Go(); err != nil {
		return abort(err)
	}
	if _, err := g.follow(child, child.PidFD, s, &state, specs.StateRunning); err != nil {
		return abort(err)
	}
	// Only now Pid and PidFD are the program's own; before, they may be of the process that bears it.
	var fg foreground
	if !o.detach {
		fg.begin(child.PidFD, tty)
		defer fg.end()
	}
	if err := writePid(o.pidFile, child.Pid); err != nil {
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
	if o.apparmor != "" {
		p.ApparmorProfile = o.apparmor
	}
	if o.label != "" {
		p.SelinuxLabel = o.label
	}
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

// inCgroups puts the process into groups below the container's: in all hierarchies, or in those of some controllers.
func (o *execFlags) inCgroups(p *plan.Plan, r *record, host plan.Host) error {
	for _, word := range o.cgroups {
		controllers, sub, some := strings.Cut(word, ":")
		if !some {
			controllers, sub = "", word
		}
		sub = path.Clean("/" + sub) // never above the container's own
		if p.CgroupDir != "" && !some {
			if err := exists(p.CgroupDir + sub); err != nil {
				return err
			}
			p.CgroupDir += sub
		} else if host.Cgroup == plan.CgroupV2 && controllers != "" {
			return fault.Invalid("--cgroup %s: cgroup v2 has one hierarchy for all controllers", word)
		}
		found := map[string]bool{}
		for i := range p.Steps {
			st := &p.Steps[i]
			if st.Op != plan.OpCgroup || some && !holds(host, st.Path, controllers, found) {
				continue
			}
			dir, file := path.Split(st.Path)
			if err := exists(dir + sub); err != nil {
				return err
			}
			st.Path = path.Join(dir, sub, file)
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if some && !found[c] {
				return fault.Invalid("--cgroup %s: unknown controller %s", word, c)
			}
		}
	}
	return nil
}

func exists(dir string) error {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return fault.Invalid("--cgroup: %s does not exist", path.Clean(dir))
	}
	return nil
}

// holds tells whether a group's file lies in the hierarchy of one of the controllers.
func holds(host plan.Host, file, controllers string, found map[string]bool) (yes bool) {
	for c := range strings.SplitSeq(controllers, ",") {
		if m, ok := host.Cgroups[c]; ok {
			found[c] = true
			yes = yes || strings.HasPrefix(file, m+"/")
		}
	}
	return yes
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
