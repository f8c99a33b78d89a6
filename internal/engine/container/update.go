package container

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	"tare/internal/engine/spec"
	"tare/internal/runtime/cgroup"
)

// Update changes limits, at once if the container runs, and the restart policy. Zero fields stay as they are.
func (s *Service) Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	none := container.UpdateResponse{Warnings: []string{}}
	e, err := s.index.find(ref)
	if err != nil {
		return none, err
	}
	if err := refuseUpdate(u.Resources); err != nil {
		return none, err
	}
	if u.RestartPolicy.Name != "" {
		if err := container.ValidateRestartPolicy(u.RestartPolicy); err != nil {
			return none, fault.Invalid("%w", err)
		}
	}
	if err := e.lock(ctx); err != nil {
		return none, err
	}
	defer e.unlock()
	rec := e.snapshot()
	host := *rec.HostConfig
	merged, err := mergeResources(host.Resources, u.Resources)
	if err != nil {
		return none, err
	}
	warnings, err := spec.ValidateResources(merged, s.host)
	if err != nil {
		return none, fmt.Errorf("Cannot update container %s: %w", e.id, err)
	}
	host.Resources = merged
	if u.RestartPolicy.Name != "" {
		if host.AutoRemove && !u.RestartPolicy.IsNone() {
			return none, fault.Invalid("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		host.RestartPolicy = u.RestartPolicy
	}
	if rec.State.running() {
		parent := host.CgroupParent
		if parent == "" {
			parent = s.cgroupParent()
		}
		g, err := cgroup.Open(cgroupPath(parent, e.id))
		if err == nil {
			err = g.Set(spec.Resources(merged, s.host, nil))
		}
		if err != nil {
			return none, fmt.Errorf("Cannot update container %s: %w", e.id, err)
		}
	}
	if err := s.save(e.change(func(r *record) { r.HostConfig = &host })); err != nil {
		return none, err
	}
	e.publish("update")
	if warnings != nil {
		none.Warnings = warnings
	}
	return none, nil
}

func refuseUpdate(r container.Resources) error {
	switch {
	case len(r.BlkioWeightDevice)+len(r.BlkioDeviceReadBps)+len(r.BlkioDeviceWriteBps)+len(r.BlkioDeviceReadIOps)+len(r.BlkioDeviceWriteIOps) > 0:
		return fault.Unsupported("limits of single block devices cannot be updated")
	case len(r.Devices)+len(r.DeviceCgroupRules)+len(r.DeviceRequests) > 0:
		return fault.Unsupported("devices cannot be updated")
	case len(r.Ulimits) > 0:
		return fault.Unsupported("ulimits cannot be updated")
	case r.CgroupParent != "":
		return fault.Unsupported("the cgroup parent cannot be updated")
	case r.OomKillDisable != nil && *r.OomKillDisable:
		return fault.Unsupported("oom-kill-disable cannot be updated")
	}
	return nil
}

// mergeResources puts u's non-zero fields over r.
func mergeResources(r, u container.Resources) (container.Resources, error) {
	set := func(to *int64, from int64) {
		if from != 0 {
			*to = from
		}
	}
	if r.NanoCPUs > 0 && (u.CPUPeriod != 0 || u.CPUQuota != 0) {
		return r, fault.Conflict("Conflicting options: CPU Period and Quota cannot be updated as NanoCPUs has already been set")
	}
	if (r.CPUPeriod > 0 || r.CPUQuota > 0) && u.NanoCPUs > 0 {
		return r, fault.Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period or Quota has already been set")
	}
	if u.Memory > 0 && u.MemorySwap == 0 && r.MemorySwap > 0 && u.Memory > r.MemorySwap {
		return r, fault.Conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	if u.BlkioWeight != 0 {
		r.BlkioWeight = u.BlkioWeight
	}
	set(&r.CPUShares, u.CPUShares)
	set(&r.NanoCPUs, u.NanoCPUs)
	set(&r.CPUPeriod, u.CPUPeriod)
	set(&r.CPUQuota, u.CPUQuota)
	set(&r.CPURealtimePeriod, u.CPURealtimePeriod)
	set(&r.CPURealtimeRuntime, u.CPURealtimeRuntime)
	set(&r.Memory, u.Memory)
	set(&r.MemorySwap, u.MemorySwap)
	set(&r.MemoryReservation, u.MemoryReservation)
	if u.CpusetCpus != "" {
		r.CpusetCpus = u.CpusetCpus
	}
	if u.CpusetMems != "" {
		r.CpusetMems = u.CpusetMems
	}
	if u.PidsLimit != nil {
		r.PidsLimit = u.PidsLimit
	}
	if u.MemorySwappiness != nil {
		r.MemorySwappiness = u.MemorySwappiness
	}
	return r, nil
}
