package container

import (
	"fmt"

	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// NewCreate is `tare create`.
func NewCreate(env *command.Env) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd.Flags(), args)
			if err != nil {
				return failed(cmd, 125, err)
			}
			_, id, err := create(cmd.Context(), env, &f, req)
			if err != nil {
				return err
			}
			fmt.Fprintln(env.Stdout, id)
			return nil
		},
	}
	f.register(cmd.Flags())
	f.complete(env, cmd)
	return cmd
}
