// Package plan compiles an OCI runtime spec into the list of steps that turn a
// new process into the container. Compiling is pure: no files, no clock, no
// host beyond what Host carries, so every flag of `docker run` is a golden test.
//
// A Plan is the clone flags of the new process and its Steps, in order. A Step
// is one act (mount this, join that, drop those capabilities); Why names the
// field of the spec it stands for. The steps fall into three stretches:
//
//	join    cgroup, namespaces, host name, sysctls     as root, host's files visible
//	build   root, mounts, devices, masks, pivot        paths are inside the new root
//	become  (after OpReady, when the word to go came)  ids, capabilities, seccomp, exec
//
// A field of the spec that no step honours is refused by its name, never ignored.
package plan

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// Host is what compiling must know of the machine.
type Host struct {
	Cgroup  CgroupMode
	Cgroups map[string]string // v1: controller → mount point; v2: "" → mount point
	Unified string            // mount point of a hybrid machine's v2 tree, "" elsewhere
	// SystemdRoot is the cgroup that systemd's tree begins at; "" is the root.
	SystemdRoot string
	// CanRaiseLimits is false without CAP_SYS_RESOURCE. Then Hard has the limits that can't be
	// exceeded, by their names, and OOMScore is how low oom_score_adj can be.
	CanRaiseLimits bool
	Hard           map[string]uint64
	OOMScore       int
	AppArmor       bool // the kernel has it, and it is on
	SELinux        bool
}

// CgroupMode is how the host's cgroup controllers are mounted.
type CgroupMode string

const (
	CgroupV1 CgroupMode = "v1" // also hybrid: controllers on v1, an empty v2 tree
	CgroupV2 CgroupMode = "v2"
)

// Plan is the compiled form.
type Plan struct {
	Clone     uint64 // CLONE_NEW… flags of the clone itself
	PidNS     string // pid namespace to clone into, by path; "" for none
	JoinPid   bool   // clone into the pid namespace of the container (exec)
	CgroupDir string // v2: directory to clone into; "" for none
	Title     string // names the container in the waiting process's title
	Steps     []Step

	Entrance *Entrance // what comes before the first step; nil for most
	Warnings []string  // where less is done than asked for, because this machine can't
}

// Entrance is what only the parent can do, before the process is born or while it is: a
// user namespace and clocks can be entered by a process with one thread only, and what is done
// as the host's root has to be done before.
type Entrance struct {
	Join    uint64                 // CLONE_NEW… flags of the container's namespaces to enter (exec)
	Enter   []Step                 // OpSetns steps, a user namespace last
	UIDs    []specs.LinuxIDMapping // of the user namespace that Clone makes
	GIDs    []specs.LinuxIDMapping
	Offsets []string // lines for timens_offsets; with any, the clocks are the container's own
	CPUs    []uint64 // mask of the CPUs that the process is born on
}

// entrance is the plan's, made if there is none.
func (p *Plan) entrance() *Entrance {
	if p.Entrance == nil {
		p.Entrance = new(Entrance)
	}
	return p.Entrance
}

// Options are what a runtime's command line says besides the spec.
type Options struct {
	NoPivot   bool
	NoKeyring bool // keep the caller's session keyring
	Runtime   bool // the caller runs hooks, moves network devices and serves seccomp's listener (OpRuntime, Message.Notify)
}

// String lists the plan for people, one step a line.
func (p *Plan) String() string {
	var b strings.Builder
	if p.Clone != 0 {
		line(&b, "clone "+flagNames(p.Clone, cloneNames), "linux.namespaces")
	}
	if p.PidNS != "" {
		line(&b, "clone into pid namespace "+p.PidNS, "linux.namespaces")
	}
	if p.JoinPid {
		line(&b, "clone into the container's pid namespace", "linux.namespaces")
	}
	if p.CgroupDir != "" {
		line(&b, "clone into cgroup "+p.CgroupDir, "linux.cgroupsPath")
	}
	if e := p.Entrance; e != nil {
		e.lines(&b)
	}
	for i := range p.Steps {
		line(&b, p.Steps[i].String(), p.Steps[i].Why)
	}
	for _, w := range p.Warnings {
		line(&b, "warn: "+w, "")
	}
	return b.String()
}

func line(b *strings.Builder, act, why string) {
	b.WriteString(act)
	if why != "" {
		if n := 72 - len(act); n > 0 {
			b.WriteString(strings.Repeat(" ", n))
		}
		b.WriteString("  # " + why)
	}
	b.WriteByte('\n')
}

func (p *Plan) add(s Step) { p.Steps = append(p.Steps, s) }

// Compile makes the plan for a container's init. spec.Root.Path must be
// absolute (runtime.LoadBundle sees to it). With rootfs it is not looked at: the
// overlay is mounted on its own work directory, or without one on the topmost
// layer, in the container's mount namespace only.
func Compile(spec *specs.Spec, rootfs *runtime.Overlay, host Host) (*Plan, error) {
	return CompileWith(spec, rootfs, host, Options{})
}

// CompileWith is Compile with options.
func CompileWith(spec *specs.Spec, rootfs *runtime.Overlay, host Host, opts Options) (*Plan, error) {
	if err := refuseSpec(spec, host); err != nil {
		return nil, err
	}
	if field := needsRuntime(spec); field != "" && !opts.Runtime {
		return nil, unsupported(field)
	}
	p := &Plan{Title: title(spec)}
	ns, err := compileNamespaces(p, spec, host, opts)
	if err != nil {
		return nil, err
	}
	if err := compileKernel(p, spec, ns); err != nil {
		return nil, err
	}
	compileLabels(p, spec.Process, host)
	if err := compileRoot(p, spec, rootfs); err != nil {
		return nil, err
	}
	if err := compileMounts(p, spec, ns, host); err != nil {
		return nil, err
	}
	if spec.Process.Terminal {
		p.add(console(spec.Process, "/dev/console"))
	}
	if cwd := path.Clean("/" + spec.Process.Cwd); cwd != "/" {
		p.add(Step{Op: OpMakeCwd, Why: "process.cwd", Path: cwd})
	}
	compileHooks(p, spec)
	compileSeal(p, spec)
	if f := propagation[spec.Linux.RootfsPropagation]; f&unix.MS_SHARED != 0 {
		// pivot_root(2) takes none that is shared; it becomes so again below.
		p.add(Step{Op: OpRemount, Why: "linux.rootfsPropagation", Path: "/", Prop: unix.MS_PRIVATE})
	}
	pivot := Step{Op: OpPivot, Why: "root"}
	if opts.NoPivot {
		pivot.Flags, pivot.Why = 1, "--no-pivot"
	}
	p.add(pivot)
	if f, ok := propagation[spec.Linux.RootfsPropagation]; ok {
		p.add(Step{Op: OpRootPropagation, Why: "linux.rootfsPropagation", Prop: f})
	}
	return p, compileProcess(p, spec, spec.Process, host)
}

// CompileExec makes the plan for a further process in a container of that spec.
func CompileExec(spec *specs.Spec, process *specs.Process, host Host) (*Plan, error) {
	if spec.Linux == nil {
		return nil, fault.Invalid("the spec has no linux section")
	}
	if err := refuseProcess(process, host); err != nil {
		return nil, err
	}
	p := &Plan{Title: title(spec)}
	if err := joinCgroup(p, spec, host); err != nil {
		return nil, err
	}
	flags := uint64(0)
	for _, n := range spec.Linux.Namespaces {
		f, ok := namespaceFlags[n.Type]
		if !ok {
			return nil, unsupported("linux.namespaces type " + string(n.Type))
		}
		if n.Type == specs.PIDNamespace {
			p.JoinPid = true
			continue
		}
		flags |= f
	}
	// The mount namespace is entered by the process itself; the others too, unless a user namespace is among them.
	if own := uint64(unix.CLONE_NEWUSER | unix.CLONE_NEWTIME); flags&own != 0 {
		first := flags &^ unix.CLONE_NEWNS
		if flags&unix.CLONE_NEWUSER == 0 {
			first = unix.CLONE_NEWTIME
		}
		p.entrance().Join = first
		flags &^= first
	}
	if err := compileAffinity(p, process); err != nil {
		return nil, err
	}
	p.add(Step{Op: OpKeyring, Why: "process"})
	compileLabels(p, process, host)
	if err := compilePersonality(p, spec.Linux.Personality); err != nil {
		return nil, err
	}
	if err := compileMemoryPolicy(p, spec.Linux.MemoryPolicy); err != nil {
		return nil, err
	}
	p.add(Step{Op: OpJoin, Why: "linux.namespaces", Flags: flags})
	if process.Terminal {
		p.add(console(process, ""))
	}
	return p, compileProcess(p, spec, process, host)
}

func title(spec *specs.Spec) string {
	if spec.Linux == nil || spec.Linux.CgroupsPath == "" {
		return "container"
	}
	return path.Base(spec.Linux.CgroupsPath)
}

func unsupported(field string) error {
	return fault.Unsupported("%s is not supported by this runtime", field)
}
