package container

import (
	"context"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tare/internal/cli/command"
)

// NewExec is `tare exec`.
func NewExec(env *command.Env) *cobra.Command {
	var o client.ExecCreateOptions
	var envFlags, envFiles []string
	var detach, interactive bool
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Args:  command.MinArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Env, err = environment(envFlags, envFiles); err != nil {
				return err
			}
			o.Cmd = args[1:]
			if !detach {
				o.AttachStdin, o.AttachStdout, o.AttachStderr = interactive, true, true
			}
			return execute(cmd.Context(), env, args[0], o, detach)
		},
	}
	cmd.ValidArgsFunction = command.CompleteArgs(env, command.Running)
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVar(&o.DetachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	command.List(fs, &envFlags, "env", "e", "Set environment variables", checkVariable)
	command.List(fs, &envFiles, "env-file", "", "Read in a file of environment variables")
	fs.BoolVarP(&interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVar(&o.Privileged, "privileged", false, "Give extended privileges to the command")
	fs.BoolVarP(&o.TTY, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&o.User, "user", "u", "", "Username or UID (format: \"<name|uid>[:<group|gid>]\")")
	fs.StringVarP(&o.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func execute(ctx context.Context, env *command.Env, ref string, o client.ExecCreateOptions, detach bool) error {
	if o.TTY && o.AttachStdin && !env.StdinTTY() {
		return errNoTerminal
	}
	c, err := env.Client(ctx)
	if err != nil {
		return err
	}
	var size client.ConsoleSize
	if o.TTY && env.StdoutTTY() {
		if w, h, err := term.GetSize(int(env.Stdout.Fd())); err == nil {
			size = client.ConsoleSize{Height: uint(h), Width: uint(w)}
			o.ConsoleSize = size
		}
	}
	made, err := c.ExecCreate(ctx, ref, o)
	if err != nil {
		return err
	}
	if detach {
		_, err := c.ExecStart(ctx, made.ID, client.ExecStartOptions{Detach: true, TTY: o.TTY})
		return err
	}
	a, err := c.ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: size})
	if err != nil {
		return err
	}
	defer a.Close()
	if o.TTY {
		sizeCtx, stop := context.WithCancel(ctx)
		defer stop()
		followSize(sizeCtx, env, func(ctx context.Context, w, h uint) error {
			_, err := c.ExecResize(ctx, made.ID, client.ExecResizeOptions{Width: w, Height: h})
			return err
		})
	}
	s := &session{env: env, stream: a.HijackedResponse, tty: o.TTY, stdin: o.AttachStdin, stdout: true, stderr: true, detachKeys: o.DetachKeys}
	if err := s.copy(ctx); err != nil {
		return err
	}
	if s.detached.Load() {
		return errDetached
	}
	got, err := c.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	if err != nil {
		return err
	}
	if got.ExitCode != 0 && !got.Running {
		return &command.ExitError{Code: got.ExitCode}
	}
	return nil
}
