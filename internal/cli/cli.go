// Package cli is the command line `tare`: flags in, Engine API call, table out.
// Each command is one file in the package of its group (container, image,
// network, volume, system); commands.go lists them all.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// Main runs the program and returns its exit code.
func Main(args []string, version string) int {
	env := &command.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version}
	root := newRoot(env, args)
	root.SetArgs(args)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil {
		report(env, cmd, err)
	}
	return command.ExitCode(err)
}

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
			return fmt.Errorf("unknown command: tare %s\n\nRun 'tare --help' for more information", args[0])
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetVersionTemplate("Tare version {{.Version}}\n")
	fs := root.Flags()
	fs.StringVarP(&env.Host, "host", "H", "", "Engine to connect to (default: TARE_HOST, DOCKER_HOST, "+command.DefaultHost+")")
	fs.BoolVarP(&env.Debug, "debug", "D", false, "Say more about failures")
	fs.BoolP("version", "v", false, "Print the version and quit")
	fs.SetInterspersed(false)
	root.CompletionOptions.HiddenDefaultCmd = false
	if !addOne(root, env, args) {
		addCommands(root, env)
	}
	return root
}

// report prints an error in one line or a few: what failed, and what to do about it if we know.
func report(env *command.Env, cmd *cobra.Command, err error) {
	var exit *command.ExitError
	msg := err.Error()
	if errors.As(err, &exit) {
		if exit.Message == "" {
			return
		}
		fmt.Fprintln(env.Stderr, exit.Message)
	} else {
		fmt.Fprintln(env.Stderr, "Error:", strings.TrimPrefix(msg, "Error response from daemon: "))
	}
	host, _ := env.Endpoint()
	switch {
	case client.IsErrConnectionFailed(err):
		fmt.Fprintf(env.Stderr, "No engine answers on %s. Start one with `tared`, or name another with -H, TARE_HOST or DOCKER_HOST.\n", host)
	case strings.HasPrefix(msg, "unknown flag"), strings.HasPrefix(msg, "unknown shorthand"), strings.Contains(msg, "arg(s)"):
		fmt.Fprintf(env.Stderr, "\nUsage:  %s\n\nRun '%s --help' for more information\n", cmd.UseLine(), cmd.CommandPath())
	}
}
