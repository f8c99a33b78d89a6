package container

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// NewTop is `tare top`.
func NewTop(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "top CONTAINER [ps OPTIONS]", Short: "Display the running processes of a container", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			top, err := c.ContainerTop(cmd.Context(), args[0], client.ContainerTopOptions{Arguments: args[1:]})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(env.Stdout, 20, 1, 3, ' ', 0)
			fmt.Fprintln(w, strings.Join(top.Titles, "\t"))
			for _, p := range top.Processes {
				fmt.Fprintln(w, strings.Join(p, "\t"))
			}
			return w.Flush()
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Running),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// NewPort is `tare port`.
func NewPort(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Short: "List port mappings or a specific mapping for the container", Args: command.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			got, err := c.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			var only network.Port
			if len(args) == 2 {
				number, _, _ := strings.Cut(args[1], "/")
				if _, err := strconv.ParseUint(number, 10, 16); err != nil {
					return fmt.Errorf("Error: invalid port (%s): %w", args[1], err)
				}
				if only, err = network.ParsePort(args[1]); err != nil {
					return fmt.Errorf("Error: invalid port (%s): %w", args[1], err)
				}
			}
			var lines []string
			for port, bindings := range got.Container.NetworkSettings.Ports {
				if !only.IsZero() && port != only {
					continue
				}
				for _, b := range bindings {
					at := b.HostIP.String() + ":" + b.HostPort
					if b.HostIP.Is6() {
						at = "[" + b.HostIP.String() + "]:" + b.HostPort
					}
					if only.IsZero() {
						at = port.String() + " -> " + at
					}
					lines = append(lines, at)
				}
			}
			if len(lines) == 0 && !only.IsZero() {
				return fmt.Errorf("Error: No public port '%s' published for %s", args[1], args[0])
			}
			slices.Sort(lines)
			for _, l := range lines {
				fmt.Fprintln(env.Stdout, l)
			}
			return nil
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Running),
	}
}
