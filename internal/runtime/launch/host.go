package launch

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/plan"
)

// Host finds out what compiling plans must know of this machine and this process.
func Host() (plan.Host, error) {
	h, err := cgroup.Mounted()
	if err != nil {
		return plan.Host{}, err
	}
	host := plan.Host{Cgroup: plan.CgroupV1, Cgroups: h.Controllers, Unified: h.Unified, SystemdRoot: cgroup.SystemdRoot()}
	if h.V2 {
		host.Cgroup = plan.CgroupV2
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return plan.Host{}, fault.Internal("cannot read this process's capabilities: %w", err)
	}
	host.CanRaiseLimits = data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
	if !host.CanRaiseLimits {
		host.Hard = map[string]uint64{}
		plan.RlimitNames(func(name string, resource int) {
			var lim unix.Rlimit
			if unix.Getrlimit(resource, &lim) == nil && lim.Max != unix.RLIM_INFINITY {
				host.Hard[name] = lim.Max
			}
		})
		host.OOMScore = oomScoreNow()
	}
	host.AppArmor, host.SELinux = appArmor(), seLinux()
	return host, nil
}

// appArmor tells whether the kernel confines with it (Documentation/admin-guide/LSM/apparmor.rst).
func appArmor() bool {
	var b [1]byte
	fd, err := unix.Open("/sys/module/apparmor/parameters/enabled", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, b[:])
	return err == nil && n == 1 && b[0] == 'Y'
}

// seLinux tells whether its file system is mounted with a policy in it (selinux(8)).
func seLinux() bool {
	return unix.Access("/sys/fs/selinux/enforce", unix.F_OK) == nil
}

// oomScoreNow is this process's oom_score_adj, which its children inherit.
func oomScoreNow() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}
