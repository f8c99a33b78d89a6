package spec

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/signal"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup/unit"
)

// Validate refuses, by name, what can't work or is not supported, and returns warnings. The config is the merged one.
func Validate(c *container.Config, h *container.HostConfig, host Host) (warnings []string, err error) {
	for _, check := range []func() error{
		func() error { return validateConfig(c) },
		func() error { return validateModes(h, host) },
		func() error { return validateLimits(h, host) },
		func() error { return validateSecurity(h, host, &warnings) },
		func() error { return validateMounts(h) },
		func() error { return refuse(c, h, host) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	if _, err := Log(h.LogConfig, ""); err != nil {
		return nil, err
	}
	w, err := ValidateResources(h.Resources, host)
	return append(warnings, w...), err
}

func validateConfig(c *container.Config) error {
	if len(Command(c)) == 0 {
		return fault.Invalid("no command specified")
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return fault.Invalid("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	for _, e := range c.Env {
		if name, _, _ := strings.Cut(e, "="); name == "" {
			return fault.Invalid("invalid environment variable: %s", e)
		}
		if strings.ContainsRune(e, 0) {
			return fault.Invalid("invalid environment variable: %q holds a null byte", e)
		}
	}
	if len(c.Hostname) > 63 {
		return fault.Invalid("invalid hostname format: %s", c.Hostname)
	}
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return fault.Invalid("%w", err)
		}
	}
	if c.StopTimeout != nil && *c.StopTimeout < -1 {
		return fault.Invalid("invalid stop timeout: %d", *c.StopTimeout)
	}
	if hc := c.Healthcheck; hc != nil {
		for _, d := range []struct {
			name  string
			value time.Duration
		}{{"Interval", hc.Interval}, {"Timeout", hc.Timeout}, {"StartPeriod", hc.StartPeriod}, {"StartInterval", hc.StartInterval}} {
			if d.value != 0 && d.value < container.MinimumDuration {
				return fault.Invalid("%s in Healthcheck cannot be less than %s", d.name, container.MinimumDuration)
			}
		}
		if hc.Retries < 0 {
			return fault.Invalid("Retries in Healthcheck cannot be negative")
		}
		if len(hc.Test) > 0 && !slices.Contains([]string{"", "NONE", "CMD", "CMD-SHELL"}, hc.Test[0]) {
			return fault.Invalid("unknown type of health check: %q", hc.Test[0])
		}
	}
	return nil
}

func validateModes(h *container.HostConfig, host Host) error {
	switch {
	case !h.PidMode.Valid():
		return fault.Invalid("invalid PID mode: %s", h.PidMode)
	case !h.IpcMode.Valid():
		return fault.Invalid("invalid IPC mode: %s", h.IpcMode)
	case !h.UTSMode.Valid():
		return fault.Invalid("invalid UTS mode: %s", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return fault.Invalid("invalid cgroup namespace mode: %s", h.CgroupnsMode)
	case h.UsernsMode != "" && h.UsernsMode != "host":
		return fault.Unsupported("user namespaces are not supported: --userns %s", h.UsernsMode)
	case h.Cgroup != "":
		return fault.Unsupported("the cgroup of another container cannot be joined: Cgroup %s", h.Cgroup)
	case !h.Isolation.IsDefault():
		return fault.Invalid("invalid isolation: Linux knows only the default, not %q", h.Isolation)
	case !host.runs(h.Runtime):
		return fault.Invalid("unknown or invalid runtime name: %s", h.Runtime)
	}
	if h.NetworkMode.IsContainer() {
		switch {
		case len(h.PortBindings) > 0 || h.PublishAllPorts:
			return fault.Invalid("conflicting options: port publishing and the container type network mode")
		case len(h.DNS) > 0 || len(h.DNSSearch) > 0 || len(h.DNSOptions) > 0:
			return fault.Invalid("conflicting options: dns and the network mode")
		case len(h.ExtraHosts) > 0:
			return fault.Invalid("conflicting options: custom host-to-IP mapping and the network mode")
		}
	}
	for _, e := range h.ExtraHosts {
		if name, address, ok := strings.Cut(strings.Replace(e, "=", ":", 1), ":"); !ok || name == "" || address == "" {
			return fault.Invalid("bad format for add-host: %q", e)
		}
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return fault.Invalid("%w", err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return fault.Invalid("can't create 'AutoRemove' container with restart policy")
	}
	for name := range h.Sysctls {
		switch {
		case strings.HasPrefix(name, "net."):
			if h.NetworkMode.IsHost() {
				return fault.Invalid("sysctl '%s' can't be set with the host's network namespace", name)
			}
		case strings.HasPrefix(name, "fs.mqueue."), strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"), name == "kernel.sem":
			if h.IpcMode.IsHost() {
				return fault.Invalid("sysctl '%s' can't be set with the host's IPC namespace", name)
			}
		case name == "kernel.domainname":
			if h.UTSMode.IsHost() {
				return fault.Invalid("sysctl '%s' can't be set with the host's UTS namespace", name)
			}
		default:
			return fault.Invalid("sysctl '%s' is not in a separate kernel namespace", name)
		}
	}
	return nil
}

func validateLimits(h *container.HostConfig, host Host) error {
	if h.ShmSize < 0 {
		return fault.Invalid("SHM size can not be less than 0")
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return fault.Invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	for _, u := range h.Ulimits {
		if !slices.Contains(ulimits, u.Name) {
			return fault.Invalid("invalid ulimit type: %s", u.Name)
		}
		if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			return fault.Invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	if len(h.DeviceRequests) > 0 {
		d := h.DeviceRequests[0]
		if d.Driver == "cdi" {
			return fault.Unsupported("CDI devices are not supported: %s", strings.Join(d.DeviceIDs, " "))
		}
		return fault.Unsupported("could not select device driver %q with capabilities: %v: GPU and other device requests are not supported, use --device", d.Driver, d.Capabilities)
	}
	for _, r := range h.DeviceCgroupRules {
		if _, err := parseDeviceRule(r); err != nil {
			return err
		}
	}
	for _, d := range h.Devices {
		if strings.Trim(d.CgroupPermissions, "rwm") != "" {
			return fault.Invalid("invalid device mode: %s", d.CgroupPermissions)
		}
	}
	return nil
}

var ulimits = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

// ValidateResources checks the limits that can also be updated.
func ValidateResources(r container.Resources, host Host) (warnings []string, err error) {
	switch {
	case r.Memory != 0 && r.Memory < 6<<20:
		return nil, fault.Invalid("Minimum memory limit allowed is 6MB")
	case r.Memory == 0 && r.MemorySwap > 0:
		return nil, fault.Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return nil, fault.Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.MemorySwap < -1:
		return nil, fault.Invalid("Invalid memory-swap value: %d", r.MemorySwap)
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return nil, fault.Invalid("Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation < 0 || (r.MemoryReservation > 0 && r.MemoryReservation < 6<<20):
		return nil, fault.Invalid("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return nil, fault.Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return nil, fault.Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return nil, fault.Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs < 0 || (host.CPUs > 0 && r.NanoCPUs > int64(host.CPUs)*1e9):
		return nil, fault.Invalid("range of CPUs is from 0.01 to %.2f, as there are only %d CPUs available", float64(host.CPUs), host.CPUs)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1_000_000):
		return nil, fault.Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return nil, fault.Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPUShares < 0:
		return nil, fault.Invalid("CPU shares can not be negative: %d", r.CPUShares)
	case r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return nil, fault.Invalid("Range of blkio weight is from 10 to 1000")
	case r.CPUCount != 0 || r.CPUPercent != 0 || r.IOMaximumIOps != 0 || r.IOMaximumBandwidth != 0:
		return nil, fault.Invalid("CpuCount, CpuPercent, IOMaximumIOps and IOMaximumBandwidth exist on Windows only")
	}
	if err := validateSet(r.CpusetCpus, host.OnlineCPUs, "cpus", "CPUs"); err != nil {
		return nil, err
	}
	if err := validateSet(r.CpusetMems, host.OnlineNodes, "mems", "memory nodes"); err != nil {
		return nil, err
	}
	if r.Memory > 0 && r.MemorySwap != r.Memory*2 && r.MemorySwap != 0 && !host.SwapLimit {
		warnings = append(warnings, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
		warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	return warnings, nil
}

func validateSecurity(h *container.HostConfig, host Host, warnings *[]string) error {
	if _, err := Capabilities(h.CapAdd, h.CapDrop, h.Privileged, host); err != nil {
		return err
	}
	o, err := parseSecurityOpt(h.SecurityOpt)
	if err != nil {
		return err
	}
	if o.apparmor != "" && o.apparmor != "unconfined" && !host.AppArmor {
		*warnings = append(*warnings, "The kernel has no AppArmor: the profile "+o.apparmor+" was ignored.")
	}
	if o.label {
		*warnings = append(*warnings, "SELinux labels are not applied: --security-opt label was ignored.")
	}
	return nil
}

func validateMounts(h *container.HostConfig) error {
	seen := map[string]bool{}
	claim := func(dst string) error {
		dst = path.Clean(dst)
		if seen[dst] {
			return fault.Invalid("Duplicate mount point: %s", dst)
		}
		seen[dst] = true
		return nil
	}
	for _, s := range h.Binds {
		b, err := ParseBind(s)
		if err != nil {
			return err
		}
		if err := claim(b.Destination); err != nil {
			return err
		}
	}
	for _, m := range h.Mounts {
		if err := validateMount(m); err != nil {
			return err
		}
		if err := claim(m.Target); err != nil {
			return err
		}
	}
	for dst, data := range h.Tmpfs {
		if !path.IsAbs(dst) || path.Clean(dst) == "/" {
			return fault.Invalid("invalid mount path: '%s' mount path must be absolute", dst)
		}
		if _, err := ParseTmpfs(data); err != nil {
			return err
		}
		if err := claim(dst); err != nil {
			return err
		}
	}
	return nil
}

func validateMount(m mount.Mount) error {
	bad := func(why string) error {
		return fault.Invalid("invalid mount config for type %q: %s", m.Type, why)
	}
	if m.Target == "" {
		return bad("field Target must not be empty")
	}
	if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
		return bad("invalid mount path: '" + m.Target + "' mount path must be absolute and not '/'")
	}
	switch m.Type {
	case mount.TypeBind:
		switch {
		case m.Source == "":
			return bad("field Source must not be empty")
		case !path.IsAbs(m.Source):
			return bad("invalid mount path: '" + m.Source + "' mount path must be absolute")
		case m.VolumeOptions != nil:
			return bad("field VolumeOptions must not be specified")
		case m.TmpfsOptions != nil:
			return bad("field TmpfsOptions must not be specified")
		}
		if o := m.BindOptions; o != nil {
			if o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation) {
				return bad("invalid propagation mode: " + string(o.Propagation))
			}
			if !m.ReadOnly && (o.ReadOnlyNonRecursive || o.ReadOnlyForceRecursive) {
				return bad("ReadOnlyNonRecursive and ReadOnlyForceRecursive want ReadOnly")
			}
		}
	case mount.TypeVolume:
		switch {
		case m.BindOptions != nil:
			return bad("field BindOptions must not be specified")
		case m.TmpfsOptions != nil:
			return bad("field TmpfsOptions must not be specified")
		case m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" && !filepath.IsLocal(m.VolumeOptions.Subpath):
			return bad("subpath must be a relative path within the volume: " + m.VolumeOptions.Subpath)
		case m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" && m.Source == "":
			return bad("must not set Subpath when using anonymous volumes")
		case m.Source == "" && m.ReadOnly:
			return bad("must not set ReadOnly mode when using anonymous volumes")
		}
	case mount.TypeTmpfs:
		switch {
		case m.Source != "":
			return bad("field Source must not be specified")
		case m.BindOptions != nil:
			return bad("field BindOptions must not be specified")
		case m.VolumeOptions != nil:
			return bad("field VolumeOptions must not be specified")
		}
		_, err := TmpfsOptions(m.TmpfsOptions)
		return err
	case mount.TypeImage:
		return fault.Unsupported("mounts of type image are not supported: %s", m.Target)
	default:
		return fault.Invalid("mount type unknown: %q", m.Type)
	}
	return nil
}

// refuse names what Tare does not do.
func refuse(c *container.Config, h *container.HostConfig, host Host) error {
	switch {
	case len(h.StorageOpt) > 0:
		return fault.Unsupported("--storage-opt is not supported")
	case h.VolumeDriver != "" && h.VolumeDriver != "local":
		return fault.Invalid("error looking up volume plugin %s: plugin %q not found", h.VolumeDriver, h.VolumeDriver)
	case host.Systemd && h.CgroupParent != "" && !unit.IsSlice(h.CgroupParent):
		return fault.Invalid("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	case !host.Systemd && h.CgroupParent != "" && (strings.HasSuffix(h.CgroupParent, ".slice") || slices.Contains(strings.Split(h.CgroupParent, "/"), "..")):
		return fault.Invalid("cgroup-parent %q is not a plain cgroupfs path", h.CgroupParent)
	}
	return nil
}

// OwnRuntime tells whether a runtime's name, "" or one that Docker's users give, means tare-run.
func OwnRuntime(name string) bool {
	switch name {
	case "", "tare", "tare-run", "runc", "io.containerd.runc.v2":
		return true
	}
	return false
}

func (h Host) runs(name string) bool {
	_, ok := h.Runtimes[name]
	return ok || OwnRuntime(name)
}
