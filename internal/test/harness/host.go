package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tare/internal/server/config"
)

// Instance is the engine's name on this host.
func (e *Engine) Instance() string {
	return (&config.Config{DataRoot: e.DataRoot, ExecRoot: e.ExecRoot}).Instance()
}

// sweepHost removes what an ended engine keeps by design (its default bridge and firewall table), and tells of
// what it must not have left.
func (e *Engine) sweepHost() error {
	var errs []error
	if mounts, err := e.Mounts(); err != nil {
		errs = append(errs, err)
	} else if len(mounts) > 0 {
		errs = append(errs, fmt.Errorf("mounts are left: %q", mounts))
		for i := len(mounts) - 1; i >= 0; i-- {
			unix.Unmount(mounts[i], unix.MNT_DETACH)
		}
	}
	if groups := e.Cgroups(); len(groups) > 0 {
		errs = append(errs, fmt.Errorf("cgroups are left: %q", groups))
	}
	links, err := e.Links()
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
	return errors.Join(append(errs, e.removeTables())...)
}

// Links are the host's network links of this engine.
func (e *Engine) Links() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var ours []netlink.Link
	for _, l := range all {
		if strings.Contains(l.Attrs().Name, e.Instance()) || strings.Contains(l.Attrs().Alias, e.Instance()) {
			ours = append(ours, l)
		}
	}
	return ours, nil
}

func (e *Engine) removeTables() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if strings.Contains(t.Name, e.Instance()) {
			c.DelTable(t)
		}
	}
	return c.Flush()
}

// Mounts are the host's mount points below the engine's folder.
func (e *Engine) Mounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], e.Dir+"/") {
			list = append(list, f[4])
		}
	}
	return list, nil
}

// Cgroups are the control groups of this engine's containers.
func (e *Engine) Cgroups() []string {
	var list []string
	for _, pattern := range []string{"/sys/fs/cgroup/tare/%s/*/cgroup.procs", "/sys/fs/cgroup/*/tare/%s/*/cgroup.procs"} {
		found, _ := filepath.Glob(fmt.Sprintf(pattern, e.Instance()))
		for _, f := range found {
			list = append(list, filepath.Dir(f))
		}
	}
	return list
}

// SupervisorPid is the pid of the engine's supervisor, 0 if it has none.
func (e *Engine) SupervisorPid() int {
	data, err := os.ReadFile(filepath.Join(e.ExecRoot, "supervisor.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}
