package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/container"

	"tare/internal/runtime/cgroup"
)

// Stats samples a container now; one that does not run has only its names. PreCPUStats is empty: the door keeps the sample before.
func (s *Service) Stats(ctx context.Context, ref string) (container.StatsResponse, error) {
	e, err := s.index.find(ref)
	if err != nil {
		return container.StatsResponse{}, err
	}
	rec := e.snapshot()
	out := container.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux"}
	if !rec.State.running() {
		return out, nil
	}
	g, err := cgroup.Open(s.cgroupOf(rec))
	if err != nil {
		return out, err
	}
	st, err := g.Stats()
	if err != nil {
		if !e.snapshot().State.running() {
			return out, nil
		}
		return out, fmt.Errorf("cannot sample container %s: %w", refName(ref), err)
	}
	fillStats(&out, st)
	if out.CPUStats.SystemUsage, err = systemTime(); err != nil {
		return out, err
	}
	if !rec.HostConfig.NetworkMode.IsHost() {
		out.Networks = interfaces(rec.State.Pid)
	}
	return out, nil
}

func fillStats(out *container.StatsResponse, st *cgroup.Stats) {
	out.Read = st.Time
	out.CPUStats = container.CPUStats{
		CPUUsage:       container.CPUUsage{TotalUsage: st.CPUTotal, UsageInUsermode: st.CPUUser, UsageInKernelmode: st.CPUSystem, PercpuUsage: st.PerCPU},
		OnlineCPUs:     uint32(runtime.NumCPU()),
		ThrottlingData: container.ThrottlingData{Periods: st.Periods, ThrottledPeriods: st.Throttled, ThrottledTime: st.ThrottledTime},
	}
	out.MemoryStats = container.MemoryStats{Usage: st.MemoryUsage, MaxUsage: st.MemoryMax, Limit: st.MemoryLimit, Failcnt: st.MemoryFailcnt, Stats: st.MemoryStat}
	out.PidsStats = container.PidsStats{Current: st.Pids, Limit: st.PidsLimit}
	for _, io := range st.IO {
		out.BlkioStats.IoServiceBytesRecursive = append(out.BlkioStats.IoServiceBytesRecursive,
			container.BlkioStatEntry{Major: io.Major, Minor: io.Minor, Op: io.Op, Value: io.Bytes})
		if !st.V2 {
			out.BlkioStats.IoServicedRecursive = append(out.BlkioStats.IoServicedRecursive,
				container.BlkioStatEntry{Major: io.Major, Minor: io.Minor, Op: io.Op, Value: io.Ops})
		}
	}
}

// systemTime is the CPU time that the whole host used, idle included, in ns: what shares are computed against.
func systemTime() (uint64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(data, []byte{'\n'})
	var sum uint64
	for i, f := range strings.Fields(string(line)) {
		if i == 0 || i > 8 { // user nice system idle iowait irq softirq steal; guest time is in user already
			continue
		}
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot read /proc/stat: %w", err)
		}
		sum += n
	}
	return sum * (1e9 / ticks), nil
}

// interfaces reads the counters of a process's network namespace.
func interfaces(pid int) map[string]container.NetworkStats {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil
	}
	out := map[string]container.NetworkStats{}
	for line := range strings.Lines(string(data)) {
		name, counters, ok := strings.Cut(line, ":")
		f := strings.Fields(counters)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(f) < 12 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		out[name] = container.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out
}

func statUID(info os.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}
