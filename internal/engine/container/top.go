package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/cgroup/unit"
)

// Top lists a running container's processes. Without arguments (or with -ef) the columns are those of ps -ef, read from
// /proc; other arguments are given to the host's ps.
func (s *Service) Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error) {
	e, err := s.index.find(ref)
	if err != nil {
		return container.TopResponse{}, err
	}
	rec := e.snapshot()
	switch {
	case !rec.State.running() && rec.State.Status == container.StateRestarting:
		return container.TopResponse{}, fault.Conflict("Container %s is restarting, wait until the container is running", e.id)
	case !rec.State.running():
		return container.TopResponse{}, fault.Conflict("container %s is not running", e.id)
	}
	g, err := cgroup.Open(s.cgroupOf(rec))
	if err != nil {
		return container.TopResponse{}, err
	}
	pids, err := g.Pids()
	if err != nil {
		return container.TopResponse{}, fmt.Errorf("cannot list the processes of container %s: %w", refName(ref), err)
	}
	slices.Sort(pids)
	var out container.TopResponse
	if args := strings.Join(psArgs, " "); args == "" || args == "-ef" || args == "ef" {
		out, err = readProcesses(pids)
	} else {
		out, err = hostPs(ctx, strings.Fields(args), pids)
	}
	if err == nil {
		e.publish("top")
	}
	return out, err
}

// cgroupPath is a container's cgroup below parent.
func cgroupPath(parent, id string) string { return unit.PathIn(parent, id) }

func (p *parts) cgroupOf(r record) string {
	if r.HostConfig.CgroupParent != "" {
		return cgroupPath(r.HostConfig.CgroupParent, r.ID)
	}
	return cgroupPath(p.cgroupParent(), r.ID)
}

// ticks is USER_HZ, the unit of times in /proc/<pid>/stat (proc(5)); it is 100 on every architecture that Go has.
const ticks = 100

func readProcesses(pids []int) (container.TopResponse, error) {
	out := container.TopResponse{Titles: []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}, Processes: [][]string{}}
	boot, err := bootTime()
	if err != nil {
		return out, err
	}
	now := time.Now()
	for _, pid := range pids {
		p, ok := readProcess(pid)
		if !ok {
			continue // ended meanwhile
		}
		started := boot.Add(time.Duration(p.start) * time.Second / ticks)
		stime := started.Format("15:04")
		if now.Sub(started) > 24*time.Hour {
			stime = started.Format("Jan02")
		}
		used := p.time / ticks
		load := uint64(0)
		if age := uint64(now.Sub(started).Seconds()); age > 0 {
			load = min(used*100/age, 99)
		}
		out.Processes = append(out.Processes, []string{
			p.user, strconv.Itoa(pid), p.ppid, strconv.FormatUint(load, 10), stime, p.tty,
			fmt.Sprintf("%02d:%02d:%02d", used/3600, used/60%60, used%60), p.command,
		})
	}
	return out, nil
}

type process struct {
	user, ppid, tty, command string
	start, time              uint64 // ticks
}

func readProcess(pid int) (process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, false
	}
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')') // the name may hold anything
	if open < 0 || end < open {
		return process{}, false
	}
	f := strings.Fields(string(stat[end+1:])) // from field 3, state, on
	if len(f) < 20 {
		return process{}, false
	}
	number := func(i int) uint64 { n, _ := strconv.ParseUint(f[i], 10, 64); return n }
	p := process{ppid: f[1], start: number(19), time: number(11) + number(12), tty: ttyName(number(4))}
	if info, err := os.Stat(dir); err == nil {
		p.user = owner(info)
	}
	if line, err := os.ReadFile(dir + "/cmdline"); err == nil && len(line) > 0 {
		p.command = strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")
	} else {
		p.command = "[" + string(stat[open+1:end]) + "]"
	}
	return p, true
}

// ttyName decodes tty_nr: Unix98 pseudo-terminals have the majors 136 to 143.
func ttyName(nr uint64) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case nr == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8|minor)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return "?"
}

func owner(info os.FileInfo) string {
	uid := strconv.FormatUint(uint64(statUID(info)), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

func bootTime() (time.Time, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(data)) {
		if s, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, fault.Internal("/proc/stat has no btime")
}

// hostPs runs the host's ps and keeps the lines of pids.
func hostPs(ctx context.Context, args []string, pids []int) (container.TopResponse, error) {
	for _, a := range args { // they could show more than processes, or change what a column means
		if strings.ContainsAny(a, "=/") {
			return container.TopResponse{}, fault.Invalid("specifying %q is not allowed", a)
		}
	}
	program, err := exec.LookPath("ps")
	if err != nil {
		return container.TopResponse{}, fault.Unsupported("top with arguments wants ps on the host, which is not installed")
	}
	list := make([]string, len(pids))
	for i, p := range pids {
		list[i] = strconv.Itoa(p)
	}
	data, err := exec.CommandContext(ctx, program, append(slices.Clone(args), "-q", strings.Join(list, ","))...).Output()
	if err != nil {
		if data, err = exec.CommandContext(ctx, program, args...).Output(); err != nil {
			return container.TopResponse{}, fault.Invalid("ps %s: %w", strings.Join(args, " "), err)
		}
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	out := container.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	column := slices.Index(out.Titles, "PID")
	if column < 0 {
		return container.TopResponse{}, fault.Invalid("Couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if n := len(out.Titles); len(fields) > n {
			fields = append(fields[:n-1:n-1], strings.Join(fields[n-1:], " "))
		}
		out.Processes = append(out.Processes, fields)
	}
	return out, nil
}
