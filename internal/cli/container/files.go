package container

import (
	"fmt"
	"io"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewDiff is `tare diff`.
func NewDiff(env *command.Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "diff CONTAINER", Short: "Inspect changes to files or directories on a container's filesystem", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			diff, err := c.ContainerDiff(cmd.Context(), args[0], client.ContainerDiffOptions{})
			if err != nil {
				return err
			}
			type row = container.FilesystemChange
			return output.Table[row]{Default: `{{.Type}} {{.Path}}`, Columns: []output.Column[row]{
				{Name: "Type", Header: "CHANGE TYPE", Value: func(r row) string { return r.Kind.String() }},
				{Name: "Path", Header: "PATH", Value: func(r row) string { return r.Path }},
			}}.Print(env.Out(), format, false, diff.Changes)
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Containers()),
	}
	command.FormatFlag(cmd.Flags(), &format)
	return cmd
}

// NewExport is `tare export`.
func NewExport(env *command.Env) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "export [OPTIONS] CONTAINER", Short: "Export a container's filesystem as a tar archive", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return env.SaveTo("export container", to, func() (io.ReadCloser, error) {
				return c.ContainerExport(cmd.Context(), args[0], client.ContainerExportOptions{})
			})
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Containers()),
	}
	cmd.Flags().StringVarP(&to, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

// NewCommit is `tare commit`.
func NewCommit(env *command.Env) *cobra.Command {
	var o client.ContainerCommitOptions
	var pause bool
	cmd := &cobra.Command{
		Use: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", Short: "Create a new image from a container's changes", Args: command.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				o.Reference = args[1]
			}
			if !pause {
				o.NoPause = true
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ContainerCommit(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintln(env.Stdout, res.ID)
			return nil
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Containers()),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.StringVarP(&o.Comment, "message", "m", "", "Commit message")
	command.List(fs, &o.Changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	fs.BoolVar(&o.NoPause, "no-pause", false, "Disable pausing container during commit")
	return cmd
}

// NewPrune is `tare container prune`.
func NewPrune(env *command.Env) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all stopped containers", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := command.Filters(filters)
			if !force && !env.Confirm("This will remove all stopped containers.") {
				return nil
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ContainerPrune(cmd.Context(), client.ContainerPruneOptions{Filters: f})
			if err != nil {
				return err
			}
			if len(res.Report.ContainersDeleted) > 0 {
				fmt.Fprintln(env.Stdout, "Deleted Containers:")
				for _, id := range res.Report.ContainersDeleted {
					fmt.Fprintln(env.Stdout, id)
				}
				fmt.Fprintln(env.Stdout)
			}
			fmt.Fprintln(env.Stdout, "Total reclaimed space:", output.Size(int64(res.Report.SpaceReclaimed)))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.PruneFilterFlag(cmd.Flags(), &filters, `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}
