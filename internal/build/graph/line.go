package graph

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/sys/signal"
)

// line applies one instruction to the stage.
func (b *builder) line(s *stage, c instructions.Command, current int) error {
	text := c.Name()
	if t, ok := c.(fmt.Stringer); ok {
		text = oneLine(t.String())
	}
	b.check.command(s, c)
	if err := b.expand(s, c); err != nil {
		return err
	}
	s.Lines = append(s.Lines, Line{Text: text, Step: None, Shows: true})
	before := s.step
	by, err := b.apply(s, c, current)
	if err != nil {
		return err
	}
	l := &s.Lines[len(s.Lines)-1]
	l.CreatedBy = by
	if s.step != before {
		l.Step = s.step
	}
	return nil
}

// expand replaces variables where the instruction allows them.
func (b *builder) expand(s *stage, c instructions.Command) error {
	if _, isArg := c.(*instructions.ArgCommand); isArg {
		return nil // its value may be overridden and then is not looked at
	}
	if x, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		err := x.Expand(func(word string) (string, error) {
			w, unmatched, err := b.lex.ProcessWord(word, s.env)
			b.check.vars(s, c, unmatched)
			return w, err
		})
		if err != nil {
			return err
		}
	}
	if x, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok {
		return x.ExpandRaw(func(word string) (string, error) {
			lex := shell.NewLex('\\')
			lex.SkipProcessQuotes = true
			w, _, err := lex.ProcessWord(word, s.env)
			return w, err
		})
	}
	return nil
}

// apply changes config and steps and returns the history's words.
func (b *builder) apply(s *stage, c instructions.Command, current int) (string, error) {
	cfg := &s.Config.Config
	switch c := c.(type) {
	case *instructions.EnvCommand:
		by := "ENV"
		for _, e := range c.Env {
			by += " " + e.String()
			s.env = s.env.with(e.Key, e.Value)
			cfg.Env = envs(cfg.Env).with(e.Key, e.Value)
		}
		return by, nil
	case *instructions.ArgCommand:
		return b.arg(s, c)
	case *instructions.LabelCommand:
		by := "LABEL"
		if cfg.Labels == nil {
			cfg.Labels = map[string]string{}
		}
		for _, l := range c.Labels {
			by += " " + l.String()
			cfg.Labels[l.Key] = l.Value
		}
		return by, nil
	case *instructions.MaintainerCommand:
		s.Config.Author = c.Maintainer
		return "MAINTAINER " + c.Maintainer, nil
	case *instructions.UserCommand:
		cfg.User = c.User
		return "USER " + c.User, nil
	case *instructions.WorkdirCommand:
		return b.workdir(s, c)
	case *instructions.ExposeCommand:
		return b.expose(s, c)
	case *instructions.VolumeCommand:
		if cfg.Volumes == nil {
			cfg.Volumes = map[string]struct{}{}
		}
		for _, v := range c.Volumes {
			if v == "" {
				return "", fmt.Errorf("VOLUME specified can not be an empty string")
			}
			cfg.Volumes[v] = struct{}{}
		}
		return fmt.Sprintf("VOLUME %v", c.Volumes), nil
	case *instructions.CmdCommand:
		cfg.Cmd = s.commandLine(c.ShellDependantCmdLine)
		s.cmdSet = true
		return fmt.Sprintf("CMD %q", cfg.Cmd), nil
	case *instructions.EntrypointCommand:
		cfg.Entrypoint = s.commandLine(c.ShellDependantCmdLine)
		if !s.cmdSet {
			cfg.Cmd = nil // the base's CMD was meant for the base's ENTRYPOINT
		}
		return fmt.Sprintf("ENTRYPOINT %q", cfg.Entrypoint), nil
	case *instructions.ShellCommand:
		cfg.Shell = c.Shell
		return fmt.Sprintf("SHELL %v", c.Shell), nil
	case *instructions.StopSignalCommand:
		if _, err := signal.ParseSignal(c.Signal); err != nil {
			return "", err
		}
		cfg.StopSignal = c.Signal
		return "STOPSIGNAL " + c.Signal, nil
	case *instructions.HealthCheckCommand:
		h := dockerspec.HealthcheckConfig(*c.Health)
		cfg.Healthcheck = &h
		return fmt.Sprintf("HEALTHCHECK %+v", h), nil
	case *instructions.OnbuildCommand:
		cfg.OnBuild = append(cfg.OnBuild, c.Expression)
		return "", nil
	case *instructions.RunCommand:
		return b.run(s, c, current)
	case *instructions.CopyCommand:
		return b.copy(s, c, current)
	case *instructions.AddCommand:
		return b.addFiles(s, c)
	}
	return "", fmt.Errorf("%s is not supported", strings.ToUpper(c.Name()))
}

// commandLine puts the shell in front of the shell form.
func (s *stage) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return c.CmdLine
	}
	shell := s.Config.Config.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), strings.Join(c.CmdLine, " "))
}

func (b *builder) arg(s *stage, c *instructions.ArgCommand) (string, error) {
	by := "ARG"
	for _, a := range c.Args {
		given := b.opt.Args[a.Key]
		switch {
		case given != nil:
			v := *given
			a.Value = &v
		case a.Value != nil:
			v, unmatched, err := b.lex.ProcessWord(*a.Value, s.env)
			if err != nil {
				return "", err
			}
			b.check.vars(s, c, unmatched)
			a.Value = &v
		default:
			if v, ok := b.global.Get(a.Key); ok {
				a.Value = &v
			}
		}
		b.used[a.Key] = true
		by += " " + a.Key
		if a.Value != nil {
			s.env = s.env.with(a.Key, *a.Value)
			by += "=" + *a.Value
		}
		s.args = append(s.args, a)
	}
	return by, nil
}

func (b *builder) workdir(s *stage, c *instructions.WorkdirCommand) (string, error) {
	dir := s.path(c.Path)
	s.Config.Config.WorkingDir = dir
	if dir != "/" {
		s.step = b.add(Step{Epoch: s.epoch, Parent: s.step, About: "WORKDIR " + dir, Op: MakeDir{Path: dir, Owner: s.Config.Config.User}})
	}
	return "WORKDIR " + dir, nil
}

// path makes p absolute, from the working directory if it is not yet.
func (s *stage) path(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", s.Config.Config.WorkingDir, p)
}
