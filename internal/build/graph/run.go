package graph

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func (b *builder) run(s *stage, c *instructions.RunCommand, current int) (string, error) {
	insecure := instructions.GetSecurity(c) == instructions.SecurityInsecure
	if insecure && !slices.Contains(b.opt.Allow, "security.insecure") {
		return "", fmt.Errorf("security.insecure is not allowed: build with --allow security.insecure")
	}
	if len(instructions.GetDevices(c)) > 0 {
		return "", fmt.Errorf("RUN --device is not supported")
	}
	op := Run{Insecure: insecure, Dir: s.path("/"), User: s.Config.Config.User, Hosts: b.opt.Hosts, ShmSize: b.opt.ShmSize,
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
	if _, declared := s.env.Get(sourceDate); !declared {
		op.Proxy = append(op.Proxy, fmt.Sprintf("%s=%d", sourceDate, s.epoch))
	}
	for _, k := range predefined {
		if v := b.opt.Args[k]; v != nil {
			if _, declared := s.env.Get(k); !declared {
				op.Proxy = append(op.Proxy, k+"="+*v)
			}
		}
	}
	step := Step{Epoch: s.epoch, Parent: s.step, About: "RUN " + strings.Join(op.Args, " ")}
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
	out := Mount{Type: string(m.Type), ReadOnly: m.ReadOnly}
	if m.Target != "" {
		out.Target = s.path(m.Target)
	}
	if m.UID != nil {
		out.UID = uint32(*m.UID)
	}
	if m.GID != nil {
		out.GID = uint32(*m.GID)
	}
	switch m.Type {
	case instructions.MountTypeSecret:
		return out, secretMount(&out, m)
	case instructions.MountTypeSSH:
		out.ID, out.Required, out.Mode = cmp.Or(m.CacheID, "default"), m.Required, modeOr(m, 0o600)
		if m.Source != "" {
			return out, fmt.Errorf("ssh does not support source")
		}
		return out, nil
	}
	if m.Target == "" || out.Target == "/" {
		return out, fmt.Errorf("invalid mount target %q", m.Target)
	}
	switch m.Type {
	case instructions.MountTypeTmpfs:
		out.Size = m.SizeLimit
		return out, nil
	case instructions.MountTypeCache:
		out.CacheID, out.Sharing, out.Mode = cmp.Or(m.CacheID, path.Clean(m.Target)), cmp.Or(string(m.CacheSharing), "shared"), modeOr(m, 0o755)
		if ns := b.opt.Args["BUILDKIT_CACHE_MOUNT_NS"]; ns != nil {
			out.CacheID = *ns + "/" + out.CacheID
		}
		if m.From == "" {
			return out, nil
		}
	case instructions.MountTypeBind:
		out.From = Source{Context: true}
	default:
		return out, fmt.Errorf("RUN --mount=type=%s is not supported", m.Type)
	}
	out.Path = path.Join("/", m.Source)
	if m.From == "" {
		return out, nil
	}
	var err error
	out.From, err = b.source(step, m.From, current)
	return out, err
}

func modeOr(m *instructions.Mount, mode uint32) uint32 {
	if m.Mode != nil {
		return uint32(*m.Mode) & 0o7777
	}
	return mode
}

func secretMount(out *Mount, m *instructions.Mount) error {
	out.ID, out.Required, out.Mode = cmp.Or(m.Source, m.CacheID), m.Required, modeOr(m, 0o400)
	if out.ID == "" {
		if m.Target == "" {
			return fmt.Errorf("one of source, target required")
		}
		out.ID = path.Base(m.Target)
	}
	if m.Env != nil {
		out.Env = *m.Env
	} else if m.Target == "" {
		out.Target = "/run/secrets/" + path.Base(out.ID)
	}
	return nil
}

// source makes what a --from names an input of the step.
func (b *builder) source(step *Step, name string, current int) (Source, error) {
	if c, ok := b.opt.Contexts[strings.ToLower(name)]; ok && c.Folder {
		return Source{Context: true, Name: strings.ToLower(name)}, nil
	}
	from, err := b.from(name, current)
	if err != nil {
		return Source{}, err
	}
	step.Inputs = append(step.Inputs, from)
	return Source{Input: len(step.Inputs) - 1}, nil
}
