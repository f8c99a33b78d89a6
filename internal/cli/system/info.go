package system

import (
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

// info is what templates see: the engine's, and this program's as .ClientInfo.
type info struct {
	system.Info
	ClientInfo clientInfo
}

type clientInfo struct {
	Debug bool
	clientVersion
	APIVersion string `json:"ApiVersion,omitempty"` // hides the one that is negotiated, which info does not know
	Plugins    []string
	Warnings   []string
}

// NewInfo is `tare info`.
func NewInfo(env *command.Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "info [OPTIONS]", Short: "Display system-wide information", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			me := clientInfo{Debug: env.Debug, clientVersion: thisProgram(env), Plugins: []string{}}
			c, err := env.Client(cmd.Context())
			var res client.SystemInfoResult
			if err == nil {
				res, err = c.Info(cmd.Context(), client.InfoOptions{})
			}
			if format == "" {
				fmt.Fprintf(env.Stdout, "Client: Tare\n Version:    %s\n Context:    %s\n Debug Mode: %t\n\nServer:\n", env.Version, me.Context, env.Debug)
				if err != nil {
					return err
				}
				showInfo(env.Stdout, res.Info)
				for _, w := range res.Info.Warnings {
					fmt.Fprintln(env.Stderr, w)
				}
				return nil
			}
			if err != nil {
				return err
			}
			if format == "json" {
				format = "{{json .}}"
			}
			tmpl, err := output.Parse(format)
			if err != nil {
				return err
			}
			return output.Execute(env.Stdout, tmpl, info{Info: res.Info, ClientInfo: me})
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
	line("Init Binary", i.InitBinary)
	line("containerd version", i.ContainerdCommit.ID)
	line("runc version", i.RuncCommit.ID)
	line("init version", i.InitCommit.ID)
	fmt.Fprintln(w, " Security Options:")
	for _, o := range i.SecurityOptions {
		for kv := range strings.SplitSeq(o, ",") {
			switch k, v, _ := strings.Cut(kv, "="); k {
			case "name":
				fmt.Fprintf(w, "  %s\n", v)
			default:
				fmt.Fprintf(w, "   %s: %s\n", strings.ToUpper(k[:1])+k[1:], v)
			}
		}
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
	if i.Debug {
		fmt.Fprintf(w, "  File Descriptors: %d\n  Goroutines: %d\n  System Time: %s\n  EventsListeners: %d\n", i.NFd, i.NGoroutines, i.SystemTime, i.NEventsListener)
	}
	for _, p := range [][2]string{{"HTTP Proxy", i.HTTPProxy}, {"HTTPS Proxy", i.HTTPSProxy}, {"No Proxy", i.NoProxy}} {
		if p[1] != "" {
			line(p[0], p[1])
		}
	}
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
	if len(i.DefaultAddressPools) > 0 {
		fmt.Fprintln(w, " Default Address Pools:")
		for _, p := range i.DefaultAddressPools {
			fmt.Fprintf(w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	fmt.Fprintln(w)
}
