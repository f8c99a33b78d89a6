package container

import (
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// NewUpdate is `tare update`.
func NewUpdate(env *command.Env) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Short: "Update configuration of one or more containers", Args: command.MinArgs(1),
		ValidArgsFunction: command.Complete(env, command.Containers()),
	}
	fs := cmd.Flags()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if fs.NFlag() == 0 {
			return errors.New("you must provide one or more flags when using this command")
		}
		r := container.Resources{
			BlkioWeight: f.blkioWeight, CPUPeriod: f.cpuPeriod, CPUQuota: f.cpuQuota, CPURealtimePeriod: f.cpuRTPeriod, CPURealtimeRuntime: f.cpuRTRuntime,
			CPUShares: f.cpuShares, CpusetCpus: f.cpusetCpus, CpusetMems: f.cpusetMems,
			Memory: int64(f.memory), MemoryReservation: int64(f.memoryReservation), MemorySwap: int64(f.memorySwap),
		}
		if fs.Changed("pids-limit") {
			r.PidsLimit = &f.pidsLimit
		}
		r.NanoCPUs = int64(f.cpus)
		o := client.ContainerUpdateOptions{Resources: &r}
		if f.restart != "" {
			p, err := ParseRestart(f.restart)
			if err != nil {
				return err
			}
			o.RestartPolicy = &p
		}
		c, err := env.Client(cmd.Context())
		if err != nil {
			return err
		}
		return command.Each(args, func(name string) error {
			res, err := c.ContainerUpdate(cmd.Context(), name, o)
			if err != nil {
				return err
			}
			for _, w := range res.Warnings {
				env.Warn("%s", w)
			}
			fmt.Fprintln(env.Stdout, name)
			return nil
		})
	}
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.cpuRTPeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	fs.Int64Var(&f.cpuRTRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.StringVar(&f.restart, "restart", "", "Restart policy to apply when a container exits")
	return cmd
}
