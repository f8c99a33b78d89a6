package system

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewInfo is `tare info`.
func NewInfo(env *command.Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "info [OPTIONS]", Short: "Display system-wide information", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.Info(cmd.Context(), client.InfoOptions{})
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(env.Stdout).Encode(res.Info)
			}
			if format != "" {
				return output.Inspect(env.Out(), format, []output.Object{{Value: res.Info}})
			}
			fmt.Fprintf(env.Stdout, "Client: Tare\n Version:    %s\n\nServer:\n", env.Version)
			showInfo(env.Stdout, res.Info)
			for _, w := range res.Info.Warnings {
				fmt.Fprintln(env.Stderr, w)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template")
	return cmd
}

func showInfo(w io.Writer, i system.Info) {
	line := func(name string, v any) { fmt.Fprintf(w, " %s: %v\n", name, v) }
	line("Containers", i.Containers)
	fmt.Fprintf(w, "  Running: %d\n  Paused: %d\n  Stopped: %d\n", i.ContainersRunning, i.ContainersPaused, i.ContainersStopped)
	line("Images", i.Images)
	line("Server Version", i.ServerVersion)
	line("Storage Driver", i.Driver)
	for _, kv := range i.DriverStatus {
		fmt.Fprintf(w, "  %s: %s\n", kv[0], kv[1])
	}
	line("Logging Driver", i.LoggingDriver)
	line("Cgroup Driver", i.CgroupDriver)
	line("Cgroup Version", i.CgroupVersion)
	fmt.Fprintf(w, " Plugins:\n  Volume: %s\n  Network: %s\n  Log: %s\n", strings.Join(i.Plugins.Volume, " "), strings.Join(i.Plugins.Network, " "), strings.Join(i.Plugins.Log, " "))
	line("Swarm", i.Swarm.LocalNodeState)
	var runtimes []string
	for r := range i.Runtimes {
		runtimes = append(runtimes, r)
	}
	slices.Sort(runtimes)
	line("Runtimes", strings.Join(runtimes, " "))
	line("Default Runtime", i.DefaultRuntime)
	fmt.Fprintln(w, " Security Options:")
	for _, o := range i.SecurityOptions {
		fmt.Fprintf(w, "  %s\n", strings.TrimPrefix(o, "name="))
	}
	line("Kernel Version", i.KernelVersion)
	line("Operating System", i.OperatingSystem)
	line("OSType", i.OSType)
	line("Architecture", i.Architecture)
	line("CPUs", i.NCPU)
	line("Total Memory", units.BytesSize(float64(i.MemTotal)))
	line("Name", i.Name)
	line("ID", i.ID)
	line("Docker Root Dir", i.DockerRootDir)
	line("Debug Mode", i.Debug)
	if len(i.Labels) > 0 {
		fmt.Fprintln(w, " Labels:")
		for _, l := range i.Labels {
			fmt.Fprintf(w, "  %s\n", l)
		}
	}
	line("Experimental", i.ExperimentalBuild)
	if r := i.RegistryConfig; r != nil {
		fmt.Fprintln(w, " Insecure Registries:")
		for host, idx := range r.IndexConfigs {
			if !idx.Secure {
				fmt.Fprintf(w, "  %s\n", host)
			}
		}
		for _, n := range r.InsecureRegistryCIDRs {
			fmt.Fprintf(w, "  %s\n", n)
		}
		if len(r.Mirrors) > 0 {
			fmt.Fprintln(w, " Registry Mirrors:")
			for _, m := range r.Mirrors {
				fmt.Fprintf(w, "  %s\n", m)
			}
		}
	}
	line("Live Restore Enabled", i.LiveRestoreEnabled)
}
