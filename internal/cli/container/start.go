package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// NewStart is `tare start`.
func NewStart(env *command.Env) *cobra.Command {
	var attach, interactive bool
	var detachKeys string
	cmd := &cobra.Command{
		Use: "start [OPTIONS] CONTAINER [CONTAINER...]", Short: "Start one or more stopped containers", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			if attach || interactive {
				if len(args) > 1 {
					return errors.New("you cannot start and attach multiple containers at once")
				}
				return startAttached(cmd.Context(), env, c, args[0], interactive, detachKeys)
			}
			var failures []string
			err = command.Each(args, func(name string) error {
				if _, err := c.ContainerStart(cmd.Context(), name, client.ContainerStartOptions{}); err != nil {
					failures = append(failures, name)
					return err
				}
				fmt.Fprintln(env.Stdout, name)
				return nil
			})
			if len(failures) > 0 {
				err = fmt.Errorf("%w\nError: failed to start containers: %s", err, strings.Join(failures, ", "))
			}
			return err
		},
		ValidArgsFunction: command.Complete(env, command.Containers(container.StateCreated, container.StateExited)),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	fs.BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	fs.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func startAttached(ctx context.Context, env *command.Env, c *client.Client, ref string, stdin bool, detachKeys string) error {
	got, err := c.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	ctr := got.Container
	s, closeStream, err := attachTo(ctx, env, c, ctr, stdin && ctr.Config.OpenStdin, detachKeys)
	if err != nil {
		return err
	}
	defer closeStream()
	condition := container.WaitConditionNextExit
	if ctr.HostConfig.AutoRemove {
		condition = container.WaitConditionRemoved
	}
	waitCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	wait := c.ContainerWait(waitCtx, ctr.ID, client.ContainerWaitOptions{Condition: condition})
	if _, err := c.ContainerStart(ctx, ctr.ID, client.ContainerStartOptions{}); err != nil {
		return err
	}
	return follow(ctx, env, c, ctr.ID, s, wait, !ctr.Config.Tty, true)
}

func attachTo(ctx context.Context, env *command.Env, c *client.Client, ctr container.InspectResponse, stdin bool, detachKeys string) (*session, func(), error) {
	a, err := c.ContainerAttach(ctx, ctr.ID, client.ContainerAttachOptions{Stream: true, Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: detachKeys})
	if err != nil {
		return nil, nil, err
	}
	return &session{env: env, stream: a.HijackedResponse, tty: ctr.Config.Tty, stdin: stdin, stdout: true, stderr: true, detachKeys: detachKeys}, a.Close, nil
}

// NewAttach is `tare attach`.
func NewAttach(env *command.Env) *cobra.Command {
	var noStdin, sigProxy bool
	var detachKeys string
	cmd := &cobra.Command{
		Use: "attach [OPTIONS] CONTAINER", Short: "Attach local standard input, output, and error streams to a running container", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := env.Client(ctx)
			if err != nil {
				return err
			}
			got, err := c.ContainerInspect(ctx, args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			ctr := got.Container
			switch {
			case !ctr.State.Running:
				return errors.New("You cannot attach to a stopped container, start it first")
			case ctr.State.Paused:
				return errors.New("You cannot attach to a paused container, unpause it first")
			case ctr.State.Restarting:
				return errors.New("You cannot attach to a restarting container, wait until it is running")
			}
			stdin := ctr.Config.OpenStdin && !noStdin
			if ctr.Config.Tty && stdin && !env.StdinTTY() {
				return errNoTerminal
			}
			waitCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
			defer stop()
			wait := c.ContainerWait(waitCtx, ctr.ID, client.ContainerWaitOptions{})
			s, closeStream, err := attachTo(ctx, env, c, ctr, stdin, detachKeys)
			if err != nil {
				return err
			}
			defer closeStream()
			return follow(ctx, env, c, ctr.ID, s, wait, sigProxy && !ctr.Config.Tty, false)
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Running),
	}
	fs := cmd.Flags()
	fs.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	fs.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}
