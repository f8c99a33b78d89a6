package plan

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// JoinsUser tells whether a user namespace is entered that exists already.
func (e *Entrance) JoinsUser() bool { return e.joins(unix.CLONE_NEWUSER) }

// JoinsTime is the same for a time namespace.
func (e *Entrance) JoinsTime() bool { return e.joins(unix.CLONE_NEWTIME) }

func (e *Entrance) joins(flag uint64) bool {
	if e == nil {
		return false
	}
	for i := range e.Enter {
		if e.Enter[i].Flags == flag {
			return true
		}
	}
	return e.Join&flag != 0
}

// InUser tells whether the process's first step is done in a user namespace that is not the parent's.
func (p *Plan) InUser() bool {
	return p.Clone&unix.CLONE_NEWUSER != 0 || p.Entrance.JoinsUser()
}

// lines lists what the parent does, for people.
func (e *Entrance) lines(b *strings.Builder) {
	if len(e.CPUs) != 0 {
		line(b, "begin on CPUs "+bits(e.CPUs), "process.execCPUAffinity.initial")
	}
	for i := range e.Enter {
		line(b, "first "+e.Enter[i].String(), e.Enter[i].Why)
	}
	if e.Join != 0 {
		line(b, "first enter the container's "+flagNames(e.Join, cloneNames), "linux.namespaces")
	}
	if e.Offsets != nil {
		line(b, "first make a time namespace"+parens(e.Offsets...), "linux.timeOffsets")
	}
	for _, m := range e.UIDs {
		line(b, "map uids "+mapName(m), "linux.uidMappings")
	}
	for _, m := range e.GIDs {
		line(b, "map gids "+mapName(m), "linux.gidMappings")
	}
}

func mapName(m specs.LinuxIDMapping) string {
	return fmt.Sprintf("%d to the host's %d, %d of them", m.ContainerID, m.HostID, m.Size)
}

// IDMap is the mapping of a mount in Num: how many uid mappings, three numbers for each, the same
// for gids, and 1 at the end if what is mounted below is mapped too.
type IDMap struct {
	UIDs, GIDs []specs.LinuxIDMapping
	Recursive  bool
}

func (m *IDMap) pack() []uint64 {
	var n []uint64
	for _, list := range [][]specs.LinuxIDMapping{m.UIDs, m.GIDs} {
		n = append(n, uint64(len(list)))
		for _, e := range list {
			n = append(n, uint64(e.ContainerID), uint64(e.HostID), uint64(e.Size))
		}
	}
	if m.Recursive {
		return append(n, 1)
	}
	return append(n, 0)
}

// UnpackIDMap reads it back.
func UnpackIDMap(n []uint64) *IDMap {
	m := new(IDMap)
	for _, list := range []*[]specs.LinuxIDMapping{&m.UIDs, &m.GIDs} {
		count := n[0]
		n = n[1:]
		for range count {
			*list = append(*list, specs.LinuxIDMapping{ContainerID: uint32(n[0]), HostID: uint32(n[1]), Size: uint32(n[2])})
			n = n[3:]
		}
	}
	m.Recursive = n[0] != 0
	return m
}

func mappingName(n []uint64) string {
	if len(n) == 0 {
		return ""
	}
	m := UnpackIDMap(n)
	var b strings.Builder
	b.WriteString("idmap")
	if m.Recursive {
		b.WriteString(" recursive")
	}
	for _, l := range []struct {
		kind string
		list []specs.LinuxIDMapping
	}{{" u", m.UIDs}, {" g", m.GIDs}} {
		for _, e := range l.list {
			fmt.Fprintf(&b, "%s%d:%d:%d", l.kind, e.ContainerID, e.HostID, e.Size)
		}
	}
	return b.String()
}
