// Package cgroup is the runtime's and the engine's view of cgroups v1 and v2
// (cgroups(7), Documentation/admin-guide/cgroup-v2.rst). A Group is one
// container's directory, in every controller's hierarchy under v1.
package cgroup

import (
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// Group is a container's cgroup.
type Group struct{}

// Stats are a group's counters now.
type Stats struct {
	Time          time.Time
	CPUTotal      uint64   // ns
	CPUUser       uint64   // ns
	CPUSystem     uint64   // ns
	PerCPU        []uint64 // ns; v1 only
	Periods       uint64
	Throttled     uint64
	ThrottledTime uint64 // ns
	MemoryUsage   uint64 // bytes, page cache included
	MemoryMax     uint64 // peak bytes; 0 if unknown
	MemoryLimit   uint64 // bytes; the host's memory where there is no limit
	MemoryFailcnt uint64
	MemoryStat    map[string]uint64 // memory.stat as the kernel names it
	OOMKills      uint64
	Pids          uint64
	PidsLimit     uint64    // 0: none
	IO            []IOEntry // bytes and operations per device
	V2            bool
}

// IOEntry is one line of block I/O counters.
type IOEntry struct {
	Major, Minor uint64
	Op           string // "read" or "write"
	Bytes, Ops   uint64
}

// Open returns the group at an OCI cgroupsPath such as "/tare/<instance>/<id>"; it need not exist.
func Open(path string) (*Group, error) { return nil, fault.Unsupported("") }

func (g *Group) Create(r *specs.LinuxResources) error { return fault.Unsupported("") }

// Set changes limits of a live group; nil fields stay as they are.
func (g *Group) Set(r *specs.LinuxResources) error { return fault.Unsupported("") }
func (g *Group) Stats() (*Stats, error)            { return nil, fault.Unsupported("") }

// Pids lists the processes in the group and below, host pids.
func (g *Group) Pids() ([]int, error) { return nil, fault.Unsupported("") }
func (g *Group) Freeze() error        { return fault.Unsupported("") }
func (g *Group) Thaw() error          { return fault.Unsupported("") }

// Remove deletes the group; NotFound is no error. It does not kill.
func (g *Group) Remove() error { return fault.Unsupported("") }
