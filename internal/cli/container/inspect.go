package container

import (
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewInspect is `tare container inspect`.
func NewInspect(env *command.Env) *cobra.Command {
	var format string
	var o client.ContainerInspectOptions
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] CONTAINER [CONTAINER...]", Short: "Display detailed information on one or more containers", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			var found []output.Object
			missing := command.Each(args, func(name string) error {
				got, err := c.ContainerInspect(cmd.Context(), name, o)
				if err == nil {
					found = append(found, output.Object{Value: got.Container, JSON: got.Raw})
				}
				return err
			})
			if err := output.Inspect(env.Out(), format, found); err != nil {
				return err
			}
			return missing
		},
		ValidArgsFunction: command.Complete(env, command.Containers()),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template")
	cmd.Flags().BoolVarP(&o.Size, "size", "s", false, "Display total file sizes")
	return cmd
}
