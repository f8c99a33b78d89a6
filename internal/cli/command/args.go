package command

import (
	"fmt"

	"github.com/spf13/cobra"
)

// NoArgs, ExactArgs, MinArgs, MaxArgs and RangeArgs say how many arguments a command takes, in Docker's words.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return argsError(cmd, "accepts no arguments")
}

// ExactArgs wants n arguments.
func ExactArgs(n int) cobra.PositionalArgs {
	return checkArgs(n, n, fmt.Sprintf("requires %d %s", n, plural(n)))
}

// MinArgs wants n or more arguments.
func MinArgs(n int) cobra.PositionalArgs {
	return checkArgs(n, -1, fmt.Sprintf("requires at least %d %s", n, plural(n)))
}

// MaxArgs wants at most n arguments.
func MaxArgs(n int) cobra.PositionalArgs {
	return checkArgs(0, n, fmt.Sprintf("requires at most %d %s", n, plural(n)))
}

// RangeArgs wants from least to most arguments.
func RangeArgs(least, most int) cobra.PositionalArgs {
	return checkArgs(least, most, fmt.Sprintf("requires at least %d and at most %d %s", least, most, plural(most)))
}

func checkArgs(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return argsError(cmd, want)
		}
		return nil
	}
}

func plural(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}

func argsError(cmd *cobra.Command, want string) error {
	return &ExitError{Code: 1, Message: fmt.Sprintf("tare: '%s' %s\n\n%s", cmd.CommandPath(), want, UsageHint(cmd))}
}

// UsageHint is the line of use of a command, and where to read more.
func UsageHint(cmd *cobra.Command) string {
	return fmt.Sprintf("Usage:  %s\n\n%s", UseLine(cmd), HelpHint(cmd))
}

// HelpHint tells where to read more about a command.
func HelpHint(cmd *cobra.Command) string {
	return fmt.Sprintf("Run '%s --help' for more information", cmd.CommandPath())
}

// UseLine is the line of use without cobra's additions: "tare ps [OPTIONS]".
func UseLine(cmd *cobra.Command) string {
	switch {
	case !cmd.HasParent():
		return cmd.Use
	case cmd.HasAvailableSubCommands():
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.Parent().CommandPath() + " " + cmd.Use
}
