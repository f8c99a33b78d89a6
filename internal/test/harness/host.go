package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tare/internal/network"
	"tare/internal/server/config"
)

// Host is what an engine has, or left, outside its folders.
type Host struct {
	dir, execRoot string
	Instance      string // the engine's name on this host
}

func newHost(dir, dataRoot, execRoot string) Host {
	return Host{dir, execRoot, (&config.Config{DataRoot: dataRoot, ExecRoot: execRoot}).Instance()}
}

// sweep removes what an ended engine keeps by design (its default bridge and firewall table), and tells of
// what it must not have left.
func (h Host) sweep() error {
	var errs []error
	if mounts, err := h.Mounts(); err != nil {
		errs = append(errs, err)
	} else if len(mounts) > 0 {
		errs = append(errs, fmt.Errorf("mounts are left: %q", mounts))
		for i := len(mounts) - 1; i >= 0; i-- {
			unix.Unmount(mounts[i], unix.MNT_DETACH)
		}
	}
	if groups := h.Cgroups(); len(groups) > 0 {
		errs = append(errs, fmt.Errorf("cgroups are left: %q", groups))
	}
	links, err := h.Links()
	if err != nil {
		errs = append(errs, err)
	}
	for _, l := range links {
		if l.Type() != "bridge" {
			errs = append(errs, fmt.Errorf("the link %s is left", l.Attrs().Name))
		}
		if err := netlink.LinkDel(l); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, network.Destroy(h.Instance, ""))...)
}

// killAll ends the processes in this engine's control groups, and its supervisor.
func (h Host) killAll() {
	groups := h.Cgroups()
	for _, g := range groups {
		data, _ := os.ReadFile(filepath.Join(g, "cgroup.procs"))
		for _, line := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	if pid := h.SupervisorPid(); pid > 0 {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // "tare-run supervise INSTANCE"
		if strings.Contains(string(args), h.Instance) {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	for _, g := range groups {
		os.Remove(g) // may be busy still
	}
}

// Links are the host's network links of this engine.
func (h Host) Links() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // another engine is at work
		all, err = netlink.LinkList()
	}
	if err != nil {
		return nil, err
	}
	var ours []netlink.Link
	for _, l := range all {
		if strings.Contains(l.Attrs().Name, h.Instance) || strings.Contains(l.Attrs().Alias, h.Instance) {
			ours = append(ours, l)
		}
	}
	return ours, nil
}

// Mounts are the host's mount points below the engine's folder.
func (h Host) Mounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], h.dir+"/") {
			list = append(list, f[4])
		}
	}
	return list, nil
}

// Cgroups are the control groups of this engine's containers.
func (h Host) Cgroups() []string {
	var list []string
	for _, pattern := range []string{"/sys/fs/cgroup/tare/%s/*/cgroup.procs", "/sys/fs/cgroup/*/tare/%s/*/cgroup.procs"} {
		found, _ := filepath.Glob(fmt.Sprintf(pattern, h.Instance))
		for _, f := range found {
			list = append(list, filepath.Dir(f))
		}
	}
	return list
}

// SupervisorPid is the pid of the engine's supervisor, 0 if it has none.
func (h Host) SupervisorPid() int {
	data, err := os.ReadFile(filepath.Join(h.execRoot, "supervisor.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}
