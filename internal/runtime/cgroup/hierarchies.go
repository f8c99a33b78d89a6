package cgroup

import (
	"bufio"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"tare/internal/base/fault"
)

// Hierarchies says where controllers are mounted.
type Hierarchies struct {
	V2 bool // one tree has all controllers
	// Controllers maps a v1 controller ("memory", "name=systemd") to its mount point; under v2 the one entry "" is the tree's.
	Controllers map[string]string
	// Unified is the mount point of a hybrid machine's v2 tree, and Offers the controllers it has; both empty elsewhere.
	Unified string
	Offers  []string
}

// mounts are the mount points, each once, in a fixed order.
func (h Hierarchies) mounts() []string {
	list := slices.Compact(slices.Sorted(maps.Values(h.Controllers)))
	if h.Unified != "" {
		list = append(list, h.Unified)
	}
	return list
}

func (h Hierarchies) inUnified(controller string) bool {
	return h.Unified != "" && slices.Contains(h.Offers, controller)
}

var mounted = sync.OnceValues(func() (Hierarchies, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Hierarchies{}, fault.Internal("cannot find the cgroup hierarchies: %w", err)
	}
	defer f.Close()
	h, err := parseMountinfo(f)
	if h.Unified != "" {
		h.Offers = strings.Fields(readString(h.Unified + "/cgroup.controllers"))
	}
	return h, err
})

// Mounted finds the hierarchies of this machine, once per process.
func Mounted() (Hierarchies, error) { return mounted() }

// v1Controllers are the words in a v1 mount's options that are controllers.
var v1Controllers = []string{
	"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma",
}

// parseMountinfo reads /proc/PID/mountinfo (proc_pid_mountinfo(5)). Only mounts
// of a hierarchy's root count; where one is mounted twice, the first does.
func parseMountinfo(r io.Reader) (Hierarchies, error) {
	h := Hierarchies{Controllers: map[string]string{}}
	unified := ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(fs) < 3 || fields[3] != "/" {
			continue
		}
		at := unescape(fields[4])
		switch fs[0] {
		case "cgroup2":
			if unified == "" {
				unified = at
			}
		case "cgroup":
			for _, opt := range strings.Split(fs[2], ",") {
				if !slices.Contains(v1Controllers, opt) && !strings.HasPrefix(opt, "name=") {
					continue
				}
				if _, ok := h.Controllers[opt]; !ok {
					h.Controllers[opt] = at
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return h, err
	}
	if len(h.Controllers) == 0 {
		if unified == "" {
			return h, fault.Unavailable("no cgroup hierarchy is mounted")
		}
		h.V2 = true
		h.Controllers[""] = unified
	} else {
		h.Unified = unified
	}
	return h, nil
}

// unescape undoes mountinfo's octal form of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
