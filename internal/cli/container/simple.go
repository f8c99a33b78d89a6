package container

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// forEach builds a command that does one thing to every container named, and prints each name it succeeded with.
func forEach(env *command.Env, names command.Names, use, short string, flags func(*cobra.Command), do func(ctx context.Context, c *client.Client, name string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				if err := do(cmd.Context(), c, name); err != nil {
					return err
				}
				fmt.Fprintln(env.Stdout, name)
				return nil
			})
		},
		ValidArgsFunction: command.Complete(env, names),
	}
	if flags != nil {
		flags(cmd)
	}
	return cmd
}

// NewPause is `tare pause`.
func NewPause(env *command.Env) *cobra.Command {
	return forEach(env, command.Running, "pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", nil,
		func(ctx context.Context, c *client.Client, name string) error {
			_, err := c.ContainerPause(ctx, name, client.ContainerPauseOptions{})
			return err
		})
}

// NewUnpause is `tare unpause`.
func NewUnpause(env *command.Env) *cobra.Command {
	return forEach(env, command.Containers(container.StatePaused), "unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", nil,
		func(ctx context.Context, c *client.Client, name string) error {
			_, err := c.ContainerUnpause(ctx, name, client.ContainerUnpauseOptions{})
			return err
		})
}

// NewStop is `tare stop`.
func NewStop(env *command.Env) *cobra.Command {
	var o client.ContainerStopOptions
	var timeout timeoutFlag
	return forEach(env, command.Running, "stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", func(cmd *cobra.Command) {
		cmd.Flags().StringVarP(&o.Signal, "signal", "s", "", "Signal to send to the container")
		command.CompleteWords(cmd, "signal", command.Signals...)
		timeout.register(cmd)
	}, func(ctx context.Context, c *client.Client, name string) error {
		o.Timeout = timeout.value()
		_, err := c.ContainerStop(ctx, name, o)
		return err
	})
}

// NewRestart is `tare restart`.
func NewRestart(env *command.Env) *cobra.Command {
	var o client.ContainerRestartOptions
	var timeout timeoutFlag
	return forEach(env, command.Containers(), "restart [OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", func(cmd *cobra.Command) {
		cmd.Flags().StringVarP(&o.Signal, "signal", "s", "", "Signal to send to the container")
		command.CompleteWords(cmd, "signal", command.Signals...)
		timeout.register(cmd)
	}, func(ctx context.Context, c *client.Client, name string) error {
		o.Timeout = timeout.value()
		_, err := c.ContainerRestart(ctx, name, o)
		return err
	})
}

// timeoutFlag is --timeout (and its old name --time), nil if it was not given.
type timeoutFlag struct {
	seconds int
	cmd     *cobra.Command
}

func (t *timeoutFlag) register(cmd *cobra.Command) {
	t.cmd = cmd
	cmd.Flags().IntVarP(&t.seconds, "timeout", "t", 0, "Seconds to wait before killing the container")
	cmd.Flags().IntVar(&t.seconds, "time", 0, "Seconds to wait before killing the container")
	_ = cmd.Flags().MarkHidden("time")
}

func (t *timeoutFlag) value() *int {
	if t.cmd.Flags().Changed("timeout") || t.cmd.Flags().Changed("time") {
		return &t.seconds
	}
	return nil
}

// NewKill is `tare kill`.
func NewKill(env *command.Env) *cobra.Command {
	var o client.ContainerKillOptions
	return forEach(env, command.Running, "kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", func(cmd *cobra.Command) {
		cmd.Flags().StringVarP(&o.Signal, "signal", "s", "", "Signal to send to the container")
		command.CompleteWords(cmd, "signal", command.Signals...)
	}, func(ctx context.Context, c *client.Client, name string) error {
		_, err := c.ContainerKill(ctx, name, o)
		return err
	})
}

// NewRemove is `tare rm`.
func NewRemove(env *command.Env) *cobra.Command {
	var o client.ContainerRemoveOptions
	cmd := forEach(env, command.Containers(), "rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", func(cmd *cobra.Command) {
		cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
		cmd.Flags().BoolVarP(&o.RemoveVolumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
		cmd.Flags().BoolVarP(&o.RemoveLinks, "link", "l", false, "Remove the specified link")
	}, func(ctx context.Context, c *client.Client, name string) error {
		_, err := c.ContainerRemove(ctx, name, o)
		return err
	})
	cmd.Aliases = []string{"remove"}
	return cmd
}

// NewWait is `tare wait`.
func NewWait(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Short: "Block until one or more containers stop, then print their exit codes", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				wait := c.ContainerWait(cmd.Context(), name, client.ContainerWaitOptions{})
				select {
				case res := <-wait.Result:
					if res.Error != nil {
						return fmt.Errorf("%s", res.Error.Message)
					}
					fmt.Fprintln(env.Stdout, res.StatusCode)
					return nil
				case err := <-wait.Error:
					return err
				}
			})
		},
		ValidArgsFunction: command.Complete(env, command.Running),
	}
}

// NewRename is `tare rename`.
func NewRename(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "rename CONTAINER NEW_NAME", Short: "Rename a container", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.ContainerRename(cmd.Context(), args[0], client.ContainerRenameOptions{NewName: args[1]})
			if err != nil {
				return fmt.Errorf("%w\nError: failed to rename container named %s", err, args[0])
			}
			return nil
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Containers()),
	}
}
