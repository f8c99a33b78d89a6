package oci

import (
	"encoding/json"
	"flag"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup"
)

// event is a line of `events`, with runc's keys; so are the statistics below.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

type statistics struct {
	CPU     cpuStats       `json:"cpu"`
	Memory  memoryStats    `json:"memory"`
	Pids    pidsStats      `json:"pids"`
	Blkio   blkioStats     `json:"blkio"`
	Hugetlb map[string]any `json:"hugetlb"`
}

type cpuStats struct {
	Usage struct {
		Total  uint64   `json:"total,omitempty"`
		Percpu []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods   uint64 `json:"periods,omitempty"`
		Throttled uint64 `json:"throttledPeriods,omitempty"`
		Time      uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type memoryStats struct {
	Cache uint64            `json:"cache,omitempty"`
	Usage memoryEntry       `json:"usage"`
	Raw   map[string]uint64 `json:"raw,omitempty"`
}

type pidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type blkioStats struct {
	Bytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Ops   []blkioEntry `json:"ioServicedRecursive,omitempty"`
}

type blkioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// events tells of a container until it ends: statistics now and then, and when the kernel kills for want of memory.
func events(g *global, fs *flag.FlagSet, args []string) (int, error) {
	once := fs.Bool("stats", false, "one line of statistics, then exit")
	interval := fs.Duration("interval", 5*time.Second, "time between statistics")
	if err := parse(fs, args, 1, 1); err != nil {
		return 1, err
	}
	if *interval <= 0 {
		return 1, fault.Invalid("duration interval must be greater than 0")
	}
	r, _, err := g.load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	if r.Status == specs.StateStopped {
		return 1, fault.Conflict("container with id %s is not running", r.ID)
	}
	group, err := cgroup.Open(r.Cgroup)
	if err != nil {
		return 1, err
	}
	out := json.NewEncoder(g.stdout)
	tell := func() error {
		s, err := group.Stats()
		if err != nil {
			return err
		}
		return out.Encode(event{Type: "stats", ID: r.ID, Data: runcStats(s)})
	}
	if *once {
		return 0, tell()
	}
	return 0, watchEvents(r, group, *interval, tell, out.Encode)
}

func watchEvents(r *record, group *cgroup.Group, interval time.Duration, tell func() error, encode func(any) error) error {
	pidfd, err := unix.PidfdOpen(r.Pid, 0)
	if err != nil {
		return fault.Conflict("container with id %s is not running", r.ID)
	}
	defer unix.Close(pidfd)
	polled := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	watch, err := group.WatchOOM()
	if err == nil {
		defer watch.Close()
		polled = append(polled, unix.PollFd{Fd: int32(watch.FD()), Events: int16(watch.Events())})
	}
	// A notice of v1 comes before the kill is counted: look at the count for a while after it.
	kills, look := group.OOMKills(), time.Time{}
	next := time.Now().Add(interval)
	for {
		until := next
		if time.Now().Before(look) {
			until = time.Now().Add(10 * time.Millisecond)
		}
		_, err := unix.Poll(polled, max(0, int(time.Until(until).Milliseconds())))
		if err != nil && err != unix.EINTR {
			return fault.Internal("cannot wait for events: %w", err)
		}
		gone := polled[0].Revents != 0
		if len(polled) > 1 && polled[1].Revents != 0 {
			_, removed := watch.Take()
			gone = gone || removed
			look = time.Now().Add(time.Second)
		}
		for now := group.OOMKills(); kills < now; kills++ {
			if err := encode(event{Type: "oom", ID: r.ID}); err != nil {
				return err
			}
		}
		if gone {
			return nil
		}
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(interval)
		if err := tell(); err != nil {
			return nil // it ended
		}
	}
}

func runcStats(s *cgroup.Stats) statistics {
	var t statistics
	t.CPU.Usage.Total, t.CPU.Usage.Percpu, t.CPU.Usage.Kernel, t.CPU.Usage.User = s.CPUTotal, s.PerCPU, s.CPUSystem, s.CPUUser
	t.CPU.Throttling.Periods, t.CPU.Throttling.Throttled, t.CPU.Throttling.Time = s.Periods, s.Throttled, s.ThrottledTime
	t.Memory = memoryStats{Cache: s.MemoryStat["cache"], Raw: s.MemoryStat,
		Usage: memoryEntry{Limit: s.MemoryLimit, Usage: s.MemoryUsage, Max: s.MemoryMax, Failcnt: s.MemoryFailcnt}}
	if s.V2 {
		t.Memory.Cache = s.MemoryStat["file"]
	}
	t.Pids = pidsStats{Current: s.Pids, Limit: s.PidsLimit}
	for _, e := range s.IO {
		op := "Read"
		if e.Op == "write" {
			op = "Write"
		}
		t.Blkio.Bytes = append(t.Blkio.Bytes, blkioEntry{e.Major, e.Minor, op, e.Bytes})
		t.Blkio.Ops = append(t.Blkio.Ops, blkioEntry{e.Major, e.Minor, op, e.Ops})
	}
	t.Hugetlb = map[string]any{}
	return t
}
