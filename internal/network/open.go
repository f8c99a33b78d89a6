package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/base/ids"
	"tare/internal/network/firewall"
	"tare/internal/network/resolv"
	"tare/internal/network/rtnl"
)

var validInstance = regexp.MustCompile(`^[a-z0-9]{1,8}$`)

// Open reads the records, makes sure that the default network exists, and keeps only the endpoints of the
// sandboxes in live (container id → pid); all else is removed. It belongs to the calling thread's network namespace.
func Open(ctx context.Context, cfg Config, live map[string]int, bus *event.Bus) (_ *Manager, err error) {
	if !validInstance.MatchString(cfg.Instance) {
		return nil, fault.Invalid("invalid instance name %q: one to eight of a-z and 0-9", cfg.Instance)
	}
	if cfg.MTU == 0 {
		cfg.MTU = 1500
		if n := rtnl.DefaultMTU(); n > 0 {
			cfg.MTU = min(cfg.MTU, n)
		}
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.HostsFile == "" {
		cfg.HostsFile = "/etc/hosts"
	}
	m := &Manager{cfg: cfg, bus: bus, host: &resolv.Host{Path: cfg.ResolvConf},
		networks: map[string]*segment{}, sandboxes: map[string]*sandbox{}}
	defer func() {
		if err != nil {
			m.Close()
			err = fmt.Errorf("cannot open networks: %w", err)
		}
	}()
	if err := os.MkdirAll(filepath.Join(cfg.Root, "sandboxes"), 0o700); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.Root, filepath.Join(cfg.Root, "sandboxes")} {
		if err := files.Sweep(dir); err != nil {
			return nil, err
		}
	}
	if m.home, err = rtnl.OwnNamespace(); err != nil {
		return nil, err
	}
	if m.links, err = rtnl.Open(); err != nil {
		return nil, err
	}
	if cfg.Firewall {
		if m.fw, err = firewall.Open(tableName(cfg.Instance)); err != nil {
			return nil, err
		}
	}
	if err := m.readNetworks(); err != nil {
		return nil, err
	}
	if err := m.readSandboxes(live); err != nil {
		return nil, err
	}
	if err := m.mend(); err != nil {
		return nil, err
	}
	if m.fw != nil {
		if err := m.rewriteRules(nil); err != nil {
			return nil, err
		}
	} else if err := deleteTable(cfg.Instance); err != nil {
		return nil, err
	}
	if err := m.ensureBuiltin(); err != nil {
		return nil, err
	}
	return m, nil
}

func tableName(instance string) string { return "tare-" + instance }

func deleteTable(instance string) error {
	t, err := firewall.Open(tableName(instance))
	if err != nil {
		return nil // a kernel without nftables has no table either
	}
	defer t.Close()
	return t.Delete()
}

// Close stops DNS servers and lets go of sockets; interfaces and rules of live containers stay.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	boxes := m.sandboxes
	m.sandboxes = map[string]*sandbox{}
	m.mu.Unlock()
	for _, b := range boxes {
		if b.resolver != nil {
			b.resolver.Close()
		}
		release(b.bindings)
	}
	m.cleanup.Wait()
	var errs []error
	if m.fw != nil {
		errs = append(errs, m.fw.Close())
	}
	if m.links != nil {
		errs = append(errs, m.links.Close())
	}
	if m.home != nil {
		errs = append(errs, m.home.Close())
	}
	return errors.Join(errs...)
}

// readNetworks loads the records.
func (m *Manager) readNetworks() error {
	entries, err := os.ReadDir(m.cfg.Root)
	if err != nil {
		return err
	}
	for _, f := range entries {
		if f.IsDir() || !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		var r record
		if err := files.ReadJSON(filepath.Join(m.cfg.Root, f.Name()), &r); err != nil {
			return err
		}
		if r.ID+".json" != f.Name() {
			return fault.Internal("record %s is about network %q", f.Name(), r.ID)
		}
		s, err := newSegment(r)
		if err != nil {
			return fmt.Errorf("cannot use record of network %s: %w", r.Name, err)
		}
		m.networks[s.ID] = s
	}
	return nil
}

// readSandboxes takes over the live ones and forgets the others.
func (m *Manager) readSandboxes(live map[string]int) error {
	dir := filepath.Join(m.cfg.Root, "sandboxes")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range entries {
		container, ok := strings.CutSuffix(f.Name(), ".json")
		pid := live[container]
		if !ok || pid <= 0 || gone(pid) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
			continue
		}
		var r sandboxRecord
		if err := files.ReadJSON(filepath.Join(dir, f.Name()), &r); err != nil {
			return err
		}
		r.Join.Pid = pid
		m.adopt(r)
	}
	return nil
}

// adopt puts a recorded sandbox into the tables.
func (m *Manager) adopt(r sandboxRecord) {
	b := &sandbox{join: r.Join, joined: true}
	for _, er := range r.Endpoints {
		s := m.networks[er.Network]
		if s == nil || er.Settings == nil {
			continue // the network went first
		}
		e := &endpoint{seg: s, box: b, settings: er.Settings, addr: er.Settings.IPAddress, link: er.Link, ifname: er.Ifname,
			mac: net.HardwareAddr(er.Settings.MacAddress)}
		e.links, _ = parseLinks(er.Settings.Links)
		if e.addr.IsValid() {
			if s.subnet == nil || s.subnet.Take(e.addr) != nil {
				continue
			}
		}
		b.endpoints = append(b.endpoints, e)
		s.endpoints[b.join.Container] = e
		s.addNames(e)
	}
	for _, br := range r.Bindings {
		b.bindings = append(b.bindings, &binding{port: br.Port, hostIP: br.HostIP, hostPort: br.HostPort})
	}
	m.sandboxes[b.join.Container] = b
}

// mend makes the host look as the records say: bridges exist, links of dead sandboxes don't, live sandboxes have
// their ports and DNS servers.
func (m *Manager) mend() error {
	links, err := rtnl.Links()
	if err != nil {
		return err
	}
	byName := map[string]rtnl.Link{}
	for _, l := range links {
		byName[l.Name] = l
	}
	known := map[string]bool{}
	ours := map[int]bool{}
	for _, s := range m.networks {
		if s.Driver != driverBridge {
			continue
		}
		known[s.Bridge] = true
		if l, ok := byName[s.Bridge]; ok && (s.Borrowed || l.Kind == "bridge" && l.Alias == m.alias()) {
			ours[l.Index] = true
			err = m.configureLink(s)
		} else if ok {
			err = fault.Conflict("link %s of network %s exists, but is not ours", s.Bridge, s.Name)
		} else {
			err = m.makeLink(s)
		}
		if err != nil {
			return fmt.Errorf("cannot restore network %s: %w", s.Name, err)
		}
	}
	var stale, again rtnl.Batch
	for _, l := range links {
		switch {
		case l.Kind == "bridge" && l.Alias == m.alias() && !known[l.Name]:
			stale.DelLink(l.Name)
			ours[l.Index] = true
		case l.Kind == "veth" && ours[l.Master] && !m.owned(l.Name) && !m.borrowed(l.Master):
			stale.DelLink(l.Name)
		}
	}
	for _, b := range m.sandboxes {
		for _, e := range b.endpoints {
			if l, ok := byName[e.link]; ok {
				e.index = l.Index
				if l.Master != e.seg.index {
					again.SetMaster(e.link, e.seg.index)
				}
			}
		}
	}
	if err := m.links.Do(&stale); err != nil {
		return err
	}
	if err := m.links.Do(&again); err != nil {
		return err
	}
	return m.revive()
}

// owned reports whether a live endpoint has the link.
func (m *Manager) owned(link string) bool {
	for _, b := range m.sandboxes {
		if slices.ContainsFunc(b.endpoints, func(e *endpoint) bool { return e.link == link }) {
			return true
		}
	}
	return false
}

// borrowed reports whether the bridge is the administrator's, who may have put veths there.
func (m *Manager) borrowed(index int) bool {
	for _, s := range m.networks {
		if s.Borrowed && s.index == index {
			return true
		}
	}
	return false
}

// revive gives the live sandboxes their host ports and DNS servers back.
func (m *Manager) revive() error {
	for _, b := range m.sandboxes {
		for _, x := range b.bindings {
			if err := x.rebind(); err != nil {
				return err
			}
		}
		if m.needsResolver(b) {
			if err := m.plug(b, nil); err != nil && !gone(b.join.Pid) {
				return fmt.Errorf("cannot serve DNS for container %s: %w", b.join.Name, err)
			}
		}
	}
	return nil
}

// ensureBuiltin makes the networks that every engine has.
func (m *Manager) ensureBuiltin() error {
	for name, driver := range map[string]string{nameHost: driverHost, nameNone: driverNull} {
		if _, err := m.find(name); err == nil {
			continue
		}
		s, err := newSegment(builtinRecord(name, driver))
		if err != nil {
			return err
		}
		if err := m.writeRecord(s); err != nil {
			return err
		}
		m.networks[s.ID] = s
	}
	return m.ensureDefault()
}

func builtinRecord(name, driver string) record {
	return record{Network: network.Network{
		Name: name, ID: ids.New(), Created: time.Now(), Scope: "local", Driver: driver, EnableIPv4: true,
		IPAM:    network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}}
}

// defaultBridge is the default network's link.
func (m *Manager) defaultBridge() string {
	switch {
	case m.cfg.BridgeName != "":
		return m.cfg.BridgeName
	case m.cfg.Instance == "tare":
		return "tare0"
	}
	return "tr-" + m.cfg.Instance
}

// ensureDefault makes the default network, or again if the configuration or the host have changed and nobody is on it.
func (m *Manager) ensureDefault() error {
	old, err := m.find(nameBridge)
	if err == nil && m.defaultFits(old) {
		return nil
	}
	r := builtinRecord(nameBridge, driverBridge)
	if err == nil {
		if len(old.endpoints) > 0 {
			return nil // at the next start that finds it empty
		}
		r.ID, r.Created = old.ID, old.Created
		delete(m.networks, old.ID)
		if err := m.demolish(old); err != nil {
			return err
		}
	}
	if m.cfg.BridgeName == "none" {
		return nil
	}
	r.Bridge, r.Borrowed = m.defaultBridge(), m.cfg.BridgeName != ""
	r.Options = m.defaultOptions()
	var want *network.IPAM
	switch {
	case r.Borrowed:
		c, err := m.borrow(r.Bridge)
		if err != nil {
			return err
		}
		want = &network.IPAM{Config: []network.IPAMConfig{c}}
	case m.cfg.BridgeIP.IsValid():
		want = &network.IPAM{Config: []network.IPAMConfig{{Subnet: m.cfg.BridgeIP.Masked(), Gateway: m.cfg.BridgeIP.Addr()}}}
	}
	s, err := m.makeDefault(r, want)
	if err != nil {
		return fmt.Errorf("cannot make the default network: %w", err)
	}
	m.networks[s.ID] = s
	return nil
}

// makeDefault is makeBridge, but a borrowed bridge's subnet is of course in use.
func (m *Manager) makeDefault(r record, want *network.IPAM) (*segment, error) {
	if !r.Borrowed {
		return m.makeBridge(r, want)
	}
	r.IPAM.Config = want.Config
	s, err := newSegment(r)
	if err != nil {
		return nil, err
	}
	return s, m.build(s)
}

func (m *Manager) defaultOptions() map[string]string {
	binding := m.cfg.DefaultIP
	if !binding.IsValid() {
		binding = netip.IPv4Unspecified()
	}
	return map[string]string{
		optDefault:     "true",
		optICC:         strconv.FormatBool(m.cfg.ICC),
		optMasq:        strconv.FormatBool(m.cfg.IPMasq),
		optHostBinding: binding.String(),
		optName:        m.defaultBridge(),
		optMTU:         strconv.Itoa(m.cfg.MTU),
	}
}

// defaultFits reports whether the default network is as the configuration wants it.
func (m *Manager) defaultFits(s *segment) bool {
	if m.cfg.BridgeName == "none" || s.Bridge != m.defaultBridge() || s.Borrowed != (m.cfg.BridgeName != "") {
		return false
	}
	for k, v := range m.defaultOptions() {
		if s.Options[k] != v {
			return false
		}
	}
	if m.cfg.BridgeIP.IsValid() {
		return s.subnet.Prefix() == m.cfg.BridgeIP.Masked() && s.IPAM.Config[0].Gateway == m.cfg.BridgeIP.Addr()
	}
	return s.Borrowed || !m.contested(s)
}

// borrow reads an existing bridge's address.
func (m *Manager) borrow(bridge string) (network.IPAMConfig, error) {
	index, err := m.links.Index(bridge)
	if err != nil {
		return network.IPAMConfig{}, fault.Invalid("bridge %s of --bridge does not exist", bridge)
	}
	addrs, err := rtnl.Addrs(index)
	if err != nil {
		return network.IPAMConfig{}, err
	}
	if len(addrs) == 0 || addrs[0].Bits() > 30 {
		return network.IPAMConfig{}, fault.Invalid("bridge %s of --bridge has no IPv4 address with a subnet", bridge)
	}
	return network.IPAMConfig{Subnet: addrs[0].Masked(), Gateway: addrs[0].Addr()}, nil
}

// Destroy removes everything an instance has on the host: links, rules and, if root is not "", its records. No
// manager of the instance may be open.
func Destroy(instance, root string) error {
	links, err := rtnl.Links()
	if err != nil {
		return err
	}
	ours := map[int]bool{}
	for _, l := range links {
		if l.Kind == "bridge" && l.Alias == "tare "+instance {
			ours[l.Index] = true
		}
	}
	var b rtnl.Batch
	for _, l := range links {
		if ours[l.Index] || l.Kind == "veth" && ours[l.Master] {
			b.DelLink(l.Name)
		}
	}
	c, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	errs := []error{c.Do(&b), deleteTable(instance)}
	if root != "" {
		errs = append(errs, os.RemoveAll(root))
	}
	return errors.Join(errs...)
}
