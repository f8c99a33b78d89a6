package cgroup

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// Set changes limits of a live group at once; nil and empty fields stay as they are. Device
// rules, if there are any, replace those in force as a whole, without a moment in which
// something is refused that both allow. With systemd the unit's properties change too, so that a reload keeps them.
//
// A field that this machine's controllers can't honour is an error that names it; what came before it is then set.
func (g *Group) Set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := g.refuse(r); err != nil {
		return err
	}
	if !g.exists() {
		return fault.NotFound("cgroup %s does not exist", g.path)
	}
	if g.unit != nil {
		if err := g.setUnit(r); err != nil {
			return err
		}
	}
	return g.apply(r, false)
}

// apply writes what r gives.
func (g *Group) apply(r *specs.LinuxResources, fresh bool) error {
	w := writer{g: g}
	w.memory(r.Memory)
	w.cpu(r.CPU)
	w.blockIO(r.BlockIO)
	w.pids(r.Pids, fresh)
	w.hugepages(r.HugepageLimits)
	w.rdma(r.Rdma)
	w.network(r.Network)
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		for line := range strings.Lines(r.Unified[file]) { // such files take one device a write
			w.putIn(g.v2(), file, strings.TrimSuffix(line, "\n"))
		}
	}
	if w.err == nil && len(r.Devices) > 0 {
		w.err = g.devices(r.Devices, fresh)
	}
	return w.err
}

// refuse names what is asked for and can't be done on this machine, before anything is changed.
func (g *place) refuse(r *specs.LinuxResources) error {
	if len(r.Unified) != 0 && g.v2() == "" {
		return fault.Invalid("linux.resources.unified needs cgroup v2; this machine has v1")
	}
	for file := range r.Unified {
		controller, _, ok := strings.Cut(file, ".")
		if strings.Contains(file, "/") || !ok || controller == "" {
			return fault.Invalid("linux.resources.unified: %q is not a cgroup file", file)
		}
		if !g.host.V2 && controller != "cgroup" && !g.host.inUnified(controller) {
			return fault.Invalid("linux.resources.unified: this machine has no cgroup v2 controller %s for %s", controller, file)
		}
	}
	if m := r.Memory; m != nil {
		if err := g.refuseMemory(m); err != nil {
			return err
		}
	}
	if c := r.CPU; c != nil {
		if _, v2 := g.on("cpu"); v2 && (c.RealtimePeriod != nil || c.RealtimeRuntime != nil) {
			return fault.Invalid("linux.resources.cpu.realtimeRuntime needs cgroup v1; this machine has v2")
		}
		if c.Burst != nil && c.Quota != nil && *c.Quota > 0 && *c.Burst > uint64(*c.Quota) {
			return fault.Invalid("linux.resources.cpu.burst %d is larger than the quota %d", *c.Burst, *c.Quota)
		}
	}
	for _, h := range r.HugepageLimits {
		if h.Pagesize == "" || strings.ContainsAny(h.Pagesize, "/.") {
			return fault.Invalid("linux.resources.hugepageLimits: %q is not a page size", h.Pagesize)
		}
	}
	for name, limit := range r.Rdma {
		switch {
		case name == "" || strings.ContainsAny(name, " \n"):
			return fault.Invalid("linux.resources.rdma: %q is not a device", name)
		case limit.HcaHandles == nil && limit.HcaObjects == nil:
			return fault.Invalid("linux.resources.rdma: %s has neither hcaHandles nor hcaObjects", name)
		}
	}
	return nil
}

// writer writes control files until the first error.
type writer struct {
	g   *Group
	err error
}

func (w *writer) put(controller, file, value string) {
	if w.err != nil {
		return
	}
	dir := w.g.dir(controller)
	if dir == "" {
		w.err = fault.Invalid("this machine has no %s cgroup controller: cannot set %s", controller, file)
		return
	}
	w.putIn(dir, file, value)
}

func (w *writer) putIn(dir, file, value string) {
	if w.err != nil {
		return
	}
	err := write(dir, file, value)
	if err == nil {
		return
	}
	if !errors.Is(err, fs.ErrNotExist) {
		w.err = fault.Invalid("cannot set %s to %s: %w", path.Join(dir, file), value, err)
		return
	}
	controller, _, _ := strings.Cut(file, ".")
	switch {
	case !w.g.exists():
		w.err = fault.NotFound("cgroup %s does not exist", w.g.path)
	case dir == w.g.v2() && controller != "cgroup" && !slices.Contains(strings.Fields(readString(path.Join(dir, "cgroup.controllers"))), controller):
		w.err = fault.Invalid("cannot set %s: the cgroup v2 controller %s is not there or cannot be enabled in the parents of %s", file, controller, w.g.path)
	default:
		w.err = fault.Invalid("this kernel has no %s: it can't be set", file)
	}
}

// has tells whether the kernel has a control file.
func (w *writer) has(controller, file string) bool {
	dir := w.g.dir(controller)
	if dir == "" {
		return false
	}
	_, err := os.Stat(path.Join(dir, file))
	return err == nil
}

func (w *writer) text(controller, file, value string) {
	if value != "" {
		w.put(controller, file, value)
	}
}

func (w *writer) uint(controller, file string, value *uint64) {
	if value != nil {
		w.put(controller, file, strconv.FormatUint(*value, 10))
	}
}

func (w *writer) int(controller, file string, value *int64) {
	if value != nil {
		w.put(controller, file, strconv.FormatInt(*value, 10))
	}
}

// pids: 0 is a limit like any other. In a new v2 group it waits for Settle, or nobody could be born there.
func (w *writer) pids(p *specs.LinuxPids, fresh bool) {
	if p == nil || p.Limit == nil {
		return
	}
	limit := limitV2(*p.Limit)
	if _, v2 := w.g.on("pids"); v2 && fresh && limit == "0" {
		w.g.late.Store(&limit)
		return
	}
	w.put("pids", "pids.max", limit)
}

// hugepages limits reservations, where the kernel counts them, and use.
func (w *writer) hugepages(limits []specs.LinuxHugepageLimit) {
	for _, h := range limits {
		rest := "limit_in_bytes"
		if _, v2 := w.g.on("hugetlb"); v2 {
			rest = "max"
		}
		value := strconv.FormatUint(h.Limit, 10)
		w.put("hugetlb", "hugetlb."+h.Pagesize+"."+rest, value)
		if reserved := "hugetlb." + h.Pagesize + ".rsvd." + rest; w.err == nil && w.has("hugetlb", reserved) {
			w.put("hugetlb", reserved, value)
		}
	}
}

func (w *writer) rdma(devices map[string]specs.LinuxRdma) {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		line := name
		if n := devices[name].HcaHandles; n != nil {
			line += " hca_handle=" + strconv.FormatUint(uint64(*n), 10)
		}
		if n := devices[name].HcaObjects; n != nil {
			line += " hca_object=" + strconv.FormatUint(uint64(*n), 10)
		}
		w.put("rdma", "rdma.max", line)
	}
}

func (w *writer) network(n *specs.LinuxNetwork) {
	if n == nil {
		return
	}
	if n.ClassID != nil {
		w.put("net_cls", "net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10))
	}
	for _, p := range n.Priorities {
		w.put("net_prio", "net_prio.ifpriomap", p.Name+" "+strconv.FormatUint(uint64(p.Priority), 10))
	}
}

func limitV2(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}
