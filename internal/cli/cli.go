// Package cli is the command line `tare`: flags in, Engine API call, table out.
// Each command is one file in the package of its group (container, image,
// network, volume, system); commands.go lists them all.
//
// What a script can see is Docker's: output, exit codes, and the words of errors.
// 125 is the exit code of a command line that can't be read and of containers that can't be made.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// Main runs the program and returns its exit code.
func Main(args []string, version string) int {
	env := &command.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version}
	root := newRoot(env, args)
	root.SetArgs(args)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	env.Interrupts = make(chan os.Signal, 1)
	signal.Notify(env.Interrupts, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go interrupt(env.Interrupts, cancel)
	err := root.ExecuteContext(ctx)
	var by *interrupted
	if errors.As(context.Cause(ctx), &by) && err != nil {
		return by.code()
	}
	if err != nil {
		report(env, err)
	}
	return command.ExitCode(err)
}

// grace is how long a command has to clean up after a signal.
const grace = 2 * time.Second

// interrupt cancels the command at the first signal, and ends the program if it does not obey.
func interrupt(got <-chan os.Signal, cancel context.CancelCauseFunc) {
	by := &interrupted{(<-got).(syscall.Signal)}
	cancel(by)
	select {
	case <-got:
	case <-time.After(grace):
	}
	os.Exit(by.code())
}

// interrupted says by which signal a command was ended.
type interrupted struct{ signal syscall.Signal }

func (i *interrupted) Error() string { return "ended by signal: " + i.signal.String() }
func (i *interrupted) code() int     { return 128 + int(i.signal) }

func newRoot(env *command.Env, args []string) *cobra.Command {
	root := &cobra.Command{
		Use:              "tare [OPTIONS] COMMAND [ARG...]",
		Short:            "Containers that weigh nothing: build, ship and run",
		Version:          env.Version,
		SilenceErrors:    true,
		SilenceUsage:     true,
		TraverseChildren: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			if found, err := runPlugin(env, args[0], args); found {
				return err
			}
			return unknownCommand(cmd, args[0])
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetVersionTemplate("Tare version {{.Version}}\n")
	root.SetHelpFunc(help)
	root.SetUsageFunc(func(cmd *cobra.Command) error { help(cmd, nil); return nil })
	root.SetHelpCommand(newHelp())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &command.ExitError{Code: 125, Message: err.Error() + "\n\n" + command.UsageHint(cmd)}
	})
	fs := root.Flags()
	fs.StringVarP(&env.Host, "host", "H", "", "Engine to connect to (default: TARE_HOST, DOCKER_HOST, "+command.DefaultHost+")")
	fs.StringVarP(&env.Context, "context", "c", "", "Context of the engine to connect to, as `tare context use` sets it (overrides TARE_HOST and DOCKER_HOST)")
	fs.StringVar(&env.ConfigDir, "config", "", "Folder of config.json (default: TARE_CONFIG, DOCKER_CONFIG, ~/.docker)")
	fs.BoolVarP(&env.Debug, "debug", "D", false, "Print the requests that the engine gets, and how long each took")
	env.TLS.Register(fs)
	fs.BoolP("version", "v", false, "Print version information and quit")
	addHelpFlag(root)
	fs.SetInterspersed(false)
	if !addOne(root, env, args) {
		addCommands(root, env)
	}
	return root
}

// unknownCommand tells so, and what may have been meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	msg := fmt.Sprintf("tare: unknown command: %s %s\n\n", cmd.CommandPath(), name)
	cmd.SuggestionsMinimumDistance = min(2, max(1, len(name)/3))
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		msg += "Did you mean: " + strings.Join(near, ", ") + "\n\n"
	}
	return &command.ExitError{Code: 1, Message: msg + command.HelpHint(cmd)}
}

// report prints an error in Docker's words. What the engine said begins with "Error response from daemon: ".
func report(env *command.Env, err error) {
	var exit *command.ExitError
	switch {
	case client.IsErrConnectionFailed(err):
		fmt.Fprintln(env.Stderr, command.NoEngine(env))
		if env.Debug {
			fmt.Fprintln(env.Stderr, err)
		}
	case errors.As(err, &exit):
		if exit.Message != "" {
			fmt.Fprintln(env.Stderr, exit.Message)
		}
	case errors.Is(err, context.Canceled):
	default:
		fmt.Fprintln(env.Stderr, err)
	}
}
