package cgroup

import (
	"bufio"
	"math"
	"os"
	"path"
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
	return s, nil
}

// OOMKills is how many processes of the group the kernel killed for want of memory; 0 if that is unknown.
func (g *Group) OOMKills() uint64 {
	if g.host.V2 {
		return readKeys(path.Join(g.dir(""), "memory.events"))["oom_kill"]
	}
	if d := g.dir("memory"); d != "" {
		return readKeys(path.Join(d, "memory.oom_control"))["oom_kill"]
	}
	return 0
}

// userHZ is the unit of cpuacct.stat: USER_HZ is 100 on every architecture that Go runs on.
const userHZ = 100

func (g *Group) statsV1(s *Stats) {
	if d := g.dir("cpuacct"); d != "" {
		s.CPUTotal = readNumber(path.Join(d, "cpuacct.usage"))
		for _, f := range strings.Fields(readString(path.Join(d, "cpuacct.usage_percpu"))) {
			n, _ := strconv.ParseUint(f, 10, 64)
			s.PerCPU = append(s.PerCPU, n)
		}
		k := readKeys(path.Join(d, "cpuacct.stat"))
		s.CPUUser, s.CPUSystem = k["user"]*(1e9/userHZ), k["system"]*(1e9/userHZ)
	}
	if d := g.dir("cpu"); d != "" {
		k := readKeys(path.Join(d, "cpu.stat"))
		s.Periods, s.Throttled, s.ThrottledTime = k["nr_periods"], k["nr_throttled"], k["throttled_time"]
	}
	if d := g.dir("memory"); d != "" {
		s.MemoryUsage = readNumber(path.Join(d, "memory.usage_in_bytes"))
		s.MemoryMax = readNumber(path.Join(d, "memory.max_usage_in_bytes"))
		s.MemoryLimit = readNumber(path.Join(d, "memory.limit_in_bytes"))
		s.MemoryFailcnt = readNumber(path.Join(d, "memory.failcnt"))
		s.MemoryStat = readKeys(path.Join(d, "memory.stat"))
		s.OOMKills = g.OOMKills()
	}
	if d := g.dir("pids"); d != "" {
		s.Pids = readNumber(path.Join(d, "pids.current"))
		s.PidsLimit = readNumber(path.Join(d, "pids.max"))
	}
	if d := g.dir("blkio"); d != "" {
		s.IO = readBlkio(d)
	}
}

func (g *Group) statsV2(s *Stats) {
	d := g.dir("")
	k := readKeys(path.Join(d, "cpu.stat"))
	s.CPUTotal, s.CPUUser, s.CPUSystem = k["usage_usec"]*1000, k["user_usec"]*1000, k["system_usec"]*1000
	s.Periods, s.Throttled, s.ThrottledTime = k["nr_periods"], k["nr_throttled"], k["throttled_usec"]*1000
	s.MemoryUsage = readNumber(path.Join(d, "memory.current"))
	s.MemoryMax = readNumber(path.Join(d, "memory.peak"))
	s.MemoryLimit = readNumber(path.Join(d, "memory.max"))
	s.MemoryStat = readKeys(path.Join(d, "memory.stat"))
	events := readKeys(path.Join(d, "memory.events"))
	s.MemoryFailcnt, s.OOMKills = events["max"], events["oom_kill"]
	s.Pids = readNumber(path.Join(d, "pids.current"))
	s.PidsLimit = readNumber(path.Join(d, "pids.max"))
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
				if len(f) != 3 || (f[1] != "Read" && f[1] != "Write") {
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
