package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// kind is how often, and in which JSON form, an option is given.
type kind int

const (
	word kind = iota // one value; string or number in the file
	flag             // true or false
	list             // may be repeated; an array of strings in the file
	dict             // may be repeated as k=v; an object in the file
)

// option is one setting. set is nil for those without meaning here; they are accepted with a warning.
type option struct {
	name  string // of the flag; "" for those of the file only
	short string
	key   string // in the file; "" for those of the command line only
	kind  kind
	set   func(c *Config, value string) error
	use   string
	// object turns one entry of the file's array, or of its object, to the flag's form; nil: a string is expected.
	object func(name string, v any) (string, error)
}

// options lists all, those that are honoured first.
var options = []option{
	// Files and sockets
	{name: "config-file", set: text(func(c *Config) *string { return &c.File }), use: "Daemon configuration file"},
	{name: "data-root", key: "data-root", set: text(func(c *Config) *string { return &c.DataRoot }), use: "Root directory of persistent state"},
	{name: "exec-root", key: "exec-root", set: text(func(c *Config) *string { return &c.ExecRoot }), use: "Root directory for execution state files"},
	{name: "host", short: "H", key: "hosts", kind: list, set: each(func(c *Config) *[]string { return &c.Hosts }), use: "Daemon socket(s) to listen on"},
	{name: "limited-host", key: "limited-hosts", kind: dict, set: pair(func(c *Config) map[string]string { return c.LimitedHosts }), use: "Further socket and the policy file that says what may be done on it: unix:///PATH=FILE"},
	{name: "group", short: "G", key: "group", set: text(func(c *Config) *string { return &c.Group }), use: "Group for the unix socket"},
	{name: "pidfile", short: "p", key: "pidfile", set: text(func(c *Config) *string { return &c.PidFile }), use: "Path to use for daemon PID file"},
	{name: "tls", key: "tls", kind: flag, set: truth(func(c *Config) *bool { return &c.TLS }), use: "Use TLS; implied by --tlsverify"},
	{name: "tlsverify", key: "tlsverify", kind: flag, set: truth(func(c *Config) *bool { return &c.TLSVerify }), use: "Use TLS and verify the remote"},
	{name: "tlscacert", key: "tlscacert", set: text(func(c *Config) *string { return &c.TLSCACert }), use: "Trust certs signed only by this CA"},
	{name: "tlscert", key: "tlscert", set: text(func(c *Config) *string { return &c.TLSCert }), use: "Path to TLS certificate file"},
	{name: "tlskey", key: "tlskey", set: text(func(c *Config) *string { return &c.TLSKey }), use: "Path to TLS key file"},
	{name: "debug", short: "D", key: "debug", kind: flag, set: truth(func(c *Config) *bool { return &c.Debug }), use: "Enable debug mode"},
	{name: "log-level", short: "l", key: "log-level", set: oneOf(func(c *Config) *string { return &c.LogLevel }, "trace", "debug", "info", "warn", "error", "fatal", "panic"), use: "Set the logging level"},
	{name: "label", key: "labels", kind: list, set: each(func(c *Config) *[]string { return &c.Labels }), use: "Set key=value labels to the daemon"},
	{name: "metrics-addr", key: "metrics-addr", set: text(func(c *Config) *string { return &c.MetricsAddr }), use: "Set default address and port to serve the metrics api on"},
	{name: "validate", kind: flag, set: truth(func(c *Config) *bool { return &c.Validate }), use: "Validate daemon configuration and exit"},
	{name: "version", short: "v", kind: flag, set: truth(func(c *Config) *bool { return &c.Version }), use: "Print version information and quit"},
	{name: "shutdown", kind: flag, set: truth(func(c *Config) *bool { return &c.Shutdown }), use: "Stop all containers when the engine ends (by default they go on)"},
	{name: "shutdown-timeout", key: "shutdown-timeout", set: seconds(func(c *Config) *time.Duration { return &c.ShutdownTimeout }), use: "Seconds that containers get to stop, with --shutdown"},
	{name: "live-restore", key: "live-restore", kind: flag, set: truth(func(c *Config) *bool { return &c.LiveRestore }), use: "Accepted for dockerd's users: containers always go on without the engine"},
	{name: "runtime-path", set: text(func(c *Config) *string { return &c.RunPath }), use: "Path of the tare-run program"},

	// Registries
	{name: "registry-mirror", key: "registry-mirrors", kind: list, set: each(func(c *Config) *[]string { return &c.Mirrors }), use: "Preferred registry mirror"},
	{name: "insecure-registry", key: "insecure-registries", kind: list, set: each(func(c *Config) *[]string { return &c.InsecureRegistries }), use: "Enable insecure registry communication"},
	{name: "registries-file", key: "registries-file", set: text(func(c *Config) *string { return &c.RegistriesFile }), use: "File with mirrors, rewrites, blocking and TLS of any registry"},
	{name: "max-concurrent-downloads", key: "max-concurrent-downloads", set: positive(func(c *Config) *int { return &c.MaxDownloads }), use: "Set the max concurrent downloads"},
	{name: "max-concurrent-uploads", key: "max-concurrent-uploads", set: positive(func(c *Config) *int { return &c.MaxUploads }), use: "Set the max concurrent uploads"},
	{name: "max-download-attempts", key: "max-download-attempts", set: positive(func(c *Config) *int { return &c.MaxAttempts }), use: "Set the max download attempts for each pull"},
	{name: "http-proxy", key: "http-proxy", set: text(func(c *Config) *string { return &c.HTTPProxy }), use: "HTTP proxy URL to use for outgoing traffic"},
	{name: "https-proxy", key: "https-proxy", set: text(func(c *Config) *string { return &c.HTTPSProxy }), use: "HTTPS proxy URL to use for outgoing traffic"},
	{name: "no-proxy", key: "no-proxy", set: text(func(c *Config) *string { return &c.NoProxy }), use: "Comma-separated list of hosts or IP addresses for which the proxy is skipped"},

	// Networks
	{name: "bip", key: "bip", set: prefix(func(c *Config) *netip.Prefix { return &c.BridgeIP }), use: "IPv4 address for the default bridge"},
	{name: "bridge", short: "b", key: "bridge", set: text(func(c *Config) *string { return &c.Bridge }), use: "Attach containers to a network bridge"},
	{name: "default-address-pool", key: "default-address-pools", kind: list, set: pool, object: poolObject, use: "Default address pools for node specific local networks"},
	{name: "iptables", key: "iptables", kind: flag, set: truth(func(c *Config) *bool { return &c.Firewall }), use: "Enable addition of firewall rules"},
	{name: "ip-forward", key: "ip-forward", kind: flag, set: truth(func(c *Config) *bool { return &c.IPForward }), use: "Enable IP forwarding in system configuration"},
	{name: "ip-masq", key: "ip-masq", kind: flag, set: truth(func(c *Config) *bool { return &c.IPMasq }), use: "Enable IP masquerading for the default bridge network"},
	{name: "icc", key: "icc", kind: flag, set: truth(func(c *Config) *bool { return &c.ICC }), use: "Enable inter-container communication for the default bridge network"},
	{name: "ip", key: "ip", set: address(func(c *Config) *netip.Addr { return &c.DefaultIP }), use: "Host IP for port publishing"},
	{name: "mtu", key: "mtu", set: number(func(c *Config) *int { return &c.MTU }), use: "Set the MTU of the default bridge network"},
	{name: "dns", key: "dns", kind: list, set: addresses(func(c *Config) *[]netip.Addr { return &c.DNS }), use: "DNS server to use"},
	{name: "dns-opt", key: "dns-opts", kind: list, set: each(func(c *Config) *[]string { return &c.DNSOptions }), use: "DNS options to use"},
	{name: "dns-search", key: "dns-search", kind: list, set: each(func(c *Config) *[]string { return &c.DNSSearch }), use: "DNS search domains to use"},

	// Containers
	{name: "cgroup-parent", key: "cgroup-parent", set: text(func(c *Config) *string { return &c.CgroupParent }), use: "Set parent cgroup for all containers"},
	{name: "default-cgroupns-mode", key: "default-cgroupns-mode", set: oneOf(func(c *Config) *string { return &c.CgroupnsMode }, "host", "private"), use: "Default mode for containers cgroup namespace"},
	{name: "default-ipc-mode", key: "default-ipc-mode", set: oneOf(func(c *Config) *string { return &c.IPCMode }, "private", "shareable"), use: "Default mode for containers ipc"},
	{name: "default-shm-size", key: "default-shm-size", set: bytes(func(c *Config) *int64 { return &c.ShmSize }), use: "Default shm size for containers"},
	{name: "default-ulimit", key: "default-ulimits", kind: dict, set: ulimit, object: ulimitObject, use: "Default ulimits for containers"},
	{name: "exec-opt", key: "exec-opts", kind: list, set: each(func(c *Config) *[]string { return &c.ExecOptions }), use: "Runtime execution options"},
	{name: "init", key: "init", kind: flag, set: truth(func(c *Config) *bool { return &c.Init }), use: "Run an init in the container to forward signals and reap processes"},
	{name: "log-driver", key: "log-driver", set: oneOf(func(c *Config) *string { return &c.LogDriver }, "json-file", "local", "none"), use: "Default driver for container logs"},
	{name: "log-opt", key: "log-opts", kind: dict, set: pair(func(c *Config) map[string]string { return c.LogOptions }), use: "Default log driver options for containers"},
	{name: "no-new-privileges", key: "no-new-privileges", kind: flag, set: truth(func(c *Config) *bool { return &c.NoNewPrivileges }), use: "Set no-new-privileges by default for new containers"},
	{name: "seccomp-profile", key: "seccomp-profile", set: only("the default profile is always used", "", "builtin"), use: "Path to seccomp profile"},
	{name: "add-runtime", key: "runtimes", kind: dict, set: addRuntime, object: runtimeObject, use: "Register an additional OCI compatible runtime"},
	{name: "default-runtime", key: "default-runtime", set: text(func(c *Config) *string { return &c.DefaultRuntime }), use: "Default OCI runtime for containers"},

	// Without meaning here
	{name: "allow-direct-routing", key: "allow-direct-routing", kind: flag, use: "Allow remote access to published ports on container IP addresses"},
	{name: "allow-nondistributable-artifacts", key: "allow-nondistributable-artifacts", kind: list, use: "Allow push of nondistributable artifacts to registry"},
	{name: "api-cors-header", key: "api-cors-header", use: "Set CORS headers in the Engine API"},
	{name: "authorization-plugin", key: "authorization-plugins", kind: list, set: only("plugins are not supported"), use: "Authorization plugins to load"},
	{name: "bip6", key: "bip6", use: "IPv6 address for the default bridge"},
	{name: "bridge-accept-fwmark", key: "bridge-accept-fwmark", use: "Firewall mark to accept for bridge networks"},
	{key: "builder", kind: dict, object: anyObject},
	{name: "cdi-spec-dir", key: "cdi-spec-dirs", kind: list, use: "CDI specification directories to use"},
	{name: "containerd", key: "containerd", use: "containerd grpc address"},
	{name: "containerd-namespace", key: "containerd-namespace", use: "Containerd namespace to use"},
	{name: "containerd-plugins-namespace", key: "containerd-plugin-namespace", use: "Containerd namespace to use for plugins"},
	{name: "cpu-rt-period", key: "cpu-rt-period", use: "Limit the CPU real-time period in microseconds"},
	{name: "cpu-rt-runtime", key: "cpu-rt-runtime", use: "Limit the CPU real-time runtime in microseconds"},
	{name: "cri-containerd", key: "cri-containerd", kind: flag, use: "start containerd with cri"},
	{name: "default-gateway", key: "default-gateway", use: "Default gateway IPv4 address for the default bridge network"},
	{name: "default-gateway-v6", key: "default-gateway-v6", use: "Default gateway IPv6 address for the default bridge network"},
	{name: "default-network-opt", key: "default-network-opts", kind: dict, object: anyObject, use: "Default network options"},
	{name: "experimental", key: "experimental", kind: flag, use: "Enable experimental features"},
	{name: "feature", key: "features", kind: dict, object: anyObject, use: "Enable feature in the daemon"},
	{name: "firewall-backend", key: "firewall-backend", use: "Firewall backend to use, iptables or nftables"},
	{name: "fixed-cidr", key: "fixed-cidr", use: "IPv4 subnet for the default bridge network"},
	{name: "fixed-cidr-v6", key: "fixed-cidr-v6", use: "IPv6 subnet for the default bridge network"},
	{name: "host-gateway-ip", key: "host-gateway-ips", kind: list, use: "IP addresses that host-gateway stands for in --add-host"},
	{name: "init-path", key: "init-path", use: "Path to the docker-init binary"},
	{name: "ip-forward-no-drop", key: "ip-forward-no-drop", kind: flag, use: "Do not set the filter-FORWARD policy to DROP when enabling IP forwarding"},
	{name: "ip6tables", key: "ip6tables", kind: flag, use: "Enable addition of ip6tables rules"},
	{name: "ipv6", key: "ipv6", kind: flag, use: "Enable IPv6 networking for the default bridge network"},
	{name: "log-format", key: "log-format", use: "Set the logging format"},
	{name: "network-control-plane-mtu", key: "network-control-plane-mtu", use: "Network Control plane MTU"},
	{name: "node-generic-resource", key: "node-generic-resources", kind: list, use: "Advertise user-defined resource"},
	{name: "oom-score-adjust", key: "oom-score-adjust", use: "Set the oom_score_adj for the daemon"},
	{name: "raw-logs", key: "raw-logs", kind: flag, use: "Full timestamps without ANSI coloring"},
	{name: "rootless", kind: flag, set: only("the engine must be root", "false"), use: "Enable rootless mode"},
	{name: "selinux-enabled", key: "selinux-enabled", kind: flag, use: "Enable selinux support"},
	{name: "storage-driver", short: "s", key: "storage-driver", use: "Storage driver to use"},
	{name: "storage-opt", key: "storage-opts", kind: list, use: "Storage driver options"},
	{name: "swarm-default-advertise-addr", key: "swarm-default-advertise-addr", use: "Set default address or interface for swarm advertised address"},
	{name: "userland-proxy", key: "userland-proxy", kind: flag, use: "Use userland proxy for loopback traffic"},
	{name: "userland-proxy-path", key: "userland-proxy-path", use: "Path to the userland proxy binary"},
	{name: "userns-remap", key: "userns-remap", set: only("user namespaces are not supported", ""), use: "User/Group setting for user namespaces"},
	{name: "deprecated-key-path", key: "deprecated-key-path", use: "Path to key file for ID generation"},
}

func text(at func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *at(c) = v; return nil }
}

func oneOf(at func(*Config) *string, allowed ...string) func(*Config, string) error {
	return func(c *Config, v string) error {
		for _, a := range allowed {
			if v == a {
				*at(c) = v
				return nil
			}
		}
		return fmt.Errorf("%q is not one of %s", v, strings.Join(allowed, ", "))
	}
}

func truth(at func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) (err error) { *at(c), err = strconv.ParseBool(v); return err }
}

func number(at func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) (err error) { *at(c), err = strconv.Atoi(v); return err }
}

func positive(at func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err == nil && n < 1 {
			err = fmt.Errorf("%d is not at least 1", n)
		}
		*at(c) = n
		return err
	}
}

func seconds(at func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		*at(c) = time.Duration(n) * time.Second
		return err
	}
}

func bytes(at func(*Config) *int64) func(*Config, string) error {
	return func(c *Config, v string) (err error) { *at(c), err = units.RAMInBytes(v); return err }
}

func each(at func(*Config) *[]string) func(*Config, string) error {
	return func(c *Config, v string) error { *at(c) = append(*at(c), v); return nil }
}

func address(at func(*Config) *netip.Addr) func(*Config, string) error {
	return func(c *Config, v string) (err error) { *at(c), err = addr(v); return err }
}

func addresses(at func(*Config) *[]netip.Addr) func(*Config, string) error {
	return func(c *Config, v string) error {
		for part := range strings.SplitSeq(v, ",") {
			a, err := addr(part)
			if err != nil {
				return err
			}
			*at(c) = append(*at(c), a)
		}
		return nil
	}
}

func prefix(at func(*Config) *netip.Prefix) func(*Config, string) error {
	return func(c *Config, v string) (err error) { *at(c), err = netip.ParsePrefix(v); return err }
}

func pair(at func(*Config) map[string]string) func(*Config, string) error {
	return func(c *Config, v string) error {
		k, val, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("%q is not key=value", v)
		}
		at(c)[k] = val
		return nil
	}
}

func pool(c *Config, v string) error {
	var p AddressPool
	for part := range strings.SplitSeq(v, ",") {
		k, val, _ := strings.Cut(part, "=")
		var err error
		switch strings.TrimSpace(k) {
		case "base":
			p.Base, err = netip.ParsePrefix(val)
		case "size":
			p.Size, err = strconv.Atoi(val)
		default:
			err = fmt.Errorf("unknown field %q", k)
		}
		if err != nil {
			return fmt.Errorf("invalid address pool %q: %w", v, err)
		}
	}
	if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
		return fmt.Errorf("invalid address pool %q: want base=NETWORK,size=PREFIX LENGTH", v)
	}
	c.AddressPools = append(c.AddressPools, p)
	return nil
}

func poolObject(_ string, v any) (string, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return "", fmt.Errorf("%v is not an object with base and size", v)
	}
	return fmt.Sprintf("base=%v,size=%v", m["base"], m["size"]), nil
}

func ulimit(c *Config, v string) error {
	u, err := units.ParseUlimit(v)
	if err == nil {
		c.Ulimits[u.Name] = &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
	}
	return err
}

func ulimitObject(name string, v any) (string, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return "", fmt.Errorf("%v is not an object with Soft and Hard", v)
	}
	return fmt.Sprintf("%s=%v:%v", name, m["Soft"], m["Hard"]), nil
}

func anyObject(name string, v any) (string, error) { return fmt.Sprintf("%s=%v", name, v), nil }

// only accepts the values that change nothing. It is for options whose loss would weaken what the
// user relies on: they are refused, not warned of.
func only(why string, allowed ...string) func(*Config, string) error {
	return func(_ *Config, v string) error {
		if slices.Contains(allowed, v) {
			return nil
		}
		return fmt.Errorf("%q is not supported by this engine: %s", v, why)
	}
}
