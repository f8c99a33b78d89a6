package cgroup

import (
	"bufio"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Stats are a group's counters now.
type Stats struct {
	Time          time.Time
	CPUTotal      uint64   // ns
	CPUUser       uint64   // ns
	CPUSystem     uint64   // ns
	PerCPU        []uint64 // ns; v1 only
	PerCPUUser    []uint64 // ns; v1 only
	PerCPUSystem  []uint64 // ns; v1 only
	Periods       uint64
	Throttled     uint64
	ThrottledTime uint64 // ns
	Bursts        uint64 // periods that used up more than the quota
	BurstTime     uint64 // ns
	CPUs, Mems    string // that may be used
	MemoryUsage   uint64 // bytes, page cache included
	MemoryMax     uint64 // peak bytes; 0 if unknown
	MemoryLimit   uint64 // bytes; the host's memory where there is no limit
	MemoryFailcnt uint64
	MemoryStat    map[string]uint64 // memory.stat as the kernel names it
	MemoryEvents  map[string]uint64 // memory.events as the kernel names it; v2 only
	Swap          Counter           // v2: swap alone; v1: memory and swap
	Kernel        Counter           // v1 only
	KernelTCP     Counter           // v1 only
	OOMKills      uint64
	Pids          uint64
	PidsLimit     uint64                 // 0: none
	IO            []IOEntry              // bytes and operations per device
	Hugetlb       map[string]Counter     // by page size, "2MB"
	Rdma          map[string]RdmaCounter // by device
	// Pressure is by resource, "cpu", "memory", "io"; nil without a v2 tree.
	Pressure map[string]PressureStats
	V2       bool // all controllers are v2's
}

// Counter is use, its peak, and how often the limit was met. Bytes; a limit of 0 is none.
type Counter struct{ Usage, Max, Limit, Failcnt uint64 }

// RdmaCounter is what a group has of an RDMA device; a limit of 0 is none.
type RdmaCounter struct{ Handles, Objects, HandlesLimit, ObjectsLimit uint64 }

// PressureStats is how long some of a group's processes, or all, waited (Documentation/accounting/psi.rst).
type PressureStats struct{ Some, Full Stalls }

// Stalls are per cent of the last 10, 60 and 300 s, and µs since the group was made.
type Stalls struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// IOEntry is one line of block I/O counters.
type IOEntry struct {
	Major, Minor uint64
	Op           string // "read", "write" or "discard"
	Bytes, Ops   uint64
}

// Stats reads the counters. What the host does not count is zero; NotFound if the group is gone.
func (g *Group) Stats() (*Stats, error) {
	s := &Stats{Time: time.Now(), V2: g.host.V2}
	if !g.exists() {
		return nil, fault.NotFound("cgroup %s does not exist", g.path)
	}
	if g.host.V2 {
		g.statsV2(s)
	} else {
		g.statsV1(s)
	}
	if s.MemoryLimit == 0 || s.MemoryLimit > hostMemory() {
		s.MemoryLimit = hostMemory()
	}
	if d := g.dir("pids"); d != "" {
		s.Pids = readNumber(path.Join(d, "pids.current"))
		s.PidsLimit = readNumber(path.Join(d, "pids.max"))
	}
	if d := g.dir("cpuset"); d != "" {
		s.CPUs, s.Mems = readString(path.Join(d, "cpuset.cpus.effective")), readString(path.Join(d, "cpuset.mems.effective"))
		if !g.host.V2 {
			s.CPUs, s.Mems = readString(path.Join(d, "cpuset.effective_cpus")), readString(path.Join(d, "cpuset.effective_mems"))
		}
	}
	g.hugetlb(s)
	if d := g.dir("rdma"); d != "" {
		s.Rdma = readRdma(readString(path.Join(d, "rdma.current")), readString(path.Join(d, "rdma.max")))
	}
	if d := g.v2(); d != "" {
		for _, what := range []string{"cpu", "memory", "io"} {
			if text := readString(path.Join(d, what+".pressure")); text != "" {
				if s.Pressure == nil {
					s.Pressure = map[string]PressureStats{}
				}
				s.Pressure[what] = parsePressure(text)
			}
		}
	}
	return s, nil
}

func (g *place) hugetlb(s *Stats) {
	d, v2 := g.on("hugetlb")
	if d == "" {
		return
	}
	names, _ := filepath.Glob(path.Join(d, "hugetlb.*"))
	for _, n := range names {
		size, what, _ := strings.Cut(strings.TrimPrefix(path.Base(n), "hugetlb."), ".")
		if what != map[bool]string{true: "current", false: "usage_in_bytes"}[v2] {
			continue
		}
		if s.Hugetlb == nil {
			s.Hugetlb = map[string]Counter{}
		}
		base := path.Join(d, "hugetlb."+size+".")
		if v2 {
			s.Hugetlb[size] = Counter{readNumber(n), 0, readNumber(base + "max"), readKeys(base + "events")["max"]}
		} else {
			s.Hugetlb[size] = counterV1(base)
		}
	}
}

// counterV1 reads v1's four files of a resource counter.
func counterV1(prefix string) Counter {
	limit := readNumber(prefix + "limit_in_bytes")
	if limit > math.MaxInt64/2 { // none, rounded to pages
		limit = 0
	}
	return Counter{readNumber(prefix + "usage_in_bytes"), readNumber(prefix + "max_usage_in_bytes"), limit, readNumber(prefix + "failcnt")}
}

// readRdma reads lines "mlx4_0 hca_handle=1 hca_object=20" of what is used and of the limits.
func readRdma(current, limits string) map[string]RdmaCounter {
	var m map[string]RdmaCounter
	for i, text := range []string{current, limits} {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) == 0 {
				continue
			}
			c := m[f[0]]
			for _, kv := range f[1:] {
				key, val, _ := strings.Cut(kv, "=")
				n, _ := strconv.ParseUint(val, 10, 64)
				switch {
				case i == 0 && key == "hca_handle":
					c.Handles = n
				case i == 0 && key == "hca_object":
					c.Objects = n
				case key == "hca_handle":
					c.HandlesLimit = n
				case key == "hca_object":
					c.ObjectsLimit = n
				}
			}
			if m == nil {
				m = map[string]RdmaCounter{}
			}
			m[f[0]] = c
		}
	}
	return m
}

// parsePressure reads lines "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func parsePressure(text string) (p PressureStats) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var s Stalls
		for _, kv := range f[1:] {
			key, val, _ := strings.Cut(kv, "=")
			switch key {
			case "avg10":
				s.Avg10, _ = strconv.ParseFloat(val, 64)
			case "avg60":
				s.Avg60, _ = strconv.ParseFloat(val, 64)
			case "avg300":
				s.Avg300, _ = strconv.ParseFloat(val, 64)
			case "total":
				s.Total, _ = strconv.ParseUint(val, 10, 64)
			}
		}
		if f[0] == "full" {
			p.Full = s
		} else {
			p.Some = s
		}
	}
	return p
}

// OOMKills is how many processes of the group the kernel killed for want of memory; 0 if that is unknown.
func (g *place) OOMKills() uint64 {
	switch d, v2 := g.on("memory"); {
	case d == "":
		return 0
	case v2:
		return readKeys(path.Join(d, "memory.events"))["oom_kill"]
	default:
		return readKeys(path.Join(d, "memory.oom_control"))["oom_kill"]
	}
}

// userHZ is the unit of cpuacct.stat: USER_HZ is 100 on every architecture that Go runs on.
const userHZ = 100

func (g *place) statsV1(s *Stats) {
	if d := g.dir("cpuacct"); d != "" {
		s.CPUTotal = readNumber(path.Join(d, "cpuacct.usage"))
		for _, f := range strings.Fields(readString(path.Join(d, "cpuacct.usage_percpu"))) {
			n, _ := strconv.ParseUint(f, 10, 64)
			s.PerCPU = append(s.PerCPU, n)
		}
		for line := range strings.Lines(readString(path.Join(d, "cpuacct.usage_all"))) { // cpu user system
			if f := strings.Fields(line); len(f) == 3 && f[0] != "cpu" {
				user, _ := strconv.ParseUint(f[1], 10, 64)
				system, _ := strconv.ParseUint(f[2], 10, 64)
				s.PerCPUUser, s.PerCPUSystem = append(s.PerCPUUser, user), append(s.PerCPUSystem, system)
			}
		}
		k := readKeys(path.Join(d, "cpuacct.stat"))
		s.CPUUser, s.CPUSystem = k["user"]*(1e9/userHZ), k["system"]*(1e9/userHZ)
	}
	if d := g.dir("cpu"); d != "" {
		k := readKeys(path.Join(d, "cpu.stat"))
		s.Periods, s.Throttled, s.ThrottledTime = k["nr_periods"], k["nr_throttled"], k["throttled_time"]
		s.Bursts, s.BurstTime = k["nr_bursts"], k["burst_time"]
	}
	if d := g.dir("memory"); d != "" {
		s.MemoryUsage = readNumber(path.Join(d, "memory.usage_in_bytes"))
		s.MemoryMax = readNumber(path.Join(d, "memory.max_usage_in_bytes"))
		s.MemoryLimit = readNumber(path.Join(d, "memory.limit_in_bytes"))
		s.MemoryFailcnt = readNumber(path.Join(d, "memory.failcnt"))
		s.MemoryStat = readKeys(path.Join(d, "memory.stat"))
		s.Swap, s.Kernel, s.KernelTCP = counterV1(d+"/memory.memsw."), counterV1(d+"/memory.kmem."), counterV1(d+"/memory.kmem.tcp.")
		s.OOMKills = g.OOMKills()
	}
	if d := g.dir("blkio"); d != "" {
		s.IO = readBlkio(d)
	}
}

func (g *place) statsV2(s *Stats) {
	d := g.dir("")
	k := readKeys(path.Join(d, "cpu.stat"))
	s.CPUTotal, s.CPUUser, s.CPUSystem = k["usage_usec"]*1000, k["user_usec"]*1000, k["system_usec"]*1000
	s.Periods, s.Throttled, s.ThrottledTime = k["nr_periods"], k["nr_throttled"], k["throttled_usec"]*1000
	s.Bursts, s.BurstTime = k["nr_bursts"], k["burst_usec"]*1000
	s.MemoryUsage = readNumber(path.Join(d, "memory.current"))
	s.MemoryMax = readNumber(path.Join(d, "memory.peak"))
	s.MemoryLimit = readNumber(path.Join(d, "memory.max"))
	s.MemoryStat = readKeys(path.Join(d, "memory.stat"))
	events := readKeys(path.Join(d, "memory.events"))
	s.MemoryEvents, s.MemoryFailcnt, s.OOMKills = events, events["max"], events["oom_kill"]
	s.Swap = Counter{readNumber(path.Join(d, "memory.swap.current")), readNumber(path.Join(d, "memory.swap.peak")),
		readNumber(path.Join(d, "memory.swap.max")), readKeys(path.Join(d, "memory.swap.events"))["max"]}
	for line := range strings.Lines(readString(path.Join(d, "io.stat"))) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		major, minor, ok := device(f[0])
		if !ok {
			continue
		}
		v := map[string]uint64{}
		for _, kv := range f[1:] {
			key, val, _ := strings.Cut(kv, "=")
			v[key], _ = strconv.ParseUint(val, 10, 64)
		}
		s.IO = append(s.IO, IOEntry{major, minor, "read", v["rbytes"], v["rios"]}, IOEntry{major, minor, "write", v["wbytes"], v["wios"]})
		if v["dbytes"]|v["dios"] != 0 {
			s.IO = append(s.IO, IOEntry{major, minor, "discard", v["dbytes"], v["dios"]})
		}
	}
}

// readBlkio joins the bytes and the operations of v1's throttling layer, or of BFQ where that has counted.
func readBlkio(dir string) []IOEntry {
	for _, names := range [...][2]string{
		{"blkio.bfq.io_service_bytes_recursive", "blkio.bfq.io_serviced_recursive"},
		{"blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"},
		{"blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"},
	} {
		var list []IOEntry
		for i, name := range names {
			for line := range strings.Lines(readString(path.Join(dir, name))) {
				f := strings.Fields(line) // 8:0 Read 4096
				if len(f) != 3 || (f[1] != "Read" && f[1] != "Write" && f[1] != "Discard") {
					continue
				}
				major, minor, ok := device(f[0])
				n, err := strconv.ParseUint(f[2], 10, 64)
				if !ok || err != nil {
					continue
				}
				op := strings.ToLower(f[1])
				at := slices.IndexFunc(list, func(e IOEntry) bool { return e.Major == major && e.Minor == minor && e.Op == op })
				if at < 0 {
					at = len(list)
					list = append(list, IOEntry{Major: major, Minor: minor, Op: op})
				}
				if i == 0 {
					list[at].Bytes = n
				} else {
					list[at].Ops = n
				}
			}
		}
		if slices.ContainsFunc(list, func(e IOEntry) bool { return e.Bytes|e.Ops != 0 }) {
			return list
		}
	}
	return nil
}

func device(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, ok && err1 == nil && err2 == nil
}

func hostMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return math.MaxInt64
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

func readString(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// readNumber takes "max", and what can't be read, for 0.
func readNumber(file string) uint64 {
	n, _ := strconv.ParseUint(readString(file), 10, 64)
	return n
}

// readKeys reads a file of lines "key number".
func readKeys(file string) map[string]uint64 {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	m := map[string]uint64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, val, ok := strings.Cut(lines.Text(), " "); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(val), 10, 64); err == nil {
				m[key] = n
			}
		}
	}
	return m
}
