package image

import (
	"bytes"
	"fmt"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewTag is `tare tag`.
func NewTag(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if _, err := reference.ParseAnyReference(name); err != nil {
					return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", name, err)
				}
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.ImageTag(cmd.Context(), client.ImageTagOptions{Source: args[0], Target: args[1]})
			return err
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Images),
	}
}

// NewRemove is `tare rmi`, also `tare image rm`.
func NewRemove(env *command.Env) *cobra.Command { return newRemove(env, "rm", "rmi", "remove") }

// NewRMI is `tare rmi`.
func NewRMI(env *command.Env) *cobra.Command { return newRemove(env, "rmi") }

func newRemove(env *command.Env, name string, aliases ...string) *cobra.Command {
	var o client.ImageRemoveOptions
	var noPrune bool
	var platforms []string
	cmd := &cobra.Command{
		Use: name + " [OPTIONS] IMAGE [IMAGE...]", Aliases: aliases, Short: "Remove one or more images", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.PruneChildren = !noPrune
			var err error
			if o.Platforms, err = parsePlatforms(platforms); err != nil {
				return err
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				res, err := c.ImageRemove(cmd.Context(), name, o)
				if err != nil {
					return err
				}
				for _, r := range res.Items {
					if r.Deleted != "" {
						fmt.Fprintln(env.Stdout, "Deleted:", r.Deleted)
					} else {
						fmt.Fprintln(env.Stdout, "Untagged:", r.Untagged)
					}
				}
				return nil
			})
		},
		ValidArgsFunction: command.Complete(env, command.Images),
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, `Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

// NewInspect is `tare image inspect`.
func NewInspect(env *command.Env) *cobra.Command {
	var format, platform string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] IMAGE [IMAGE...]", Short: "Display detailed information on one or more images", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			var opts []client.ImageInspectOption
			if platform != "" {
				p, err := command.ParsePlatform(platform)
				if err != nil {
					return err
				}
				opts = append(opts, client.ImageInspectWithPlatform(p))
			}
			var found []output.Object
			missing := command.Each(args, func(name string) error {
				var raw bytes.Buffer
				got, err := c.ImageInspect(cmd.Context(), name, append(opts, client.ImageInspectWithRawResponse(&raw))...)
				if err == nil {
					found = append(found, output.Object{Value: got.InspectResponse, JSON: raw.Bytes()})
				}
				return err
			})
			if err := output.Inspect(env.Out(), format, found); err != nil {
				return err
			}
			return missing
		},
		ValidArgsFunction: command.Complete(env, command.Images),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template")
	cmd.Flags().StringVar(&platform, "platform", "", "Inspect a specific platform of the multi-platform image")
	return cmd
}

// NewPrune is `tare image prune`.
func NewPrune(env *command.Env) *cobra.Command {
	var force, all bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused images", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := command.Filters(filters)
			what := "This will remove all dangling images."
			if all {
				what = "This will remove all images without at least one container associated to them."
				f.Add("dangling", "false")
			}
			if !force && !env.Confirm(what) {
				return nil
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ImagePrune(cmd.Context(), client.ImagePruneOptions{Filters: f})
			if err != nil {
				return err
			}
			if len(res.Report.ImagesDeleted) > 0 {
				fmt.Fprintln(env.Stdout, "Deleted Images:")
				for _, r := range res.Report.ImagesDeleted {
					if r.Deleted != "" {
						fmt.Fprintln(env.Stdout, "deleted:", r.Deleted)
					} else {
						fmt.Fprintln(env.Stdout, "untagged:", r.Untagged)
					}
				}
				fmt.Fprintln(env.Stdout)
			}
			fmt.Fprintln(env.Stdout, "Total reclaimed space:", output.Size(int64(res.Report.SpaceReclaimed)))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	command.PruneFilterFlag(cmd.Flags(), &filters, `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}
