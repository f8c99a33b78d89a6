package cli

import (
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/container"
)

type constructor = func(*command.Env) *cobra.Command

// addCommands lists every command: the short forms, then the groups in which each also stands.
func addCommands(root *cobra.Command, env *command.Env) {
	containers := []constructor{container.NewRun, container.NewCreate, container.NewExec}
	for _, c := range containers {
		root.AddCommand(c(env))
	}
	group(root, env, "container", "Manage containers", containers)
}

func group(root *cobra.Command, env *command.Env, name, short string, members []constructor) {
	g := &cobra.Command{Use: name, Short: short, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, m := range members {
		g.AddCommand(m(env))
	}
	root.AddCommand(g)
}
