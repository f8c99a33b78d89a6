package graph

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func (b *builder) run(s *stage, c *instructions.RunCommand, current int) (string, error) {
	if instructions.GetSecurity(c) != instructions.SecuritySandbox {
		return "", fmt.Errorf("RUN --security=%s is not supported", instructions.GetSecurity(c))
	}
	if len(instructions.GetDevices(c)) > 0 {
		return "", fmt.Errorf("RUN --device is not supported")
	}
	op := Run{Dir: s.path("/"), User: s.Config.Config.User, Hosts: b.opt.Hosts, ShmSize: b.opt.ShmSize,
		Limits: b.opt.Limits, Ulimits: b.opt.Ulimits}
	if wd := s.Config.Config.WorkingDir; wd != "" {
		op.Dir = s.path(wd)
	}
	if b.opt.Network != "default" {
		op.Network = b.opt.Network
	}
	if n := instructions.GetNetwork(c); n != instructions.NetworkDefault {
		op.Network = n
	}
	line := c.ShellDependantCmdLine
	if len(c.Files) > 0 {
		var err error
		if line, err = hereDocs(c, &op); err != nil {
			return "", err
		}
	}
	op.Args = s.commandLine(line)
	op.Env = slices.Clone(s.env)
	if _, ok := s.env.Get("PATH"); !ok {
		op.Env = append(op.Env, "PATH="+defaultPath)
	}
	for _, k := range predefined {
		if v := b.opt.Args[k]; v != nil {
			if _, declared := s.env.Get(k); !declared {
				op.Proxy = append(op.Proxy, k+"="+*v)
			}
		}
	}
	step := Step{Parent: s.step, About: "RUN " + strings.Join(op.Args, " ")}
	for _, m := range instructions.GetMounts(c) {
		mount, err := b.mount(s, &step, m, current)
		if err != nil {
			return "", err
		}
		op.Mounts = append(op.Mounts, mount)
	}
	step.Op = op
	s.step = b.add(step)
	return "RUN " + s.argWords() + strings.Join(op.Args, " ") + " # buildkit", nil
}

// argWords lists the ARGs in force as history does: "|1 a=b ".
func (s *stage) argWords() string {
	var words envs
	for _, a := range s.args {
		v, ok := s.env.Get(a.Key)
		if !ok {
			v = a.ValueString()
		}
		words = words.with(a.Key, v)
	}
	if len(words) == 0 {
		return ""
	}
	return fmt.Sprintf("|%d %s ", len(words), strings.Join(words, " "))
}

// hereDocs gives the shell a command that contains its here-documents; a single one that starts with #! becomes a file to execute.
func hereDocs(c *instructions.RunCommand, op *Run) (instructions.ShellDependantCmdLine, error) {
	line := c.ShellDependantCmdLine
	if len(line.CmdLine) != 1 || !line.PrependShell {
		return line, fmt.Errorf("here-documents need the shell form of RUN")
	}
	doc, err := parser.ParseHeredoc(line.CmdLine[0])
	if err != nil {
		return line, err
	}
	if doc == nil {
		var b strings.Builder
		b.WriteString(line.CmdLine[0])
		for _, f := range c.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		line.CmdLine = []string{b.String()}
		return line, nil
	}
	data := c.Files[0].Data
	if c.Files[0].Chomp {
		data = parser.ChompHeredocContent(data)
	}
	if !strings.HasPrefix(data, "#!") {
		line.CmdLine = []string{data}
		return line, nil
	}
	op.Files = []Inline{{Name: path.Base(path.Clean("/" + c.Files[0].Name)), Data: data}}
	line.CmdLine = []string{FilesDir + "/" + op.Files[0].Name}
	return line, nil
}

func (b *builder) mount(s *stage, step *Step, m *instructions.Mount, current int) (Mount, error) {
	out := Mount{Type: string(m.Type), Target: s.path(m.Target), ReadOnly: m.ReadOnly, Size: m.SizeLimit, From: Source{Context: true}}
	switch m.Type {
	case instructions.MountTypeBind, instructions.MountTypeCache, instructions.MountTypeTmpfs:
	default:
		return out, fmt.Errorf("RUN --mount=type=%s is not supported", m.Type)
	}
	if m.Target == "" || out.Target == "/" {
		return out, fmt.Errorf("invalid mount target %q", m.Target)
	}
	if m.Type == instructions.MountTypeCache {
		if m.From != "" {
			return out, fmt.Errorf("RUN --mount=type=cache,from=%s is not supported", m.From)
		}
		out.CacheID, out.Sharing, out.Mode = m.CacheID, string(m.CacheSharing), 0o755
		if out.CacheID == "" {
			out.CacheID = path.Clean(m.Target)
		}
		if out.Sharing == "" {
			out.Sharing = "shared"
		}
		if out.Sharing == "private" {
			return out, fmt.Errorf("RUN --mount=type=cache,sharing=private is not supported")
		}
		if m.Mode != nil {
			out.Mode = uint32(*m.Mode)
		}
		if m.UID != nil {
			out.UID = uint32(*m.UID)
		}
		if m.GID != nil {
			out.GID = uint32(*m.GID)
		}
		return out, nil
	}
	if m.Type == instructions.MountTypeTmpfs {
		return out, nil
	}
	out.Path = path.Join("/", m.Source)
	if m.From != "" {
		from, err := b.from(m.From, current)
		if err != nil {
			return out, err
		}
		if from == None {
			return out, fmt.Errorf("RUN --mount from an empty stage is not supported")
		}
		out.From = Source{Input: len(step.Inputs)}
		step.Inputs = append(step.Inputs, from)
	}
	return out, nil
}
