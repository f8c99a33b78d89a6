package spec

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/runtime/defaults"
)

// allCapabilities are those of Linux 6.x, by number (capability.h).
var allCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// CapabilityNames turns the bits of a set, as /proc/<pid>/status shows it, into names.
func CapabilityNames(bits uint64) []string {
	var out []string
	for i, name := range allCapabilities {
		if bits&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// capName normalises "net_admin" and "CAP_NET_ADMIN"; "ALL" stays.
func capName(s string) (string, error) {
	name := strings.ToUpper(s)
	if name == "ALL" || name == "CAP_ALL" {
		return "ALL", nil
	}
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	if !slices.Contains(allCapabilities, name) {
		return "", fault.Invalid("invalid capability: %q", s)
	}
	return name, nil
}

// Capabilities are those of a container with these wishes, sorted by number.
func Capabilities(add, drop []string, privileged bool, host Host) ([]string, error) {
	available := host.Capabilities
	if available == nil {
		available = allCapabilities
	}
	if privileged {
		return slices.Clone(available), nil
	}
	names := func(list []string) (out []string, all bool, err error) {
		for _, s := range list {
			name, err := capName(s)
			if err != nil {
				return nil, false, err
			}
			if name == "ALL" {
				all = true
			}
			out = append(out, name)
		}
		return out, all, nil
	}
	adds, addAll, err := names(add)
	if err != nil {
		return nil, err
	}
	drops, dropAll, err := names(drop)
	if err != nil {
		return nil, err
	}
	base := defaults.Capabilities()
	var out []string
	for _, name := range allCapabilities {
		var in bool
		switch {
		case addAll && dropAll: // as Docker: add ALL wins over drop ALL, single drops don't matter
			in = true
		case addAll:
			in = !slices.Contains(drops, name)
		case dropAll:
			in = slices.Contains(adds, name)
		default:
			in = (slices.Contains(base, name) || slices.Contains(adds, name)) && !slices.Contains(drops, name)
		}
		if in && slices.Contains(available, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// options are the parsed --security-opt.
type options struct {
	noNewPrivileges bool
	seccomp         string // "", "unconfined", or a profile's JSON
	apparmor        string
	label           bool // some SELinux label was asked for
	writableCgroups bool
}

func parseSecurityOpt(list []string) (options, error) {
	var o options
	for _, s := range list {
		if s == "no-new-privileges" {
			o.noNewPrivileges = true
			continue
		}
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			key, value, ok = strings.Cut(s, ":")
		}
		if !ok {
			return o, fault.Invalid("invalid --security-opt 1: %q", s)
		}
		switch key {
		case "no-new-privileges", "writable-cgroups":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return o, fault.Invalid("invalid --security-opt 2: %q", s)
			}
			if key == "no-new-privileges" {
				o.noNewPrivileges = b
			} else {
				o.writableCgroups = b
			}
		case "seccomp":
			if value != "builtin" {
				o.seccomp = value
			}
		case "apparmor":
			o.apparmor = value
		case "label":
			o.label = value != "disable"
		default:
			return o, fault.Invalid("invalid --security-opt 2: %q", s)
		}
	}
	return o, nil
}

func writableCgroups(h *container.HostConfig) bool {
	o, err := parseSecurityOpt(h.SecurityOpt)
	return err == nil && o.writableCgroups
}

func buildSecurity(s *specs.Spec, in Input) error {
	host := in.HostConfig
	opts, err := parseSecurityOpt(host.SecurityOpt)
	if err != nil {
		return err
	}
	caps, err := Capabilities(host.CapAdd, host.CapDrop, host.Privileged, in.Host)
	if err != nil {
		return err
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	if in.User.UID != 0 {
		// A user without id 0 keeps none over execve; the kernel clears them in any case.
		s.Process.Capabilities.Permitted, s.Process.Capabilities.Effective = nil, nil
	}
	s.Process.NoNewPrivileges = opts.noNewPrivileges
	if in.Host.AppArmor && opts.apparmor != "" && opts.apparmor != "unconfined" {
		s.Process.ApparmorProfile = opts.apparmor
	}
	if host.MaskedPaths != nil {
		s.Linux.MaskedPaths = host.MaskedPaths
	}
	if host.ReadonlyPaths != nil {
		s.Linux.ReadonlyPaths = host.ReadonlyPaths
	}
	if host.Privileged {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	}
	switch {
	case opts.seccomp == "unconfined", host.Privileged && opts.seccomp == "":
		s.Linux.Seccomp = nil
	case opts.seccomp != "":
		s.Linux.Seccomp, err = seccomp.LoadProfile(opts.seccomp, s)
		if err != nil {
			return fault.Invalid("invalid seccomp profile in --security-opt: %w", err)
		}
	default:
		s.Linux.Seccomp, err = defaults.Seccomp(caps)
	}
	return err
}

func buildDevices(s *specs.Spec, in Input) error {
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	rules := s.Linux.Resources.Devices
	if in.HostConfig.Privileged {
		s.Linux.Devices = append(s.Linux.Devices, missing(s.Linux.Devices, in.Host.Devices)...)
		rules = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	for _, d := range in.Devices {
		s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(o specs.LinuxDevice) bool { return o.Path == d.Node.Path })
		s.Linux.Devices = append(s.Linux.Devices, d.Node)
		if !in.HostConfig.Privileged {
			rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Node.Type, Major: &d.Node.Major, Minor: &d.Node.Minor, Access: d.Access})
		}
	}
	for _, r := range in.HostConfig.DeviceCgroupRules {
		rule, err := parseDeviceRule(r)
		if err != nil {
			return err
		}
		rules = append(rules, rule)
	}
	s.Linux.Resources.Devices = rules
	return nil
}

func missing(have, more []specs.LinuxDevice) []specs.LinuxDevice {
	return slices.DeleteFunc(slices.Clone(more), func(d specs.LinuxDevice) bool {
		return slices.ContainsFunc(have, func(h specs.LinuxDevice) bool { return h.Path == d.Path })
	})
}

var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

func parseDeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	m := deviceRule.FindStringSubmatch(s)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, fault.Invalid("invalid device cgroup rule format: '%s'", s)
	}
	rule := specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Access: m[4]}
	number := func(s string) (*int64, error) {
		if s == "*" {
			return nil, nil
		}
		n, err := strconv.ParseInt(s, 10, 32)
		return &n, err
	}
	var err error
	if rule.Major, err = number(m[2]); err != nil {
		return rule, fault.Invalid("invalid major value in device cgroup rule format: '%s'", s)
	}
	if rule.Minor, err = number(m[3]); err != nil {
		return rule, fault.Invalid("invalid minor value in device cgroup rule format: '%s'", s)
	}
	return rule, nil
}
