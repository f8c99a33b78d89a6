// Package network connects containers.
//
//	network    a named segment: driver (bridge, host, none), subnets, options
//	endpoint   one container's place in one network: address, MAC, names, published ports
//	sandbox    a network namespace: where endpoints live, and the container's DNS server
//
// The engine creates the container, joins its sandbox to networks, then starts
// it. Everything on the host carries the engine's instance name: bridges, veths and one nft
// table. Records are in DATA_ROOT/networks; what a killed engine left is found by name and removed
// or taken over at Open.
package network

import (
	"context"
	"net/netip"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Config is the network part of the daemon's configuration.
type Config struct {
	Root         string         // DATA_ROOT/networks
	Instance     string         // at most 8 characters of [a-z0-9]; names links and the nft table
	BridgeName   string         // --bridge: an existing bridge for the default network; "none" turns it off
	BridgeIP     netip.Prefix   // --bip; zero: chosen from AddressPools
	AddressPools []netip.Prefix // zero: Docker's defaults, less what host routes and other engines use
	PoolSize     int            // prefix length of networks cut from AddressPools; 0: 16 of 172.16/12, 20 of 192.168/16
	Firewall     bool           // --iptables: write nft rules
	IPForward    bool           // --ip-forward
	IPMasq       bool           // --ip-masq
	ICC          bool           // --icc
	DefaultIP    netip.Addr     // --ip: host address for published ports without one; zero: all
	DNS          []netip.Addr   // --dns: upstreams; none: the host's resolv.conf, followed as it changes
	MTU          int            // 0: 1500, or the default route's if that is smaller
}

// Manager owns the networks of one engine. Safe for concurrent use.
type Manager struct{}

// Open reads the records, makes sure that the default network exists, and keeps only the endpoints of the
// sandboxes in live (container id → pid); all else is removed.
func Open(ctx context.Context, cfg Config, live map[string]int, bus *event.Bus) (*Manager, error) {
	return nil, fault.Unsupported("")
}

// Close stops DNS servers and lets go of sockets; interfaces and rules of live containers stay.
func (m *Manager) Close() error { return nil }

// Create makes a network. Errors have Docker's words and classes (Conflict "network with name x already exists").
func (m *Manager) Create(ctx context.Context, name string, req network.CreateRequest) (id string, warning string, err error) {
	return "", "", fault.Unsupported("")
}

// Get finds a network by name, id or unique prefix.
func (m *Manager) Get(ref string) (network.Inspect, error) {
	return network.Inspect{}, fault.NotFound("network %s not found", ref)
}

// List returns the networks that match (driver, id, label, name, scope, type, dangling).
func (m *Manager) List(f filter.Args) ([]network.Inspect, error) { return nil, fault.Unsupported("") }

// Remove deletes a network without endpoints.
func (m *Manager) Remove(ctx context.Context, ref string) error { return fault.Unsupported("") }

// Prune removes networks that no endpoint and no name in inUse (ids referred to by stopped containers) uses.
func (m *Manager) Prune(ctx context.Context, f filter.Args, inUse map[string]bool) ([]string, error) {
	return nil, fault.Unsupported("")
}

// Join describes a container's sandbox and the networks to connect it to.
type Join struct {
	Container string // full id
	Name      string // the container's name, without slash: resolvable on user-defined networks
	Hostname  string
	Pid       int // a process in the sandbox
	// Endpoints by network name or id. The fields under "Configuration data" are read;
	// the result has the rest filled in.
	Endpoints map[string]*network.EndpointSettings
	// Ports to publish, and ExposedPorts only for PublishAll.
	Ports      network.PortMap
	PublishAll bool
	Exposed    network.PortSet
	DNS        []netip.Addr // upstreams of this container; none: Config.DNS
	DNSSearch  []string
	DNSOptions []string
}

// Joined is what the container got.
type Joined struct {
	Endpoints map[string]*network.EndpointSettings // by network name
	Ports     network.PortMap                      // with the host addresses and ports in use
	// ResolvConf and Hosts are the contents for /etc/resolv.conf and /etc/hosts (the
	// engine writes the files that are mounted there).
	ResolvConf []byte
	Hosts      []byte
}

// Prepare computes what can be known before the namespaces exist, so that it can run beside the runtime's
// create: addresses and host ports are allocated and held, files' contents computed.
func (m *Manager) Prepare(ctx context.Context, j Join) (*Joined, error) {
	return nil, fault.Unsupported("")
}

// Join makes the interfaces, routes, rules and DNS server of what Prepare allocated. On error everything is undone, the allocation too.
func (m *Manager) Join(ctx context.Context, j Join) (*Joined, error) {
	return nil, fault.Unsupported("")
}

// Leave removes a container from all networks: rules and DNS at once, interfaces in the background. Idempotent.
func (m *Manager) Leave(ctx context.Context, container string) error { return nil }

// Connect adds a running container (joined before, or with no network so far) to a further network.
func (m *Manager) Connect(ctx context.Context, j Join, networkRef string) (*network.EndpointSettings, error) {
	return nil, fault.Unsupported("")
}

// Disconnect takes it out of one network.
func (m *Manager) Disconnect(ctx context.Context, container, networkRef string) error {
	return fault.Unsupported("")
}

// Rename changes the name that resolves to a container.
func (m *Manager) Rename(container, name string) {}
