package spec

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// Mount is one mount of the container, resolved: Source is a host path (empty for tmpfs).
type Mount struct {
	Type        mount.Type
	Source      string
	Destination string
	ReadOnly    bool
	// ReadOnlyTop makes only the mount itself read-only, not those below it.
	ReadOnlyTop  bool
	NonRecursive bool
	Propagation  mount.Propagation
	Options      []string // of a tmpfs, or of a volume's own file system
	FSType       string   // of a volume with a file system of its own, else ""
	Subpath      string   // what of Source is mounted, resolved inside it; "": all
}

// initPath is where --init's program appears in the container, as in Docker.
const initPath = "/sbin/docker-init"

func wantsInit(h *container.HostConfig) bool { return h.Init != nil && *h.Init }

// defaultShm is the size of /dev/shm in bytes.
const defaultShm = 64 << 20

func buildMounts(s *specs.Spec, in Input) error {
	host := in.HostConfig
	var all []specs.Mount
	taken := map[string]bool{}
	for _, m := range in.Mounts {
		taken[path.Clean(m.Destination)] = true
	}
	for _, m := range s.Mounts {
		if taken[path.Clean(m.Destination)] {
			continue // the person's mount takes the default's place
		}
		if m.Destination == "/dev/shm" {
			if host.IpcMode.IsNone() {
				continue
			}
			m = shm(m, in)
		}
		all = append(all, m)
	}
	if host.Privileged || writableCgroups(host) {
		for i, m := range all {
			if m.Type == "cgroup" || (host.Privileged && m.Type == "sysfs") {
				all[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
			}
		}
	}
	var own []specs.Mount
	for _, m := range in.Mounts {
		o, err := ownMount(m)
		if err != nil {
			return err
		}
		own = append(own, o)
	}
	for _, f := range []struct{ source, target string }{
		{in.Files.ResolvConf, "/etc/resolv.conf"}, {in.Files.Hostname, "/etc/hostname"}, {in.Files.Hosts, "/etc/hosts"},
	} {
		if f.source != "" && !taken[f.target] {
			own = append(own, bind(f.source, f.target, host.ReadonlyRootfs))
		}
	}
	if wantsInit(host) {
		own = append(own, bind(in.Init, initPath, true))
	}
	// A mount comes after those that it lies in.
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return cmp.Compare(depth(a.Destination), depth(b.Destination))
	})
	s.Mounts = append(all, own...)
	for _, m := range in.Mounts {
		switch {
		case m.Propagation == mount.PropagationShared || m.Propagation == mount.PropagationRShared:
			s.Linux.RootfsPropagation = "shared"
		case (m.Propagation == mount.PropagationSlave || m.Propagation == mount.PropagationRSlave) && s.Linux.RootfsPropagation != "shared":
			s.Linux.RootfsPropagation = "rslave"
		}
	}
	return nil
}

func depth(p string) int {
	p = path.Clean(p)
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

func bind(source, target string, readOnly bool) specs.Mount {
	options := []string{"rbind", "rprivate"}
	if readOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: options}
}

func shm(m specs.Mount, in Input) specs.Mount {
	switch {
	case in.HostConfig.IpcMode.IsHost():
		return bind("/dev/shm", "/dev/shm", false)
	case in.Join.Shm != "":
		return bind(in.Join.Shm, "/dev/shm", false)
	}
	size := in.HostConfig.ShmSize
	if size == 0 {
		size = defaultShm
	}
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "size=") })
	m.Options = append(m.Options, "size="+strconv.FormatInt(size, 10))
	return m
}

func ownMount(m Mount) (specs.Mount, error) {
	switch m.Type {
	case mount.TypeTmpfs:
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: tmpfsOptions(m)}, nil
	case mount.TypeBind, mount.TypeVolume:
		if m.FSType != "" {
			o := slices.Clone(m.Options)
			if m.ReadOnly {
				o = append(o, "ro")
			}
			return specs.Mount{Destination: m.Destination, Type: m.FSType, Source: m.Source, Options: o}, nil
		}
		options := []string{"rbind"}
		if m.NonRecursive {
			options[0] = "bind"
		}
		if m.ReadOnly {
			if m.ReadOnlyTop || m.NonRecursive || m.Type == mount.TypeVolume {
				options = append(options, "ro")
			} else {
				options = append(options, "rro")
			}
		}
		if m.Subpath != "" {
			options = append(options, "subpath="+m.Subpath)
		}
		p := m.Propagation
		if p == "" {
			p = mount.PropagationRPrivate
		}
		return specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: append(options, string(p))}, nil
	}
	return specs.Mount{}, fault.Unsupported("mounts of type %q are not supported", m.Type)
}

// tmpfsFlags are accepted as they are; key=value options by their key.
var (
	tmpfsFlags = []string{"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "remount", "mand", "nomand",
		"atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared",
		"slave", "rslave", "relatime", "norelatime", "strictatime", "nostrictatime"}
	tmpfsKeys = []string{"mode", "uid", "gid", "nr_inodes", "nr_blocks", "size", "mpol"}
)

func tmpfsOptions(m Mount) []string {
	options := []string{"noexec", "nosuid", "nodev"}
	opposite := map[string]string{"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
	for _, o := range m.Options {
		if no, ok := opposite[o]; ok {
			options = slices.DeleteFunc(options, func(s string) bool { return s == no })
		}
		if !slices.Contains(options, o) {
			options = append(options, o)
		}
	}
	if m.ReadOnly && !slices.Contains(options, "ro") {
		options = append(options, "ro")
	}
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "mode=") }) {
		options = append(options, "mode=1777")
	}
	return append(options, "rprivate")
}

// ParseTmpfs checks --tmpfs's option string ("rw,size=64m,mode=1777") and splits it.
func ParseTmpfs(data string) ([]string, error) {
	var out []string
	for o := range strings.SplitSeq(data, ",") {
		if o == "" {
			continue
		}
		key, _, hasValue := strings.Cut(o, "=")
		if (hasValue && !slices.Contains(tmpfsKeys, key)) || (!hasValue && !slices.Contains(tmpfsFlags, o)) {
			return nil, fault.Invalid("invalid tmpfs option %q", o)
		}
		out = append(out, o)
	}
	return out, nil
}

// TmpfsOptions turns --mount type=tmpfs's options into mount options.
func TmpfsOptions(o *mount.TmpfsOptions) ([]string, error) {
	if o == nil {
		return nil, nil
	}
	var out []string
	if o.SizeBytes < 0 {
		return nil, fault.Invalid("invalid mount config for type \"tmpfs\": size must not be negative")
	}
	if o.SizeBytes > 0 {
		out = append(out, fmt.Sprintf("size=%d", o.SizeBytes))
	}
	if o.Mode != 0 {
		out = append(out, fmt.Sprintf("mode=%o", uint32(o.Mode)))
	}
	for _, kv := range o.Options {
		joined := strings.Join(kv, "=")
		if _, err := ParseTmpfs(joined); err != nil || len(kv) == 0 || len(kv) > 2 || strings.Contains(joined, ",") {
			return nil, fault.Invalid("invalid mount config for type \"tmpfs\": invalid option %q", joined)
		}
		out = append(out, joined)
	}
	return out, nil
}

// Bind is one -v "source:destination:mode".
type Bind struct {
	Source      string // a host path, a volume's name, or "" for an anonymous volume
	Destination string
	Mode        string // as written
	ReadOnly    bool
	NoCopy      bool
	Propagation mount.Propagation
}

// IsPath tells whether the source is a host path rather than a volume's name.
func (b Bind) IsPath() bool { return strings.HasPrefix(b.Source, "/") }

// isMode tells whether s, after "/path:", is a mode rather than a destination.
func isMode(s string) bool {
	for o := range strings.SplitSeq(s, ",") {
		if !slices.Contains(bindModes, o) && !slices.Contains(mount.Propagations, mount.Propagation(o)) {
			return false
		}
	}
	return true
}

var bindModes = []string{"", "rw", "ro", "z", "Z", "consistent", "cached", "delegated", "nocopy"}

// ParseBind reads one element of HostConfig.Binds.
func ParseBind(s string) (Bind, error) {
	bad := func() (Bind, error) { return Bind{}, fault.Invalid("invalid volume specification: '%s'", s) }
	parts := strings.Split(s, ":")
	var b Bind
	switch len(parts) {
	case 1:
		b.Destination = parts[0]
	case 2:
		b.Source, b.Destination = parts[0], parts[1]
		if !strings.HasPrefix(b.Destination, "/") && strings.HasPrefix(b.Source, "/") && isMode(b.Destination) {
			b.Source, b.Destination, b.Mode = "", parts[0], parts[1]
		}
	case 3:
		b.Source, b.Destination, b.Mode = parts[0], parts[1], parts[2]
	default:
		return bad()
	}
	if b.Source == "" && len(parts) > 1 && b.Mode == "" || !strings.HasPrefix(b.Destination, "/") {
		if !strings.HasPrefix(b.Destination, "/") && b.Destination != "" {
			return Bind{}, fault.Invalid("invalid volume specification: '%s': invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", s, b.Destination)
		}
		return bad()
	}
	b.Destination = path.Clean(b.Destination)
	if b.Destination == "/" {
		return Bind{}, fault.Invalid("invalid volume specification: '%s': invalid specification: destination can't be '/'", s)
	}
	if b.IsPath() {
		b.Source = path.Clean(b.Source)
	} else if strings.HasPrefix(b.Source, ".") || strings.HasPrefix(b.Source, "~") {
		return Bind{}, fault.Invalid("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", b.Source, b.Source)
	}
	for o := range strings.SplitSeq(b.Mode, ",") {
		switch o {
		case "", "rw", "z", "Z", "consistent", "cached", "delegated":
		case "ro":
			b.ReadOnly = true
		case "nocopy":
			if b.IsPath() {
				return Bind{}, fault.Invalid("invalid mode: %s", b.Mode)
			}
			b.NoCopy = true
		default:
			if !slices.Contains(mount.Propagations, mount.Propagation(o)) || !b.IsPath() {
				return Bind{}, fault.Invalid("invalid mode: %s", b.Mode)
			}
			b.Propagation = mount.Propagation(o)
		}
	}
	return b, nil
}
