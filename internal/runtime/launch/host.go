package launch

import (
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
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return plan.Host{}, fault.Internal("cannot read the limit of open files: %w", err)
	}
	host.HardFile = lim.Max
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return plan.Host{}, fault.Internal("cannot read this process's capabilities: %w", err)
	}
	host.CanRaiseLimits = data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
	return host, nil
}
