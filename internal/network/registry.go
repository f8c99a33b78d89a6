package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/files"
)

// registry is what there is: networks, and sandboxes with their endpoints, in memory and as files.
type registry struct {
	root string // Config.Root

	mu        sync.RWMutex // guards what follows and all within
	networks  map[string]*segment
	sandboxes map[string]*sandbox
	closed    bool
}

// find looks a network up by id, name or unique id prefix. registry.mu is held.
func (g *registry) find(ref string) (*segment, error) {
	if s := g.networks[ref]; s != nil {
		return s, nil
	}
	if ref == network.NetworkDefault {
		ref = nameBridge
	}
	var found []*segment
	for id, s := range g.networks {
		if s.Name == ref {
			return s, nil
		}
		if ref != "" && strings.HasPrefix(id, ref) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return nil, fault.NotFound("network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return nil, fault.Invalid("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(found))
}

func (g *registry) nameFree(name string) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return fault.Unavailable("the network manager is closed")
	}
	for _, s := range g.networks {
		if s.Name == name {
			return fault.Conflict("network with name %s already exists", name)
		}
	}
	return nil
}

// own lists the subnets of our networks.
func (g *registry) own() []netip.Prefix {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var out []netip.Prefix
	for _, s := range g.networks {
		if s.subnet != nil {
			out = append(out, s.subnet.Prefix())
		}
	}
	return out
}

func (g *registry) hostGateway() netip.Addr {
	for _, s := range g.networks {
		if s.Driver == driverBridge && s.builtin() {
			return s.gateway()
		}
	}
	return netip.Addr{}
}

// owned reports whether a live endpoint has the link.
func (g *registry) owned(link string) bool {
	for _, b := range g.sandboxes {
		if slices.ContainsFunc(b.endpoints, func(e *endpoint) bool { return e.link == link }) {
			return true
		}
	}
	return false
}

// borrowed reports whether the bridge is the administrator's, who may have put veths there.
func (g *registry) borrowed(index int) bool {
	for _, s := range g.networks {
		if s.Borrowed && s.index == index {
			return true
		}
	}
	return false
}

// readNetworks loads the records.
func (g *registry) readNetworks() error {
	entries, err := os.ReadDir(g.root)
	if err != nil {
		return err
	}
	for _, f := range entries {
		if f.IsDir() || !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		var r record
		if err := files.ReadJSON(filepath.Join(g.root, f.Name()), &r); err != nil {
			return err
		}
		if r.ID+".json" != f.Name() {
			return fault.Internal("record %s is about network %q", f.Name(), r.ID)
		}
		s, err := newSegment(r)
		if err != nil {
			return fmt.Errorf("cannot use record of network %s: %w", r.Name, err)
		}
		g.networks[s.ID] = s
	}
	return nil
}

// readSandboxes takes over the live ones and forgets the others.
func (g *registry) readSandboxes(live map[string]int) error {
	dir := filepath.Join(g.root, "sandboxes")
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
		g.adopt(r)
	}
	return nil
}

// adopt puts a recorded sandbox into the tables.
func (g *registry) adopt(r sandboxRecord) {
	b := &sandbox{join: r.Join, joined: true}
	for _, er := range r.Endpoints {
		s := g.networks[er.Network]
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
	g.sandboxes[b.join.Container] = b
}

func (g *registry) recordPath(id string) string { return filepath.Join(g.root, id+".json") }

func (g *registry) writeRecord(s *segment) error {
	return files.WriteJSON(g.recordPath(s.ID), s.record, files.Fast)
}

func (g *registry) sandboxPath(container string) string {
	return filepath.Join(g.root, "sandboxes", container+".json")
}

func (g *registry) writeSandbox(b *sandbox) error {
	r := sandboxRecord{Join: b.join}
	r.Join.Endpoints, r.Join.Ports, r.Join.Exposed = nil, nil, nil
	for _, e := range b.endpoints {
		r.Endpoints = append(r.Endpoints, endpointRecord{Network: e.seg.ID, Settings: e.settings, Link: e.link, Ifname: e.ifname})
	}
	for _, x := range b.bindings {
		r.Bindings = append(r.Bindings, bindingRecord{Port: x.port, HostIP: x.hostIP, HostPort: x.hostPort})
	}
	return files.WriteJSON(g.sandboxPath(b.join.Container), r, files.Fast)
}

func (g *registry) removeSandbox(container string) { os.Remove(g.sandboxPath(container)) }

// writeOrRemove keeps the sandbox's file in step.
func (g *registry) writeOrRemove(b *sandbox) error {
	g.mu.RLock()
	known := g.sandboxes[b.join.Container] == b
	g.mu.RUnlock()
	if !known {
		g.removeSandbox(b.join.Container)
		return nil
	}
	return g.writeSandbox(b)
}
