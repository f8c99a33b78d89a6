package cli

import (
	"github.com/spf13/cobra"

	"tare/internal/cli/build"
	"tare/internal/cli/command"
	"tare/internal/cli/container"
	"tare/internal/cli/contexts"
	"tare/internal/cli/image"
	"tare/internal/cli/network"
	"tare/internal/cli/system"
	"tare/internal/cli/volume"
)

type constructor = func(*command.Env) *cobra.Command

// addCommands lists every command: the short forms people type, then the groups.
func addCommands(root *cobra.Command, env *command.Env) {
	containers := []constructor{
		container.NewAttach, container.NewCommit, container.NewCopy, container.NewCreate, container.NewDebug, container.NewDiff, container.NewExec,
		container.NewExport, container.NewKill, container.NewLogs, container.NewPause, container.NewPort, container.NewRename,
		container.NewRestart, container.NewRemove, container.NewRun, container.NewStart, container.NewStats, container.NewStop,
		container.NewTop, container.NewUnpause, container.NewUpdate, container.NewWait,
	}
	images := []constructor{
		build.NewBuild, image.NewHistory, image.NewImport, image.NewLoad, image.NewPull, image.NewPush, image.NewSave, image.NewTag,
	}
	add(root, env, containers...)
	add(root, env, container.NewPS)
	add(root, env, images...)
	add(root, env, image.NewImages, image.NewRMI)
	add(root, env, system.NewEvents, system.NewInfo, system.NewInspect, system.NewLogin, system.NewLogout, system.NewVersion)

	group(root, env, "container", "Manage containers", append(containers, container.NewInspect, container.NewList, container.NewPrune))
	group(root, env, "image", "Manage images", append(images, image.NewDiff, image.NewInspect, image.NewList, image.NewLog, image.NewPrune, image.NewRemove, image.NewRollback, image.NewVerify))
	group(root, env, "network", "Manage networks", []constructor{
		network.NewConnect, network.NewCreate, network.NewDisconnect, network.NewInspect, network.NewList, network.NewPrune, network.NewRemove,
	})
	group(root, env, "volume", "Manage volumes", []constructor{
		volume.NewCreate, volume.NewInspect, volume.NewList, volume.NewPrune, volume.NewRemove,
	})
	group(root, env, "system", "Manage Tare", []constructor{system.NewDialStdio, system.NewDiskUsage, system.NewEvents, system.NewInfo, system.NewPrune, image.NewVerify})
	group(root, env, "context", "Manage contexts", []constructor{
		contexts.NewCreate, contexts.NewExport, contexts.NewImport, contexts.NewInspect, contexts.NewList, contexts.NewRemove,
		contexts.NewShow, contexts.NewUpdate, contexts.NewUse,
	})
	group(root, env, "builder", "Manage builds", []constructor{build.NewBuild, system.NewBuilderPrune})
}

func add(to *cobra.Command, env *command.Env, members ...constructor) {
	for _, m := range members {
		cmd := m(env)
		addHelpFlag(cmd)
		to.AddCommand(cmd)
	}
}

func group(root *cobra.Command, env *command.Env, name, short string, members []constructor) {
	g := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		cmd.SetOut(env.Stderr)
		return cmd.Help()
	}}
	addHelpFlag(g)
	add(g, env, members...)
	root.AddCommand(g)
}
