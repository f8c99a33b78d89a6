package cli

import (
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tare/internal/cli/command"
	"tare/internal/cli/container"
	"tare/internal/cli/image"
)

// alone are the commands that scripts start by the thousand. When one of them is
// called, the other hundred are not made, which is a sixth of the program's start.
var alone = map[string]constructor{
	"create": container.NewCreate, "exec": container.NewExec, "images": image.NewImages, "kill": container.NewKill, "logs": container.NewLogs,
	"ps": container.NewPS, "rm": container.NewRemove, "run": container.NewRun, "start": container.NewStart, "stop": container.NewStop,
	"wait": container.NewWait,
}

// addOne adds the command that args call, if it is one of alone.
func addOne(root *cobra.Command, env *command.Env, args []string) bool {
	one := alone[called(root.Flags(), args)]
	if one == nil || slices.Contains(args, "--help") { // help knows a command's other names
		return false
	}
	// They wait for the engine most of the time: a second thread of Go's scheduler would only hand work to and fro.
	runtime.GOMAXPROCS(1)
	add(root, env, one)
	return true
}

// called is the first word that is no global flag or its value; "" if that can't be told without doubt.
func called(global *pflag.FlagSet, args []string) string {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, _, given := strings.Cut(strings.TrimPrefix(args[0], "--"), "=")
		f := global.Lookup(name)
		if short := strings.TrimPrefix(args[0], "-"); len(short) == 1 {
			f = global.ShorthandLookup(short)
		}
		if f == nil {
			return ""
		}
		args = args[1:]
		if !given && f.NoOptDefVal == "" {
			if len(args) == 0 {
				return ""
			}
			args = args[1:]
		}
	}
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
