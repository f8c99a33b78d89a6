// Package config is the engine's configuration: dockerd's flags by their names,
// and daemon.json's form of them.
//
//	option     one setting: its flag, its key in the file, and where its value goes
//	directive  an option in the file
//
// All options stand in one table (options.go). One that has no meaning for this engine is accepted, for
// scripts that pass it, and named in a warning. A directive that isn't known, or that stands in the file
// and on the command line, is refused by name.
package config

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/runtime"
)

// Config is what the engine is told. The zero value is not useful; Parse fills in defaults.
type Config struct {
	File     string // --config-file
	DataRoot string
	ExecRoot string
	Hosts    []string
	// LimitedHosts are further sockets, each with the file that says what may be done on it.
	LimitedHosts map[string]string
	MetricsAddr  string // HOST:PORT of /metrics; "": none
	PidFile      string
	Group        string // owner of unix sockets
	Debug        bool
	LogLevel     string
	Labels       []string
	Version      bool // print the version and leave
	Validate     bool // check the configuration and leave

	// TLS of tcp hosts.
	TLS       bool
	TLSVerify bool
	TLSCACert string
	TLSCert   string
	TLSKey    string

	// Registries.
	Mirrors            []string
	InsecureRegistries []string
	RegistriesFile     string
	MaxDownloads       int // layers that arrive at a time; 0: transfer's default, as of the next two
	MaxUploads         int // blobs of one push
	MaxAttempts        int // requests before a failure is reported
	HTTPProxy          string
	HTTPSProxy         string
	NoProxy            string

	// Networks.
	Bridge       string
	BridgeIP     netip.Prefix // --bip
	DefaultIP    netip.Addr
	AddressPools []AddressPool
	Firewall     bool // --iptables
	IPForward    bool
	IPMasq       bool
	ICC          bool
	MTU          int
	DNS          []netip.Addr
	DNSOptions   []string
	DNSSearch    []string

	// Containers.
	CgroupParent    string
	CgroupnsMode    string
	ExecOptions     []string
	DefaultRuntime  string
	Runtimes        map[string]runtime.Foreign // further ones, by name
	IPCMode         string
	ShmSize         int64 // bytes
	Ulimits         map[string]*container.Ulimit
	Init            bool
	LogDriver       string
	LogOptions      map[string]string
	NoNewPrivileges bool
	LiveRestore     bool
	Shutdown        bool          // --shutdown: stop the containers when the engine ends
	ShutdownTimeout time.Duration // for that
	RunPath         string        // --runtime-path: the tare-run program; "": beside this program, then in PATH

	mu sync.Mutex // guards Debug and Labels once the engine runs: see Reload

	Warnings []string // to be logged, and shown by `docker info`
}

// AddressPool is one --default-address-pool: networks of Size (prefix length) are cut from Base.
type AddressPool struct {
	Base netip.Prefix
	Size int
}

// Default is the configuration without flags and file.
func Default() *Config {
	return &Config{
		File: "/etc/tare/daemon.json", RegistriesFile: "/etc/tare/registries.yaml", DataRoot: "/var/lib/tare", ExecRoot: "/run/tare",
		Group: "docker", LogLevel: "info",
		Firewall: true, IPForward: true, IPMasq: true, ICC: true,
		DefaultRuntime: "tare-run", Runtimes: map[string]runtime.Foreign{}, IPCMode: "private", ShmSize: 64 << 20,
		LimitedHosts: map[string]string{},
		Ulimits:      map[string]*container.Ulimit{}, LogDriver: "json-file", LogOptions: map[string]string{},
		ShutdownTimeout: 15 * time.Second,
	}
}

// Reload takes over what may change while the engine runs.
func (c *Config) Reload(fresh *Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Debug, c.Labels = fresh.Debug, fresh.Labels
}

// Live returns what Reload may change.
func (c *Config) Live() (debug bool, labels []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Debug, c.Labels
}

// DefaultHost is where the engine listens without --host.
const DefaultHost = "unix:///run/tare/tared.sock"

// addr reads an IP address in dockerd's forms.
func addr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, &net.AddrError{Err: "invalid IP address", Addr: s}
	}
	return a, nil
}
