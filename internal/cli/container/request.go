package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"tare/internal/cli/command"
)

// request makes the create request of the flags and what follows them: image, command.
// Errors name the flag. It reads env, label and seccomp files, nothing else.
func (f *flags) request(fs *pflag.FlagSet, args []string) (client.ContainerCreateOptions, error) {
	var none client.ContainerCreateOptions
	config, err := f.config(fs, args)
	if err != nil {
		return none, err
	}
	host, err := f.hostConfig(fs)
	if err != nil {
		return none, err
	}
	ports, exposed, err := parsePorts(f.publish, f.expose)
	if err != nil {
		return none, err
	}
	host.PortBindings, config.ExposedPorts = ports, exposed
	if _, err := reference.ParseAnyReference(config.Image); err != nil {
		return none, err
	}
	if err := f.volumeFlags(config, host); err != nil {
		return none, err
	}
	networking, mode, err := f.networking()
	if err != nil {
		return none, err
	}
	host.NetworkMode = mode
	o := client.ContainerCreateOptions{Name: f.name, Config: config, HostConfig: host, NetworkingConfig: networking}
	if f.platform != "" {
		p, err := command.ParsePlatform(f.platform)
		if err != nil {
			return none, err
		}
		o.Platform = p
	}
	return o, nil
}

func (f *flags) config(fs *pflag.FlagSet, args []string) (*container.Config, error) {
	c := &container.Config{
		Hostname: f.hostname, Domainname: f.domainname, User: f.user, WorkingDir: f.workdir,
		Tty: f.tty, OpenStdin: f.interactive, StopSignal: f.stopSignal, Image: args[0], Cmd: args[1:],
	}
	if len(c.Cmd) == 0 {
		c.Cmd = nil
	}
	if fs.Changed("entrypoint") {
		c.Entrypoint = []string{f.entrypoint} // [""] clears the image's
	}
	if fs.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	var err error
	if c.Env, err = environment(f.env, f.envFile); err != nil {
		return nil, err
	}
	labels, err := linesOf(f.labelFile, nil)
	if err != nil {
		return nil, err
	}
	c.Labels = command.KeyValues(append(labels, f.labels...))
	f.streams(c)
	c.Healthcheck, err = f.health(fs)
	return c, err
}

// streams sets which of the container's streams the client is attached to.
func (f *flags) streams(c *container.Config) {
	if len(f.attach) == 0 {
		c.AttachStdout, c.AttachStderr, c.AttachStdin = true, true, f.interactive
	}
	for _, s := range f.attach {
		switch strings.ToLower(s) {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		default:
			c.AttachStderr = true
		}
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin
}

func (f *flags) health(fs *pflag.FlagSet) (*container.HealthConfig, error) {
	set := f.healthCmd != "" || f.healthInterval != 0 || f.healthTimeout != 0 || f.healthStartPeriod != 0 || f.healthStartInterval != 0 || f.healthRetries != 0
	if f.noHealthcheck {
		if set {
			return nil, errors.New("--no-healthcheck conflicts with --health-* options")
		}
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if !set {
		return nil, nil
	}
	if f.healthRetries < 0 {
		return nil, errors.New("--health-retries cannot be negative")
	}
	h := &container.HealthConfig{
		Retries: f.healthRetries, Interval: f.healthInterval, Timeout: f.healthTimeout,
		StartPeriod: f.healthStartPeriod, StartInterval: f.healthStartInterval,
	}
	if f.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	for flag, d := range map[string]time.Duration{
		"health-interval": h.Interval, "health-timeout": h.Timeout, "health-start-period": h.StartPeriod, "health-start-interval": h.StartInterval,
	} {
		if d < 0 {
			return nil, fmt.Errorf("--%s cannot be negative", flag)
		}
	}
	return h, nil
}

func (f *flags) hostConfig(fs *pflag.FlagSet) (*container.HostConfig, error) {
	h := &container.HostConfig{
		ContainerIDFile: f.cidfile, AutoRemove: f.rm, Privileged: f.privileged, PublishAllPorts: f.publishAll,
		ReadonlyRootfs: f.readOnly, CapAdd: f.capAdd, CapDrop: f.capDrop, GroupAdd: f.groupAdd, OomScoreAdj: f.oomScoreAdj,
		PidMode: container.PidMode(f.pid), IpcMode: container.IpcMode(f.ipc), UTSMode: container.UTSMode(f.uts),
		UsernsMode: container.UsernsMode(f.userns), CgroupnsMode: container.CgroupnsMode(f.cgroupns),
		Links: f.links, DNSSearch: f.dnsSearch, DNSOptions: f.dnsOptions, ShmSize: int64(f.shmSize), Runtime: f.runtime,
		Isolation: container.Isolation(f.isolation), VolumesFrom: f.volumesFrom, VolumeDriver: f.volumeDriver,
		LogConfig: container.LogConfig{Type: f.logDriver, Config: command.KeyValues(f.logOpts)}, Annotations: command.KeyValues(f.annotations),
		Sysctls: command.KeyValues(f.sysctls), StorageOpt: command.KeyValues(f.storageOpts),
		Resources: container.Resources{
			CgroupParent: f.cgroupParent, Memory: int64(f.memory), MemorySwap: int64(f.memorySwap), MemoryReservation: int64(f.memoryReservation),
			CPUShares: f.cpuShares, CPUPeriod: f.cpuPeriod, CPUQuota: f.cpuQuota, CPURealtimePeriod: f.cpuRTPeriod, CPURealtimeRuntime: f.cpuRTRuntime,
			CpusetCpus: f.cpusetCpus, CpusetMems: f.cpusetMems, BlkioWeight: f.blkioWeight, DeviceCgroupRules: f.deviceRules,
		},
	}
	if fs.Changed("init") {
		h.Init = &f.init
	}
	if fs.Changed("oom-kill-disable") {
		h.OomKillDisable = &f.oomDisable
	}
	if fs.Changed("memory-swappiness") {
		h.MemorySwappiness = &f.memorySwappiness
	}
	if fs.Changed("pids-limit") {
		h.PidsLimit = &f.pidsLimit
	}
	var err error
	if h.RestartPolicy, err = ParseRestart(f.restart); err != nil {
		return nil, err
	}
	if f.rm && !h.RestartPolicy.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	h.NanoCPUs = int64(f.cpus)
	if err := f.namespaces(h); err != nil {
		return nil, err
	}
	if h.SecurityOpt, err = securityOptions(f.securityOpt); err != nil {
		return nil, err
	}
	for _, d := range f.dns {
		h.DNS = append(h.DNS, netip.MustParseAddr(d)) // checked when it was set
	}
	for _, e := range f.addHost {
		host, _ := parseHost(e)
		h.ExtraHosts = append(h.ExtraHosts, host)
	}
	for _, d := range f.devices {
		m, err := parseDevice(d)
		if err != nil {
			return nil, err
		}
		h.Devices = append(h.Devices, m)
	}
	h.DeviceRequests = f.gpus.requests
	for _, u := range f.ulimits {
		l, _ := units.ParseUlimit(u)
		h.Ulimits = append(h.Ulimits, l)
	}
	slices.SortFunc(h.Ulimits, func(a, b *container.Ulimit) int { return strings.Compare(a.Name, b.Name) })
	f.blkio(h)
	return h, nil
}

// ParseRestart reads no, always, unless-stopped, on-failure[:max-retries].
func ParseRestart(s string) (container.RestartPolicy, error) {
	name, count, counted := strings.Cut(s, ":")
	p := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 {
			return p, fmt.Errorf("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	if name == "" {
		if counted {
			return p, errors.New("invalid restart policy format: no policy provided before colon")
		}
		p.Name = container.RestartPolicyDisabled
	}
	return p, nil
}

// securityOptions replaces the name of a seccomp profile's file by its content.
func securityOptions(opts []string) ([]string, error) {
	out := slices.Clone(opts)
	for i, o := range out {
		key, file, ok := strings.Cut(o, "=")
		if !ok && o != "no-new-privileges" {
			key, file, ok = strings.Cut(o, ":")
			if !ok {
				return nil, fmt.Errorf("Invalid --security-opt: %q", o)
			}
		}
		if key != "seccomp" || file == "unconfined" || file == "builtin" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", file, err)
		}
		var compact any
		if err := json.Unmarshal(data, &compact); err != nil {
			return nil, fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", file, err)
		}
		data, err = json.Marshal(compact)
		if err != nil {
			return nil, err
		}
		out[i] = "seccomp=" + string(data)
	}
	return out, nil
}

func parseDevice(s string) (container.DeviceMapping, error) {
	parts := strings.Split(s, ":")
	m := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	mode := func(p string) bool { return p != "" && strings.Trim(p, "rwm") == "" }
	switch {
	case len(parts) == 1:
	case len(parts) == 2 && mode(parts[1]):
		m.CgroupPermissions = parts[1]
	case len(parts) == 2:
		m.PathInContainer = parts[1]
	case len(parts) == 3 && mode(parts[2]):
		m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
	default:
		return m, fmt.Errorf("invalid device specification: %s", s)
	}
	for _, p := range []string{m.PathOnHost, m.PathInContainer} {
		if !path.IsAbs(p) {
			return m, fmt.Errorf("%s is not an absolute path", p)
		}
	}
	return m, nil
}

// networking reads --network (a name, or name=…,alias=…,ip=…) and the flags that go with the first one.
func (f *flags) networking() (*network.NetworkingConfig, container.NetworkMode, error) {
	out := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	var mode string
	for i, n := range f.networks {
		name, ep, err := parseNetwork(n)
		if err != nil {
			return nil, "", err
		}
		if i == 0 {
			mode = name
		}
		if _, twice := out.EndpointsConfig[name]; twice {
			return nil, "", fmt.Errorf("network %q is specified multiple times", name)
		}
		if len(f.networks) > 1 && (name == "host" || name == "none" || strings.HasPrefix(name, "container:")) {
			return nil, "", fmt.Errorf("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		out.EndpointsConfig[name] = ep
	}
	if mode == "" {
		mode = "default"
	}
	first := out.EndpointsConfig[mode]
	if first == nil {
		first = &network.EndpointSettings{}
	}
	first.Aliases = append(first.Aliases, f.aliases...)
	first.Links = append(first.Links, f.links...)
	for flag, v := range map[string]string{"ip": f.ip, "ip6": f.ip6, "mac-address": f.mac} {
		if err := setAddress(first, flag, v); err != nil {
			return nil, "", err
		}
	}
	for _, l := range f.linkLocalIPs {
		if err := setAddress(first, "link-local-ip", l); err != nil {
			return nil, "", err
		}
	}
	used := len(first.Aliases) > 0 || first.IPAMConfig != nil || len(first.MacAddress) > 0
	if special := mode == "host" || mode == "none" || strings.HasPrefix(mode, "container:"); special && len(out.EndpointsConfig) > 0 {
		if used {
			if len(first.Aliases) > 0 {
				return nil, "", errors.New("network-scoped aliases are only supported for user-defined networks")
			}
			return nil, "", fmt.Errorf("conflicting options: --ip, --ip6 and --mac-address need a network of the container's own, not %q", mode)
		}
		delete(out.EndpointsConfig, mode)
	} else if used {
		out.EndpointsConfig[mode] = first
	}
	return out, container.NetworkMode(mode), nil
}

func parseNetwork(s string) (string, *network.EndpointSettings, error) {
	ep := &network.EndpointSettings{}
	if !strings.Contains(s, "=") {
		return s, ep, nil
	}
	var name string
	for field := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok {
			return "", nil, fmt.Errorf("invalid field %s must be a key=value pair", field)
		}
		switch k {
		case "name":
			name = v
		case "alias":
			ep.Aliases = append(ep.Aliases, v)
		case "driver-opt":
			ok, ov, _ := strings.Cut(v, "=")
			if ep.DriverOpts == nil {
				ep.DriverOpts = map[string]string{}
			}
			ep.DriverOpts[ok] = ov
		case "gw-priority":
			n, err := strconv.Atoi(v)
			if err != nil {
				return "", nil, fmt.Errorf("invalid gw-priority (%s): want a number", v)
			}
			ep.GwPriority = n
		case "ip", "ip6", "mac-address", "link-local-ip":
			if err := setAddress(ep, k, v); err != nil {
				return "", nil, err
			}
		default:
			return "", nil, fmt.Errorf("invalid field key %s", k)
		}
	}
	if name == "" {
		return "", nil, errors.New("network name/id is not specified")
	}
	return name, ep, nil
}

func setAddress(ep *network.EndpointSettings, key, value string) error {
	if value == "" {
		return nil
	}
	if key == "mac-address" {
		mac, err := net.ParseMAC(value)
		if err != nil {
			return fmt.Errorf("%s is not a valid mac address", value)
		}
		ep.MacAddress = network.HardwareAddr(mac)
		return nil
	}
	a, err := netip.ParseAddr(value)
	if err != nil {
		return fmt.Errorf("invalid argument %q for \"--%s\" flag: not an ip address", value, key)
	}
	if ep.IPAMConfig == nil {
		ep.IPAMConfig = &network.EndpointIPAMConfig{}
	}
	switch key {
	case "ip":
		ep.IPAMConfig.IPv4Address = a
	case "ip6":
		ep.IPAMConfig.IPv6Address = a
	default:
		ep.IPAMConfig.LinkLocalIPs = append(ep.IPAMConfig.LinkLocalIPs, a)
	}
	return nil
}
