package commit

import (
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/engine/spec"
)

// apply carries out Dockerfile instructions that change only the configuration.
func apply(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, line := range changes {
		if err := applyOne(c, line); err != nil {
			return err
		}
	}
	return nil
}

func applyOne(c *dockerspec.DockerOCIImageConfig, line string) error {
	parsed, err := parser.Parse(strings.NewReader(line))
	if err != nil {
		return fault.Invalid("cannot read the change %q: %w", line, err)
	}
	for _, node := range parsed.AST.Children {
		command, err := instructions.ParseCommand(node)
		if err != nil {
			return fault.Invalid("cannot read the change %q: %w", line, err)
		}
		if x, ok := command.(instructions.SupportsSingleWordExpansion); ok {
			lex := shell.NewLex(parsed.EscapeToken)
			err := x.Expand(func(word string) (string, error) {
				out, _, err := lex.ProcessWord(word, shell.EnvsFromSlice(c.Env))
				return out, err
			})
			if err != nil {
				return fault.Invalid("cannot read the change %q: %w", line, err)
			}
		}
		if err := change(c, command); err != nil {
			return err
		}
	}
	return nil
}

// change applies one instruction; those that make layers are refused with Docker's words.
func change(c *dockerspec.DockerOCIImageConfig, command instructions.Command) error {
	switch x := command.(type) {
	case *instructions.EnvCommand:
		for _, kv := range x.Env {
			c.Env = spec.ReplaceEnv(c.Env, []string{kv.Key + "=" + kv.Value})
		}
	case *instructions.LabelCommand:
		for _, kv := range x.Labels {
			c.Labels[kv.Key] = kv.Value
		}
	case *instructions.CmdCommand:
		c.Cmd = commandLine(c, x.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		c.Entrypoint = commandLine(c, x.ShellDependantCmdLine)
	case *instructions.WorkdirCommand:
		if path.IsAbs(x.Path) {
			c.WorkingDir = path.Clean(x.Path)
		} else {
			c.WorkingDir = path.Join("/", c.WorkingDir, x.Path)
		}
	case *instructions.UserCommand:
		c.User = x.User
	case *instructions.ExposeCommand:
		return expose(c, x.Ports)
	case *instructions.VolumeCommand:
		for _, v := range x.Volumes {
			c.Volumes[v] = struct{}{}
		}
	case *instructions.StopSignalCommand:
		c.StopSignal = x.Signal
	case *instructions.HealthCheckCommand:
		c.Healthcheck = x.Health
	case *instructions.ShellCommand:
		c.Shell = x.Shell
	case *instructions.OnbuildCommand:
		c.OnBuild = append(c.OnBuild, x.Expression)
	default:
		return errInstruction(strings.ToUpper(command.Name()))
	}
	return nil
}

func commandLine(c *dockerspec.DockerOCIImageConfig, l instructions.ShellDependantCmdLine) []string {
	if !l.PrependShell {
		return l.CmdLine
	}
	sh := c.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(sh[:len(sh):len(sh)], strings.Join(l.CmdLine, " "))
}

func expose(c *dockerspec.DockerOCIImageConfig, ports []string) error {
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, s := range ports {
		r, err := network.ParsePortRange(s)
		if err != nil {
			return fault.Invalid("cannot expose %q: %w", s, err)
		}
		for p := range r.All() {
			c.ExposedPorts[p.String()] = struct{}{}
		}
	}
	return nil
}
