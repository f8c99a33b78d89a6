package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tare/internal/cli/command"
)

// everyday is what help shows first.
var everyday = []string{"run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "version", "info"}

// addHelpFlag registers --help, and -h where that is no other flag, as a form that works but is not advertised.
func addHelpFlag(cmd *cobra.Command) {
	fs := cmd.Flags()
	if fs.ShorthandLookup("h") != nil { // --hostname of run and create
		fs.Bool("help", false, "Print usage")
		return
	}
	fs.BoolP("help", "h", false, "Print usage")
	_ = fs.MarkShorthandDeprecated("help", "use --help")
	_ = fs.MarkHidden("help")
}

// newHelp is `tare help COMMAND`.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about the command", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("unknown help topic: %s", strings.Join(args, " "))
			}
			return of.Help()
		},
	}
}

// help prints what a command does and takes.
func help(cmd *cobra.Command, _ []string) {
	w := new(bytes.Buffer)
	defer func() { _, _ = w.WriteTo(cmd.OutOrStdout()) }()
	if !cmd.HasParent() {
		fmt.Fprint(w, "Usage:  tare [OPTIONS] COMMAND\n")
	} else {
		fmt.Fprintf(w, "Usage:  %s\n", command.UseLine(cmd))
	}
	if text := cmp.Or(cmd.Long, cmd.Short); text != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(text))
	}
	if names := namesOf(cmd); len(names) > 1 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(names, ", "))
	}
	if !cmd.HasParent() {
		listCommands(w, "Common Commands", cmd, func(c *cobra.Command) bool { return slices.Contains(everyday, c.Name()) })
		listCommands(w, "Management Commands", cmd, (*cobra.Command).HasSubCommands)
		listCommands(w, "Commands", cmd, func(c *cobra.Command) bool { return !c.HasSubCommands() && !slices.Contains(everyday, c.Name()) })
	} else {
		listCommands(w, "Commands", cmd, func(*cobra.Command) bool { return true })
	}
	if cmd.HasAvailableLocalFlags() {
		title := "Options"
		if !cmd.HasParent() {
			title = "Global Options"
		}
		fmt.Fprintf(w, "\n%s:\n%s", title, cmd.LocalFlags().FlagUsagesWrapped(width()))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
}

// width is the terminal's, 80 elsewhere.
func width() int {
	if w, _, err := term.GetSize(1); err == nil && w > 40 {
		return w
	}
	return 80
}

func listCommands(w io.Writer, title string, parent *cobra.Command, want func(*cobra.Command) bool) {
	var list []*cobra.Command
	longest := 11
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() && want(c) {
			list = append(list, c)
			longest = max(longest, len(c.Name())+1)
		}
	}
	if len(list) == 0 {
		return
	}
	if title == "Common Commands" {
		slices.SortFunc(list, func(a, b *cobra.Command) int {
			return cmp.Compare(slices.Index(everyday, a.Name()), slices.Index(everyday, b.Name()))
		})
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, c := range list {
		fmt.Fprintf(w, "  %-*s %s\n", longest, c.Name(), c.Short)
	}
}

// namesOf are the full names of a command, of its group first. A command that is in a group and
// at the top was made twice by the same constructor and says the same about itself.
func namesOf(cmd *cobra.Command) []string {
	if !cmd.HasParent() || cmd.HasSubCommands() {
		return nil
	}
	var inGroups, short []string
	for _, top := range cmd.Root().Commands() {
		if top.Short == cmd.Short && !top.HasSubCommands() {
			short = append(short, top.CommandPath())
		}
		for _, c := range top.Commands() {
			if c.Short != cmd.Short {
				continue
			}
			inGroups = append(inGroups, c.CommandPath())
			for _, a := range c.Aliases {
				inGroups = append(inGroups, top.CommandPath()+" "+a)
			}
		}
	}
	return append(inGroups, short...)
}
