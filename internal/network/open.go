package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/files"
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
		registry: &registry{root: cfg.Root, networks: map[string]*segment{}, sandboxes: map[string]*sandbox{}}}
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
	if err := m.assemble(); err != nil {
		return nil, err
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
	if m.rules.on() {
		if err := m.rules.rewrite(nil); err != nil {
			return nil, err
		}
		if err := m.rules.fw.Beside(); err != nil {
			slog.Warn("another engine's firewall may drop our containers' packets", "error", err)
		}
	} else if err := deleteTable(cfg.Instance); err != nil {
		return nil, err
	}
	if err := m.bridges.ensureBuiltin(); err != nil {
		return nil, err
	}
	m.opened = true
	return m, nil
}

// assemble opens what the manager changes the host with, and hands it to those who do.
func (m *Manager) assemble() (err error) {
	m.rules = &rules{reg: m.registry}
	m.wiring = &wiring{defaultMTU: m.cfg.MTU}
	if m.home, err = rtnl.OwnNamespace(); err != nil {
		return err
	}
	if m.links, err = rtnl.Open(); err != nil {
		return err
	}
	if m.cfg.Firewall {
		if m.rules.fw, err = firewall.Open(tableName(m.cfg.Instance), rtnl.Uplinks()...); err != nil {
			return err
		}
	}
	m.etc = &etc{cfg: m.cfg, reg: m.registry, host: m.host}
	m.wiring.home, m.wiring.links, m.wiring.etc = m.home, m.links, m.etc
	m.bridges = &bridges{cfg: m.cfg, reg: m.registry, rules: m.rules, links: m.links, host: m.host}
	m.ports = &publisher{rules: m.rules, links: m.links, defaultIP: m.cfg.DefaultIP}
	return nil
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

// Close stops DNS servers and lets go of sockets; interfaces and rules of live containers stay. Without any,
// the firewall's rules and the default bridge go; the bridges of other networks stay, lest somebody else takes their subnets.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	opened := m.opened
	boxes := m.sandboxes
	m.sandboxes = map[string]*sandbox{}
	m.mu.Unlock()
	for _, b := range boxes {
		if b.resolver != nil {
			b.resolver.Close()
		}
		release(b.bindings)
	}
	if m.wiring != nil {
		m.wiring.cleanup.Wait()
	}
	var errs []error
	if opened && len(boxes) == 0 {
		errs = append(errs, m.tidy())
	}
	if m.rules != nil {
		errs = append(errs, m.rules.close())
	}
	if m.links != nil {
		errs = append(errs, m.links.Close())
	}
	if m.home != nil {
		errs = append(errs, m.home.Close())
	}
	return errors.Join(errs...)
}

// tidy removes what an engine without containers needs only when it starts again.
func (m *Manager) tidy() error {
	var errs []error
	if m.rules.on() {
		errs = append(errs, m.rules.fw.Delete())
	}
	if s, err := m.find(nameBridge); err == nil && !s.Borrowed {
		var b rtnl.Batch
		b.DelLink(s.Bridge)
		if err := m.links.Do(&b); !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
		if l, ok := byName[s.Bridge]; ok && (s.Borrowed || l.Kind == "bridge" && l.Alias == m.bridges.alias()) {
			ours[l.Index] = true
			err = m.bridges.configureLink(s)
		} else if ok {
			err = fault.Conflict("link %s of network %s exists, but is not ours", s.Bridge, s.Name)
		} else {
			err = m.bridges.makeLink(s)
		}
		if err != nil {
			return fmt.Errorf("cannot restore network %s: %w", s.Name, err)
		}
	}
	var stale, again rtnl.Batch
	for _, l := range links {
		switch {
		case l.Kind == "bridge" && l.Alias == m.bridges.alias() && !known[l.Name]:
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
	if err := m.links.Do(&again); err != nil && !errors.Is(err, unix.ENODEV) { // a sandbox may end at any time
		return err
	}
	return m.revive()
}

// revive gives the live sandboxes their host ports and DNS servers back.
func (m *Manager) revive() error {
	for _, b := range m.sandboxes {
		for _, x := range b.bindings {
			if err := x.rebind(); err != nil {
				return err
			}
		}
		if m.etc.needsResolver(b) {
			if err := m.wiring.plug(b, nil); err != nil && !gone(b.join.Pid) {
				return fmt.Errorf("cannot serve DNS for container %s: %w", b.join.Name, err)
			}
		}
	}
	return nil
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
