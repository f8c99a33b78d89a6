// Package contexts is the commands about contexts: named engines, kept where Docker keeps them.
package contexts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tare/internal/cli/command"
	"tare/internal/cli/contextstore"
	"tare/internal/cli/output"
)

// inMemory is the place of the default context, which no file describes.
const inMemory = "<IN MEMORY>"

// defaultDescription is what lists say of the engine that no context names.
const defaultDescription = "Current DOCKER_HOST based configuration"

// get reads a context; the default one is made of flags and environment.
func get(env *command.Env, name string) (contextstore.Context, contextstore.TLS, error) {
	if name == command.DefaultContext {
		return contextstore.New(name, "", env.DefaultEndpoint().Host, false), contextstore.TLS{}, nil
	}
	store := env.Contexts()
	c, err := store.Get(name)
	if err != nil {
		return c, nil, err
	}
	tls, err := store.TLS(name)
	return c, tls, err
}

// endpointFlags are the flags that describe an engine.
type endpointFlags struct {
	description string
	docker      map[string]string
}

func (f *endpointFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.description, "description", "", "Description of the context")
	fs.StringToStringVar(&f.docker, "docker", nil, "set the docker endpoint: from=CONTEXT, or host=ADDRESS,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL")
}

var endpointKeys = []string{"from", "host", "ca", "cert", "key", "skip-tls-verify"}

// endpoint is what --docker describes: an engine's address and TLS files.
func (f *endpointFlags) endpoint(env *command.Env) (host string, skip bool, tls contextstore.TLS, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("unable to create docker endpoint config: %w", err)
		}
	}()
	for _, k := range slices.Sorted(maps.Keys(f.docker)) {
		if !slices.Contains(endpointKeys, k) {
			return "", false, nil, fmt.Errorf("unrecognized config key: %s", k)
		}
	}
	if from := f.docker["from"]; from != "" {
		c, tls, err := get(env, from)
		return c.Host(), c.SkipVerify(), contextstore.TLS{contextstore.Docker: tls[contextstore.Docker]}, err
	}
	if skip, err = boolean(f.docker["skip-tls-verify"]); err != nil {
		return "", false, nil, err
	}
	found := map[string][]byte{}
	for key, file := range map[string]string{"ca": contextstore.CA, "cert": contextstore.Cert, "key": contextstore.Key} {
		if path := f.docker[key]; path != "" {
			if found[file], err = os.ReadFile(path); err != nil {
				return "", false, nil, err
			}
		}
	}
	if err := command.CheckHost(f.docker["host"]); err != nil {
		return "", false, nil, fmt.Errorf("unable to apply docker endpoint options: %w", err)
	}
	return f.docker["host"], skip, contextstore.TLS{contextstore.Docker: found}, nil
}

func boolean(s string) (bool, error) {
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("skip-tls-verify: %w", err)
	}
	return b, nil
}

// NewCreate is `tare context create`.
func NewCreate(env *command.Env) *cobra.Command {
	var f endpointFlags
	var from string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] CONTEXT", Short: "Create a context", Args: command.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if err := free(env, name); err != nil {
				return err
			}
			var c contextstore.Context
			var tls contextstore.TLS
			switch {
			case from != "" && f.docker != nil:
				return errors.New("cannot use --docker flag when --from is set")
			case f.docker != nil:
				host, skip, files, err := f.endpoint(env)
				if err != nil {
					return err
				}
				c, tls = contextstore.New(name, "", host, skip), files
			default: // a copy of another one, or of what is used now
				source := from
				if source == "" {
					source = command.DefaultContext
				}
				var err error
				if c, tls, err = get(env, source); err != nil {
					return err
				}
				if source == command.DefaultContext {
					c.Describe(defaultDescription)
				}
				c.Name = name
			}
			if f.description != "" {
				c.Describe(f.description)
			}
			if err := env.Contexts().Put(c, tls); err != nil {
				return err
			}
			return done(env, name, "Successfully created context %q", name)
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&from, "from", "", "create context from a named context")
	completeContext(cmd, env, "from")
	return cmd
}

// free refuses a name that is no good or taken.
func free(env *command.Env, name string) error {
	if err := contextstore.CheckName(name); err != nil {
		return err
	}
	if env.Contexts().Has(name) {
		return fmt.Errorf("context %q already exists", name)
	}
	return nil
}

// done prints the name for programs and a sentence for people.
func done(env *command.Env, name, format string, args ...any) error {
	fmt.Fprintln(env.Stdout, name)
	fmt.Fprintf(env.Stderr, format+"\n", args...)
	return nil
}

// NewUpdate is `tare context update`.
func NewUpdate(env *command.Env) *cobra.Command {
	var f endpointFlags
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTEXT", Short: "Update a context", Args: command.ExactArgs(1), ValidArgsFunction: complete(env, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := contextstore.CheckName(args[0]); err != nil {
				return err
			}
			c, err := env.Contexts().Get(args[0])
			if err != nil {
				return err
			}
			if f.description != "" {
				c.Describe(f.description)
			}
			var tls contextstore.TLS
			if f.docker != nil {
				host, skip, files, err := f.endpoint(env)
				if err != nil {
					return err
				}
				c.SetHost(host, skip)
				tls = files
			}
			if err := env.Contexts().Put(c, tls); err != nil {
				return err
			}
			return done(env, c.Name, "Successfully updated context %q", c.Name)
		},
	}
	f.register(cmd.Flags())
	return cmd
}

// NewUse is `tare context use`.
func NewUse(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Set the current context", Args: command.ExactArgs(1), ValidArgsFunction: complete(env, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			chosen := name
			if name == command.DefaultContext {
				chosen = ""
			} else if _, err := env.Contexts().Get(name); err != nil {
				return err
			}
			config, err := env.Config()
			if err != nil {
				return err
			}
			if err := config.UseContext(chosen); err != nil {
				return err
			}
			if v := overrider(env); v != "" && chosen != "" {
				defer fmt.Fprintf(env.Stderr, "Warning: %[1]s environment variable overrides the active context. "+
					"To use %[2]q, either set the global --context flag, or unset %[1]s environment variable.\n", v, name)
			}
			return done(env, name, "Current context is now %q", name)
		},
	}
}

// overrider is the environment variable that names an engine whatever context is in use, "" if none does.
func overrider(env *command.Env) string {
	for _, v := range []string{"TARE_HOST", "DOCKER_HOST"} {
		if os.Getenv(v) != "" && env.Context == "" {
			return v
		}
	}
	return ""
}

// NewShow is `tare context show`.
func NewShow(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the name of the current context", Args: command.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			name, err := env.CurrentContext()
			if err == nil {
				fmt.Fprintln(env.Stdout, name)
			}
			return err
		},
	}
}

// NewRemove is `tare context rm`.
func NewRemove(env *command.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm CONTEXT [CONTEXT...]", Aliases: []string{"remove"}, Short: "Remove one or more contexts", Args: command.MinArgs(1),
		ValidArgsFunction: complete(env, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			current, err := env.CurrentContext()
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				switch {
				case name == command.DefaultContext:
					return fmt.Errorf("context %q cannot be removed", name)
				case !env.Contexts().Has(name) && !force:
					return fmt.Errorf("context %q does not exist", name)
				case name == current && !force:
					return fmt.Errorf("context %q is in use, set -f flag to force remove", name)
				case name == current:
					config, err := env.Config()
					if err != nil {
						return err
					}
					if err := config.UseContext(""); err != nil {
						return err
					}
				}
				if err := env.Contexts().Remove(name); err != nil {
					return err
				}
				fmt.Fprintln(env.Stdout, name)
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return cmd
}

// NewExport is `tare context export`.
func NewExport(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "export [OPTIONS] CONTEXT [FILE|-]", Short: "Export a context to a tar archive FILE or a tar stream on STDOUT.", Args: command.RangeArgs(1, 2),
		ValidArgsFunction: complete(env, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != command.DefaultContext {
				if err := contextstore.CheckName(args[0]); err != nil {
					return err
				}
			}
			c, tls, err := get(env, args[0])
			if err != nil {
				return err
			}
			path := args[0] + ".dockercontext"
			if len(args) == 2 {
				path = args[1]
			}
			if path == "-" {
				if env.StdoutTTY() {
					return errors.New("cowardly refusing to export to a terminal, specify a file path")
				}
				return contextstore.Export(env.Stdout, c, tls)
			}
			f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			if err := errors.Join(contextstore.Export(f, c, tls), f.Close()); err != nil {
				return errors.Join(err, os.Remove(path))
			}
			fmt.Fprintf(env.Stderr, "Written file %q\n", path)
			return nil
		},
	}
}

// NewImport is `tare context import`.
func NewImport(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "import CONTEXT FILE|-", Short: "Import a context from a tar or zip file", Args: command.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if err := free(env, name); err != nil {
				return err
			}
			var in io.Reader = env.Stdin
			if args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			c, tls, err := contextstore.Import(in, name)
			if err != nil {
				return err
			}
			if err := env.Contexts().Put(c, tls); err != nil {
				return err
			}
			return done(env, name, "Successfully imported context %q", name)
		},
	}
}

// inspected is a context as `inspect` shows it.
type inspected struct {
	Name        string
	Metadata    map[string]any
	Endpoints   map[string]map[string]any
	TLSMaterial map[string][]string
	Storage     struct{ MetadataPath, TLSPath string }
}

// NewInspect is `tare context inspect`.
func NewInspect(env *command.Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", Short: "Display detailed information on one or more contexts", ValidArgsFunction: complete(env, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				current, err := env.CurrentContext()
				if err != nil {
					return err
				}
				args = []string{current}
			}
			var found []output.Object
			missing := command.Each(args, func(name string) error {
				c, tls, err := get(env, name)
				if err != nil {
					return err
				}
				i := inspected{Name: c.Name, Metadata: c.Metadata, Endpoints: c.Endpoints, TLSMaterial: map[string][]string{}}
				for endpoint := range tls {
					i.TLSMaterial[endpoint] = tls.Files(endpoint)
				}
				i.Storage.MetadataPath, i.Storage.TLSPath = inMemory, inMemory
				if name != command.DefaultContext {
					i.Storage.MetadataPath, i.Storage.TLSPath = env.Contexts().MetaDir(name), env.Contexts().TLSDir(name)
				}
				found = append(found, output.Object{Value: i})
				return nil
			})
			if err := output.Inspect(env.Out(), format, found); err != nil {
				return err
			}
			return missing
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template")
	return cmd
}

// row is a line of the list.
type row struct {
	name, description, host, problem string
	current                          bool
}

// NewList is `tare context ls`.
func NewList(env *command.Env) *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List contexts", Args: command.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rows, err := list(env)
			if err != nil {
				return err
			}
			if v := overrider(env); v != "" {
				defer fmt.Fprintf(env.Stderr, "Warning: %[1]s environment variable overrides the active context. "+
					"To use a context, either set the global --context flag, or unset %[1]s environment variable.\n", v)
			}
			people := !quiet && (format == "" || strings.HasPrefix(format, "table"))
			return table(people).Print(env.Out(), format, quiet, rows)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	command.FormatFlag(cmd.Flags(), &format)
	return cmd
}

func list(env *command.Env) ([]row, error) {
	current, err := env.CurrentContext()
	if err != nil {
		return nil, err
	}
	all, err := env.Contexts().List()
	if err != nil {
		return nil, err
	}
	rows := []row{{name: command.DefaultContext, description: defaultDescription, host: env.DefaultEndpoint().Host}}
	for _, c := range all {
		rows = append(rows, row{name: c.Name, description: c.Description(), host: c.Host()})
	}
	known := false
	for i := range rows {
		rows[i].current = rows[i].name == current
		known = known || rows[i].current
	}
	if !known {
		_, err := env.Contexts().Get(current)
		if err == nil {
			err = fs.ErrNotExist
		}
		rows = append(rows, row{name: current, current: true, problem: err.Error()})
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	return rows, nil
}

// table shows contexts; the list for people marks the current one and shortens errors.
func table(people bool) output.Table[row] {
	return output.Table[row]{
		Default: `table {{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}`, Quiet: `{{.Name}}`,
		Columns: []output.Column[row]{
			{Name: "Name", Header: "NAME", Value: func(r row) string {
				if people && r.current {
					return r.name + " *"
				}
				return r.name
			}},
			{Name: "Description", Header: "DESCRIPTION", Value: func(r row) string { return r.description }},
			{Name: "DockerEndpoint", Header: "DOCKER ENDPOINT", Value: func(r row) string { return r.host }},
			{Name: "Error", Header: "ERROR", Value: func(r row) string {
				if people {
					return output.Ellipsis(r.problem, 45)
				}
				return r.problem
			}},
			{Name: "Current", Header: "CURRENT", Any: func(r row) any { return r.current }},
		},
	}
}

// complete completes up to n names of contexts; any number when n is negative.
func complete(env *command.Env, n int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if n >= 0 && len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(env), cobra.ShellCompDirectiveNoFileComp
	}
}

func completeContext(cmd *cobra.Command, env *command.Env, flag string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, complete(env, -1))
}

func names(env *command.Env) []string {
	all, _ := env.Contexts().List()
	out := []string{command.DefaultContext}
	for _, c := range all {
		out = append(out, c.Name)
	}
	return out
}
