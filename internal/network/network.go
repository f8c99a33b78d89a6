// Package network connects containers.
//
//	network    a named segment: driver (bridge, host, none), subnets, options
//	endpoint   one container's place in one network: address, MAC, names, published ports
//	sandbox    a network namespace: where endpoints live, and the container's DNS server
//
// The engine creates the container, joins its sandbox to networks, then starts
// it. Everything on the host carries the engine's instance name: bridges (as their alias), veths
// (as ports of those bridges) and one nft table. Records are in DATA_ROOT/networks, one file per network
// and, in sandboxes/, one per running container; what a killed engine left is found there and by name, and removed
// or taken over at Open.
//
//	Prepare   addresses, host ports, firewall elements, contents of files   (beside the runtime's create)
//	Join      veths, addresses and routes inside, DNS server                (the namespace exists)
//	Leave     the bridge port falls silent, all is given back; the links go in the background
//
// Locks: Manager.making before registry.mu; neither is held while the other's owner waits for the kernel's
// slow deletions.
package network

import (
	"net/netip"
	"sync"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/event"
	"tare/internal/network/resolv"
	"tare/internal/network/rtnl"
)

// Config is the network part of the daemon's configuration.
type Config struct {
	Root         string         // DATA_ROOT/networks
	Instance     string         // at most 8 characters of [a-z0-9]; names links and the nft table
	BridgeName   string         // --bridge: an existing bridge for the default network; "none" turns it off
	BridgeIP     netip.Prefix   // --bip; zero: chosen from AddressPools
	AddressPools []netip.Prefix // zero: Docker's defaults and then small subnets of 10.192/12, less what the host uses
	PoolSize     int            // prefix length of networks cut from AddressPools; 0: 24, or the pool's if that is longer
	Firewall     bool           // --iptables: write nft rules. Without them ports can't be published
	IPForward    bool           // --ip-forward
	IPMasq       bool           // --ip-masq
	ICC          bool           // --icc
	DefaultIP    netip.Addr     // --ip: host address for published ports without one; zero: all
	DNS          []netip.Addr   // --dns: upstreams; none: the host's resolv.conf, followed as it changes
	DNSSearch    []string       // --dns-search
	DNSOptions   []string       // --dns-opt
	MTU          int            // 0: 1500, or the default route's if that is smaller
	ResolvConf   string         // the host's resolv.conf; "": /etc/resolv.conf
	HostsFile    string         // the host's hosts file, for containers in its namespace; "": /etc/hosts
}

// Manager owns the networks of one engine. Safe for concurrent use.
type Manager struct {
	*registry
	cfg     Config
	bus     *event.Bus
	host    *resolv.Host
	home    *rtnl.Namespace
	links   *rtnl.Conn
	rules   *rules
	bridges *bridges
	ports   *publisher
	etc     *etc
	wiring  *wiring

	opened bool // Open came to its end, so the registry is whole

	making sync.Mutex // one network is made or removed at a time
}

// Join describes a container's sandbox and the networks to connect it to.
type Join struct {
	Container  string // full id
	Name       string // the container's name, without slash: resolvable on user-defined networks
	Hostname   string
	Domainname string
	Pid        int // a process in the sandbox; Prepare does not need it
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
	ExtraHosts []string // "name:address"; the address may be host-gateway
	// Links are further names of other containers, known in this one only: name in lower case → container id.
	Links map[string]string `json:",omitempty"`
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
