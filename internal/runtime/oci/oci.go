// Package oci is the OCI runtime command line of tare-run, with the commands and
// flags that engines know from runc.
//
// A container's state is a folder below --root, named by its id:
//
//	state.json   what `state` tells, and the start time of its init, against reused pids
//	config.json  the spec as it was when the container was created
//	start.sock   there, as long as the container waits for start: its init listens on it
//
// Nothing of tare-run stays behind for a container; its init is the child of
// whoever adopts it. Failures go to --log in the form that engines parse, and to stderr.
package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
)

// DefaultRoot is where states are kept without --root.
const DefaultRoot = "/run/tare-run"

// global are the flags before the command.
type global struct {
	root      string
	log       string
	logFormat string
	debug     bool
	systemd   bool // cgroups are systemd's
	stdin     *os.File
	stdout    io.Writer
	stderr    io.Writer
}

// command runs with the arguments after its name and returns the exit code.
type command struct {
	name  string
	usage string
	run   func(g *global, fs *flag.FlagSet, args []string) (int, error)
}

func commands() []command {
	return []command{
		{"checkpoint", "checkpoint [--image-path D] [--work-path D] [--leave-running] … ID", checkpoint},
		{"create", "create [-b BUNDLE] [--console-socket S] [--pid-file F] [--preserve-fds N] [--no-pivot] [--no-new-keyring] ID", create},
		{"delete", "delete [-f] ID", remove},
		{"events", "events [--stats] [--interval 5s] ID", events},
		{"exec", "exec [-t] [-e K=V] [--cwd D] [-u UID[:GID]] [-d] [-p process.json] … ID COMMAND [ARG…]", execute},
		{"features", "features", features},
		{"kill", "kill [-a] ID [SIGNAL]", kill},
		{"list", "list [-q] [-f table|json]", list},
		{"pause", "pause ID", pause},
		{"plan", "plan BUNDLE", showPlan},
		{"ps", "ps [-f table|json] ID [PS-OPTION…]", ps},
		{"restore", "restore [-b BUNDLE] [-d] [--image-path D] [--work-path D] … ID", restore},
		{"resume", "resume ID", resume},
		{"run", "run [-b BUNDLE] [-d] [--keep] [--console-socket S] [--pid-file F] [--preserve-fds N] [--no-pivot] [--no-new-keyring] ID", run},
		{"spec", "spec [-b BUNDLE] [--rootless]", spec},
		{"start", "start ID", start},
		{"state", "state ID", state},
		{"update", "update [-r FILE] [--memory N] [--cpu-quota N] … ID", update},
	}
}

// Main is the command line; args[0] is the program. It returns the exit code.
func Main(args []string, version string) int {
	g := &global{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	fs := newFlags("tare-run", g)
	fs.StringVar(&g.root, "root", DefaultRoot, "folder for the state of containers; should be a tmpfs")
	fs.StringVar(&g.log, "log", "", "file for errors, besides stderr")
	fs.StringVar(&g.logFormat, "log-format", "text", "text or json")
	fs.BoolVar(&g.debug, "debug", false, "log what the container's plan is")
	fs.BoolVar(&g.systemd, "systemd-cgroup", false, "let systemd make the cgroups; cgroupsPath is SLICE:PREFIX:NAME")
	fs.String("criu", "", "accepted; criu is looked for in PATH")
	executor := fs.String("executor", "", "interpreter or stage: execute plans by that one, to compare them; see plan")
	rootless := fs.String("rootless", "auto", "auto or false")
	showVersion := fs.Bool("version", false, "print the version")
	fs.BoolVar(showVersion, "v", false, "print the version")
	fs.Usage = func() { usage(g) }
	if err := fs.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	switch {
	case *showVersion:
		fmt.Fprintf(g.stdout, "tare-run version %s\nspec: %s\n", version, specs.Version)
		return 0
	case *executor != "" && *executor != string(plan.Interpreter) && *executor != string(plan.Stage):
		return g.fail(fault.Invalid("--executor is %s or %s", plan.Interpreter, plan.Stage))
	case *rootless == "true":
		return g.fail(fault.Unsupported("--rootless is not supported by this runtime"))
	case g.logFormat != "text" && g.logFormat != "json":
		return g.fail(fault.Invalid("invalid log-format: %s", g.logFormat))
	case fs.NArg() == 0 || fs.Arg(0) == "help":
		usage(g)
		return 0
	}
	launch.Force(plan.Executor(*executor))
	for _, c := range commands() {
		if c.name != fs.Arg(0) {
			continue
		}
		sub := newFlags(c.name, g)
		sub.Usage = func() {
			fmt.Fprintln(g.stderr, "usage: tare-run", c.usage)
			sub.PrintDefaults()
		}
		code, err := c.run(g, sub, fs.Args()[1:])
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		if err != nil {
			return max(g.fail(err), code)
		}
		return code
	}
	return g.fail(fault.Invalid("unknown command %q", fs.Arg(0)))
}

func newFlags(name string, g *global) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(g.stderr)
	return fs
}

func usage(g *global) {
	fmt.Fprintln(g.stderr, "usage: tare-run [--root DIR] [--log FILE] [--log-format text|json] COMMAND")
	for _, c := range commands() {
		fmt.Fprintln(g.stderr, "  "+c.usage)
	}
	fmt.Fprintln(g.stderr, "  supervise …")
}

// fail reports an error and returns the exit code, runc's for any failure.
func (g *global) fail(err error) int {
	fmt.Fprintln(g.stderr, "tare-run:", err)
	g.entry("error", err.Error())
	return 1
}

// warn says where less was done than asked for; what was going on goes on.
func (g *global) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if g.log == "" {
		fmt.Fprintln(g.stderr, "tare-run: warning:", text)
	}
	g.entry("warning", text)
}

// entry writes to --log.
func (g *global) entry(level, text string) {
	if g.log == "" {
		return
	}
	f, err := os.OpenFile(g.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339)
	if g.logFormat == "json" {
		b, _ := json.Marshal(map[string]string{"level": level, "msg": text, "time": now})
		f.Write(append(b, '\n'))
	} else {
		fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, text)
	}
}

// parse reads flags and wants between low and high further arguments (high < 0: any number).
func parse(fs *flag.FlagSet, args []string, low, high int) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fault.Invalid("%s: %w", fs.Name(), err)
	}
	if n := fs.NArg(); n < low || (high >= 0 && n > high) {
		fs.Usage()
		return fault.Invalid("%s: wrong number of arguments", fs.Name())
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
