// Package volume is the commands about volumes.
package volume

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewList is `tare volume ls`.
func NewList(env *command.Env) *cobra.Command {
	var format string
	var filters []string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List volumes", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := command.Filters(filters)
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.VolumeList(cmd.Context(), client.VolumeListOptions{Filters: f})
			if err != nil {
				return err
			}
			slices.SortFunc(res.Items, func(a, b volume.Volume) int { return strings.Compare(a.Name, b.Name) })
			return Table().Print(env.Out(), format, quiet, res.Items)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	command.FilterFlag(cmd.Flags(), &filters)
	command.FormatFlag(cmd.Flags(), &format)
	return cmd
}

// Table shows volumes.
func Table() output.Table[volume.Volume] {
	type row = volume.Volume
	return output.Table[row]{
		Default: `table {{.Driver}}\t{{.Name}}`, Quiet: `{{.Name}}`,
		Raw: `name: {{.Name}}\ndriver: {{.Driver}}\n`, RawQuiet: `name: {{.Name}}`,
		Labels: func(v row) map[string]string { return v.Labels },
		Columns: []output.Column[row]{
			{Name: "Name", Header: "VOLUME NAME", Value: func(v row) string { return v.Name }},
			{Name: "Driver", Header: "DRIVER", Value: func(v row) string { return v.Driver }},
			{Name: "Scope", Header: "SCOPE", Value: func(v row) string { return v.Scope }},
			{Name: "Mountpoint", Header: "MOUNTPOINT", Value: func(v row) string { return v.Mountpoint }},
			{Name: "Labels", Header: "LABELS", Value: func(v row) string { return command.Labels(v.Labels) }},
			{Name: "Links", Header: "LINKS", Value: func(v row) string {
				if v.UsageData == nil {
					return "N/A"
				}
				return output.Count(v.UsageData.RefCount)
			}},
			{Name: "Size", Header: "SIZE", Value: func(v row) string {
				if v.UsageData == nil {
					return "N/A"
				}
				return output.Size(v.UsageData.Size)
			}},
			// What only volumes of a cluster have.
			{Name: "Group", Header: "GROUP", Value: func(row) string { return "N/A" }},
			{Name: "Status", Header: "STATUS", Value: func(row) string { return "N/A" }},
			{Name: "Availability", Header: "AVAILABILITY", Value: func(row) string { return "N/A" }},
		},
	}
}

// NewCreate is `tare volume create`.
func NewCreate(env *command.Env) *cobra.Command {
	var o client.VolumeCreateOptions
	var opts, labels []string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Short: "Create a volume", Args: command.MaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if o.Name != "" {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				o.Name = args[0]
			}
			o.DriverOpts, o.Labels = command.KeyValues(opts), command.KeyValues(labels)
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.VolumeCreate(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintln(env.Stdout, res.Volume.Name)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "local", "Specify volume driver name")
	fs.StringVar(&o.Name, "name", "", "Specify volume name")
	_ = fs.MarkHidden("name")
	command.List(fs, &opts, "opt", "o", "Set driver specific options")
	command.List(fs, &labels, "label", "", "Set metadata for a volume")
	return cmd
}

// NewInspect is `tare volume inspect`.
func NewInspect(env *command.Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Short: "Display detailed information on one or more volumes", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			var found []output.Object
			missing := command.Each(args, func(name string) error {
				got, err := c.VolumeInspect(cmd.Context(), name, client.VolumeInspectOptions{})
				if err == nil {
					found = append(found, output.Object{Value: got.Volume, JSON: got.Raw})
				}
				return err
			})
			if err := output.Inspect(env.Out(), format, found); err != nil {
				return err
			}
			return missing
		},
		ValidArgsFunction: command.Complete(env, command.Volumes),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template")
	return cmd
}

// NewRemove is `tare volume rm`.
func NewRemove(env *command.Env) *cobra.Command {
	var o client.VolumeRemoveOptions
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"}, Short: "Remove one or more volumes", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				if _, err := c.VolumeRemove(cmd.Context(), name, o); err != nil {
					return err
				}
				fmt.Fprintln(env.Stdout, name)
				return nil
			})
		},
		ValidArgsFunction: command.Complete(env, command.Volumes),
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

// NewPrune is `tare volume prune`.
func NewPrune(env *command.Env) *cobra.Command {
	var force, all bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused local volumes", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := command.Filters(filters)
			what := "This will remove anonymous local volumes not used by at least one container."
			if all {
				what = "This will remove all local volumes not used by at least one container."
			}
			if !force && !env.Confirm(what) {
				return nil
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.VolumePrune(cmd.Context(), client.VolumePruneOptions{All: all, Filters: f})
			if err != nil {
				return err
			}
			if len(res.Report.VolumesDeleted) > 0 {
				fmt.Fprintln(env.Stdout, "Deleted Volumes:")
				for _, v := range res.Report.VolumesDeleted {
					fmt.Fprintln(env.Stdout, v)
				}
				fmt.Fprintln(env.Stdout)
			}
			fmt.Fprintln(env.Stdout, "Total reclaimed space:", output.Size(int64(res.Report.SpaceReclaimed)))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	command.PruneFilterFlag(cmd.Flags(), &filters, `Provide filter values (e.g. "label=<label>")`)
	return cmd
}
