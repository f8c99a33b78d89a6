// Package spec turns what a person asked for (Config and HostConfig of the
// Engine API) into an OCI runtime spec. It is pure: it opens no file and looks
// at no clock; what has to be known of the host, of the image and of other
// containers stands in Input.
//
// Three functions are called in this order:
//
//	Merge     the image's config under the container's
//	Validate  refuses what can't work, by the field's name; returns warnings
//	Build     the OCI spec
//
// Every field of Config and HostConfig is honoured or refused; testdata has one
// golden file per flag of `docker run`, holding the difference to the default spec.
package spec

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup/unit"
	"tare/internal/runtime/defaults"
)

// Input is all that a spec depends on.
type Input struct {
	ID         string
	Config     *container.Config // merged with the image's
	HostConfig *container.HostConfig
	User       User
	Mounts     []Mount // binds, volumes and tmpfs, as resolved by the engine
	Files      Files
	Join       Join
	Devices    []Device // of HostConfig.Devices, as found on the host
	Block      map[string]Number
	Host       Host
	// CgroupParent is used where HostConfig has none, such as "/tare/main".
	CgroupParent string
	// Ulimits are the engine's defaults, by name.
	Ulimits map[string]*container.Ulimit
	// Init is the program on the host that becomes /sbin/docker-init when HostConfig.Init asks for it.
	Init string
}

// User is the process's user by number, with the home folder that its passwd entry has.
type User struct {
	UID, GID uint32
	Groups   []uint32 // all groups, GID among them
	Home     string
}

// Files are host paths to mount over /etc/hosts and its like; "" mounts nothing.
type Files struct{ Hosts, Hostname, ResolvConf string }

// Join are paths of namespaces to join instead of making them; "" makes a new one.
type Join struct {
	Network, PID, IPC string
	Shm               string // host folder to mount as /dev/shm, of a shareable IPC namespace
}

// Host is what matters of the machine.
type Host struct {
	Capabilities []string // in the engine's bounding set; nil: all
	Devices      []specs.LinuxDevice
	AppArmor     bool
	SwapLimit    bool // memory+swap can be limited
	Systemd      bool // cgroups are its scopes, their parents slices
	CPUs         int
	OnlineCPUs   string                     // as a list, "0-3"; "" if unknown
	OnlineNodes  string                     // of memory
	Runtimes     map[string]runtime.Foreign // besides our own
	Masked       []string                   // paths to mask besides the defaults
}

// Device is one node for the container, with its cgroup permissions.
type Device struct {
	Node   specs.LinuxDevice
	Access string // of "rwm"
}

// Number is a block device's number.
type Number struct{ Major, Minor int64 }

// Build makes the spec. Its input passed Validate.
func Build(in Input) (*specs.Spec, error) {
	s := defaults.Spec()
	s.Root = &specs.Root{Path: "rootfs", Readonly: in.HostConfig.ReadonlyRootfs}
	s.Annotations = maps.Clone(in.HostConfig.Annotations)
	if err := buildProcess(s, in); err != nil {
		return nil, err
	}
	buildNamespaces(s, in)
	if err := buildMounts(s, in); err != nil {
		return nil, err
	}
	if err := buildSecurity(s, in); err != nil {
		return nil, err
	}
	if err := buildDevices(s, in); err != nil {
		return nil, err
	}
	parent := in.HostConfig.CgroupParent
	if parent == "" {
		parent = in.CgroupParent
	}
	s.Linux.CgroupsPath = unit.PathIn(parent, in.ID)
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	limits := Resources(in.HostConfig.Resources, in.Host, in.Block)
	s.Linux.Resources.Memory = limits.Memory
	s.Linux.Resources.CPU = limits.CPU
	s.Linux.Resources.Pids = limits.Pids
	s.Linux.Resources.BlockIO = limits.BlockIO
	return s, nil
}

// Command is the program and its arguments: entrypoint, then command.
func Command(c *container.Config) []string {
	entry := c.Entrypoint
	if len(entry) == 1 && entry[0] == "" { // --entrypoint "" resets the image's
		entry = nil
	}
	return slices.Concat(entry, c.Cmd)
}

// Hostname is the container's: its own, or the first digits of its id.
func Hostname(c *container.Config, id string) string {
	if c.Hostname != "" {
		return c.Hostname
	}
	return ids.Short(id)
}

func buildNamespaces(s *specs.Spec, in Input) {
	host := in.HostConfig
	keep := func(t specs.LinuxNamespaceType, asHost bool, path string) {
		i := slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
		switch {
		case asHost && i >= 0:
			s.Linux.Namespaces = slices.Delete(s.Linux.Namespaces, i, i+1)
		case asHost:
		case i < 0:
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
		default:
			s.Linux.Namespaces[i].Path = path
		}
	}
	keep(specs.PIDNamespace, host.PidMode.IsHost(), in.Join.PID)
	keep(specs.IPCNamespace, host.IpcMode.IsHost(), in.Join.IPC)
	keep(specs.UTSNamespace, host.UTSMode.IsHost(), "")
	keep(specs.NetworkNamespace, host.NetworkMode.IsHost(), in.Join.Network)
	keep(specs.CgroupNamespace, host.CgroupnsMode.IsHost(), "")

	if !host.UTSMode.IsHost() {
		s.Hostname = Hostname(in.Config, in.ID)
		s.Domainname = in.Config.Domainname
	}
	sysctls := map[string]string{}
	if !host.NetworkMode.IsHost() && !host.NetworkMode.IsContainer() {
		// Docker's defaults since 20.10: any user may bind low ports and ping.
		sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
		sysctls["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	maps.Copy(sysctls, host.Sysctls)
	if len(sysctls) > 0 {
		s.Linux.Sysctl = sysctls
	}
}

func buildProcess(s *specs.Spec, in Input) error {
	if s.Process == nil {
		s.Process = &specs.Process{}
	}
	p, config := s.Process, in.Config
	args := Command(config)
	if len(args) == 0 {
		return fault.Invalid("no command specified")
	}
	if wantsInit(in.HostConfig) {
		args = append([]string{initPath, "--"}, args...)
	}
	p.Args = args
	p.Cwd = config.WorkingDir
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	p.Terminal = config.Tty
	if size := in.HostConfig.ConsoleSize; config.Tty && size[0] > 0 && size[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	p.User = specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: in.User.Groups, Umask: in.HostConfig.Umask}
	p.Env = environment(in)
	if adj := in.HostConfig.OomScoreAdj; adj != 0 {
		p.OOMScoreAdj = &adj
	}
	limits := maps.Clone(in.Ulimits)
	if limits == nil {
		limits = map[string]*container.Ulimit{}
	}
	for _, u := range in.HostConfig.Ulimits {
		limits[u.Name] = u
	}
	p.Rlimits = nil
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		u := limits[name]
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Hard: uint64(u.Hard), Soft: uint64(u.Soft)})
	}
	return nil
}

// defaultPath is what Docker sets where neither image nor person did.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func environment(in Input) []string {
	base := []string{"PATH=" + defaultPath}
	if !in.HostConfig.UTSMode.IsHost() || in.Config.Hostname != "" {
		base = append(base, "HOSTNAME="+Hostname(in.Config, in.ID))
	}
	if in.Config.Tty {
		base = append(base, "TERM=xterm")
	}
	env := ReplaceEnv(base, in.Config.Env)
	return WithHome(env, in.User.Home)
}

// WithHome adds HOME where it is missing or empty.
func WithHome(env []string, home string) []string {
	if home == "" {
		home = "/"
	}
	for i, e := range env {
		if e == "HOME=" {
			env[i] = "HOME=" + home
			return env
		}
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(env, "HOME="+home)
}

// ReplaceEnv puts over's variables above base's, keeping order; an entry of over without "=" removes the variable.
func ReplaceEnv(base, over []string) []string {
	out := slices.Clone(base)
	for _, e := range over {
		name, _, hasValue := strings.Cut(e, "=")
		i := slices.IndexFunc(out, func(o string) bool { n, _, _ := strings.Cut(o, "="); return n == name })
		switch {
		case !hasValue && i >= 0:
			out = slices.Delete(out, i, i+1)
		case !hasValue:
		case i >= 0:
			out[i] = e
		default:
			out = append(out, e)
		}
	}
	return out
}

// DefaultPaths are the masked and the read-only paths of a container that does not choose its own.
func DefaultPaths() (masked, readonly []string) {
	s := defaults.Spec()
	return s.Linux.MaskedPaths, s.Linux.ReadonlyPaths
}

// HasHealthcheck tells whether the container is probed.
func HasHealthcheck(c *container.Config) bool {
	h := c.Healthcheck
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" && h.Test[0] != ""
}
