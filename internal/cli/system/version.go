package system

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// versions is what `tare version` shows; templates see it as {{.Client}} and {{.Server}}.
type versions struct {
	Client clientVersion
	Server *serverVersion
}

type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os, Arch          string
	BuildTime         string
	Context           string
}

type serverVersion struct {
	Platform      struct{ Name string }
	Components    []component
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	GitCommit     string
	GoVersion     string
	Os, Arch      string
	KernelVersion string
	Experimental  bool   `json:",omitempty"`
	BuildTime     string `json:",omitempty"`
}

type component struct {
	Name, Version string
	Details       map[string]string
}

// NewVersion is `tare version`.
func NewVersion(env *command.Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "version [OPTIONS]", Short: "Show the Tare version information", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, serverErr := gather(cmd.Context(), env)
			if format == "json" {
				format = "{{json .}}"
			}
			if format == "" {
				v.show(env.Stdout)
				return serverErr
			}
			tmpl, err := output.Parse(format)
			if err != nil {
				return err
			}
			if err := output.Execute(env.Stdout, tmpl, v); err != nil {
				return err
			}
			return serverErr
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

// thisProgram is the client's half, which needs no engine.
func thisProgram(env *command.Env) clientVersion {
	v := clientVersion{
		Version: env.Version, APIVersion: command.APIVersion, DefaultAPIVersion: command.APIVersion,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: "default",
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.GitCommit = s.Value
			case "vcs.time":
				v.BuildTime = s.Value
			}
		}
	}
	return v
}

func gather(ctx context.Context, env *command.Env) (versions, error) {
	v := versions{Client: thisProgram(env)}
	c, err := env.Client(ctx)
	if err != nil {
		return v, err
	}
	got, err := c.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return v, err
	}
	s := &serverVersion{
		Version: got.Version, APIVersion: got.APIVersion, MinAPIVersion: got.MinAPIVersion, Os: got.Os, Arch: got.Arch, Experimental: got.Experimental,
	}
	s.Platform.Name = got.Platform.Name
	for _, k := range got.Components {
		s.Components = append(s.Components, component{k.Name, k.Version, k.Details})
		if k.Name == "Engine" {
			s.GoVersion, s.GitCommit, s.KernelVersion, s.BuildTime = k.Details["GoVersion"], k.Details["GitCommit"], k.Details["KernelVersion"], k.Details["BuildTime"]
		}
	}
	v.Client.APIVersion, v.Server = c.ClientVersion(), s
	return v, nil
}

func (v versions) show(w io.Writer) {
	line := func(indent int, name, value string) {
		fmt.Fprintf(w, "%*s%-*s%s\n", indent, "", 20-indent, name+":", value)
	}
	c := v.Client
	fmt.Fprintln(w, "Client: Tare")
	line(1, "Version", c.Version)
	line(1, "API version", c.APIVersion)
	line(1, "Go version", c.GoVersion)
	line(1, "Git commit", c.GitCommit)
	line(1, "Built", c.BuildTime)
	line(1, "OS/Arch", c.Os+"/"+c.Arch)
	line(1, "Context", c.Context)
	s := v.Server
	if s == nil {
		return
	}
	fmt.Fprintf(w, "\nServer: %s\n", cmp.Or(s.Platform.Name, "Engine"))
	for _, k := range s.Components {
		fmt.Fprintf(w, " %s:\n", k.Name)
		line(2, "Version", k.Version)
		if k.Name == "Engine" {
			line(2, "API version", fmt.Sprintf("%s (minimum version %s)", k.Details["ApiVersion"], k.Details["MinAPIVersion"]))
			line(2, "Go version", k.Details["GoVersion"])
			line(2, "Git commit", k.Details["GitCommit"])
			line(2, "Built", k.Details["BuildTime"])
			line(2, "OS/Arch", k.Details["Os"]+"/"+k.Details["Arch"])
			line(2, "Experimental", k.Details["Experimental"])
			continue
		}
		var keys []string
		for name := range k.Details {
			keys = append(keys, name)
		}
		slices.Sort(keys)
		for _, name := range keys {
			line(2, name, k.Details[name])
		}
	}
}
