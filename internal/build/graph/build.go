package graph

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// defaultPath is PATH where an image sets none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// builder grows a graph. Stages are made when something asks for them.
type builder struct {
	file    *File
	opt     Options
	check   checker
	resolve Resolver
	lex     *shell.Lex
	global  envs            // ARGs before FROM, and platform args
	epoch   int64           // SOURCE_DATE_EPOCH, 0 without
	used    map[string]bool // build args that an ARG asked for
	graph   *Graph
	lines   [2]int            // of the instruction at hand
	made    map[int]*stage    // by index in the file
	bases   map[[2]string]int // steps of images that COPY --from names
}

// stage is a stage that is being made.
type stage struct {
	Stage
	epoch  int64
	pos    int  // index in builder's order, the later Graph.Stages
	env    envs // what expansion and RUN see: the image's ENV and the ARGs, in order
	args   []instructions.KeyValuePairOptional
	step   int // the newest step
	cmdSet bool
	dirSet bool // by a WORKDIR of the stage
	parent *stage
}

// Graph makes the steps for the options' target. It uses the file up: parse again for another graph.
func (f *File) Graph(o Options, resolve Resolver) (*Graph, error) {
	b, err := f.start(o, resolve)
	if err != nil {
		return nil, err
	}
	target, err := b.target()
	if err != nil {
		return nil, err
	}
	b.checkDefaults()
	if _, err := b.stage(target); err != nil {
		return nil, err
	}
	if err := f.lint.Error(); err != nil {
		return nil, fault.Invalid("%w", err)
	}
	for i := range f.stages {
		if s := b.made[i]; s != nil {
			s.pos = len(b.graph.Stages)
			b.graph.Stages = append(b.graph.Stages, s.Stage)
		}
	}
	for i, st := range b.graph.Stages {
		s := b.made[st.Index]
		b.graph.Stages[i].Parent = None
		if s.parent != nil {
			b.graph.Stages[i].Parent = s.parent.pos
		}
	}
	b.graph.Target = b.made[target].pos
	b.graph.Warnings = f.warnings
	for k, v := range o.Args {
		if v != nil && !b.used[k] && !slices.Contains(predefined, k) {
			b.graph.UnusedArgs = append(b.graph.UnusedArgs, k)
		}
	}
	slices.Sort(b.graph.UnusedArgs)
	return b.graph, nil
}

// start evaluates what comes before the first FROM.
func (f *File) start(o Options, resolve Resolver) (*builder, error) {
	b := &builder{file: f, opt: o, check: checker{lint: f.lint, args: f.args, ignore: o.Ignore}, resolve: resolve,
		lex: shell.NewLex(f.escape), used: map[string]bool{}, graph: &Graph{file: f}, made: map[int]*stage{}, bases: map[[2]string]int{}}
	if v := o.Args[sourceDate]; v != nil && *v != "" {
		n, err := strconv.ParseInt(*v, 10, 64)
		if err != nil || n < 0 {
			return nil, fault.Invalid("invalid %s: %s", sourceDate, *v)
		}
		b.epoch = max(n, 1)
		b.used[sourceDate] = true
	}
	return b, b.globals()
}

// sourceDate is the argument that sets the time of all that a build makes (reproducible-builds.org/specs/source-date-epoch).
const sourceDate = "SOURCE_DATE_EPOCH"

// noEpoch is the time of what is made FROM scratch: 1980-01-01, the first that all archive formats know. On top of an image it is that
// image's time: what depends on inputs alone is the same on another day.
const noEpoch = 315532800

// globals evaluates the ARGs before the first FROM, and the platform's.
func (b *builder) globals() error {
	f, o := b.file, b.opt
	target := o.Target
	if target == "" {
		target = f.stages[len(f.stages)-1].Name
	}
	if target == "" {
		target = "default"
	}
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", format(o.Host)}, {"BUILDOS", o.Host.OS}, {"BUILDOSVERSION", o.Host.OSVersion},
		{"BUILDARCH", o.Host.Architecture}, {"BUILDVARIANT", o.Host.Variant},
		{"TARGETPLATFORM", format(o.Platform)}, {"TARGETOS", o.Platform.OS}, {"TARGETOSVERSION", o.Platform.OSVersion},
		{"TARGETARCH", o.Platform.Architecture}, {"TARGETVARIANT", o.Platform.Variant}, {"TARGETSTAGE", target},
	} {
		if v := o.Args[kv[0]]; v != nil {
			kv[1] = *v
			b.used[kv[0]] = true
		}
		b.global = b.global.with(kv[0], kv[1])
	}
	for i := range f.args {
		for _, a := range f.args[i].Args {
			value := a.Value
			if v := o.Args[a.Key]; v != nil {
				value = v
				b.used[a.Key] = true
			} else if value != nil {
				v, _, err := b.lex.ProcessWord(*value, b.global)
				if err != nil {
					return f.fail(err, f.args[i].Location())
				}
				value = &v
			}
			if value != nil {
				b.global = b.global.with(a.Key, *value)
			}
		}
	}
	return nil
}

func format(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// target finds the stage to build.
func (b *builder) target() (int, error) {
	n := len(b.file.stages)
	if b.opt.Target == "" {
		return n - 1, nil
	}
	if i, ok := b.file.stage(b.opt.Target, n); ok {
		return i, nil
	}
	return 0, fault.Invalid("target stage %q could not be found", b.opt.Target)
}

// base expands a FROM line.
func (b *builder) base(s *instructions.Stage) (name, platform string, err error) {
	n, err := b.lex.ProcessWordWithMatches(s.BaseName, b.global)
	if err != nil {
		return "", "", err
	}
	p, err := b.lex.ProcessWordWithMatches(s.Platform, b.global)
	if err != nil {
		return "", "", err
	}
	b.check.from(s, b.global, n, p)
	if name, platform = n.Result, p.Result; name == "" {
		return "", "", fmt.Errorf("base name (%s) should not be blank", s.BaseName)
	}
	if s.Platform != "" && platform == "" {
		return "", "", fmt.Errorf("empty platform value from expression %s", s.Platform)
	}
	if platform == "" && format(b.opt.Platform) != format(b.opt.Host) {
		platform = format(b.opt.Platform)
	}
	return name, platform, nil
}

// stage makes the stage with that index in the file, and first those it needs.
func (b *builder) stage(i int) (*stage, error) {
	if s := b.made[i]; s != nil {
		return s, nil
	}
	defer func(l [2]int) { b.lines = l }(b.lines)
	src := &b.file.stages[i]
	name, platform, err := b.base(src)
	if err != nil {
		return nil, b.file.fail(err, src.Location)
	}
	b.file.checkOnce(src)
	if len(src.Location) > 0 {
		b.lines = [2]int{src.Location[0].Start.Line, src.Location[len(src.Location)-1].End.Line}
	}
	s := &stage{epoch: noEpoch, Stage: Stage{Name: src.Name, Index: i}, step: None}
	c, named := b.opt.Contexts[strings.ToLower(name)]
	if j, ok := b.file.stage(name, i); ok && !number(name) && !named {
		p, err := b.stage(j)
		if err != nil {
			return nil, err
		}
		s.parent, s.step, s.env, s.Config = p, p.step, p.env, clone(p.Config)
		s.epoch = p.epoch
		s.args = slices.Clone(p.args)
	} else if named && c.Folder {
		s.Config = empty(b.opt.Platform)
		s.env = s.Config.Config.Env
		s.step = b.add(Step{Parent: None, About: "FROM " + name, Op: Copy{Word: "FROM", From: Source{Context: true, Name: strings.ToLower(name)}, Paths: []string{"/"}, Dest: "/"}})
	} else if name == "scratch" {
		s.Config = empty(b.opt.Platform)
		s.env = s.Config.Config.Env
	} else {
		img, err := b.resolve(b.image(name), platform)
		if err != nil {
			return nil, err
		}
		want := b.opt.Platform
		if platform != "" {
			want.OS, want.Architecture, _ = strings.Cut(platform, "/")
			want.Architecture, _, _ = strings.Cut(want.Architecture, "/")
		}
		if want.Architecture != "" {
			b.check.platform(src, name, want, img.Config.Platform)
		}
		if c := img.Config.Created; c != nil && c.Unix() > noEpoch {
			s.epoch = c.Unix()
		}
		s.Config = clone(img.Config)
		s.env = envs(img.Config.Config.Env)
		s.step = b.add(Step{Parent: None, About: "FROM " + name, Op: Base{Image: img.ID, Layers: img.Config.RootFS.DiffIDs}})
	}
	if b.epoch != 0 {
		s.epoch = b.epoch
	}
	s.Epoch = s.epoch
	s.Lines = append(s.Lines, Line{Text: oneLine(src.SourceCode), Step: s.step})
	commands := src.Commands
	if triggers := s.Config.Config.OnBuild; len(triggers) > 0 {
		s.Config.Config.OnBuild = nil
		for _, t := range triggers {
			c, err := trigger(t)
			if err != nil {
				return nil, b.file.fail(err, src.Location)
			}
			if err := b.line(s, c, i); err != nil {
				return nil, b.file.fail(err, src.Location)
			}
		}
	}
	for _, c := range commands {
		if at := c.Location(); len(at) > 0 {
			b.lines = [2]int{at[0].Start.Line, at[len(at)-1].End.Line}
		}
		if err := b.line(s, c, i); err != nil {
			return nil, b.file.fail(err, c.Location())
		}
	}
	s.Last = s.step
	b.made[i] = s
	return s, nil
}

// trigger parses one ONBUILD expression.
func trigger(text string) (instructions.Command, error) {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	if len(ast.AST.Children) != 1 {
		return nil, fmt.Errorf("onbuild trigger should be a single expression: %s", text)
	}
	return instructions.ParseCommand(ast.AST.Children[0])
}

// image is the image behind a name: a named context's, or the name itself.
func (b *builder) image(name string) string {
	if c, ok := b.opt.Contexts[strings.ToLower(name)]; ok && c.Image != "" {
		return c.Image
	}
	return name
}

func (b *builder) add(s Step) int {
	s.Lines = b.lines
	b.graph.Steps = append(b.graph.Steps, s)
	return len(b.graph.Steps) - 1
}

// from finds what a --from names, as a step: an earlier stage, its number, or an image.
func (b *builder) from(name string, current int) (int, error) {
	_, named := b.opt.Contexts[strings.ToLower(name)]
	if j, ok := b.file.stage(name, current); ok && !named {
		s, err := b.stage(j)
		if err != nil {
			return 0, err
		}
		return s.step, nil
	}
	if number(name) && !named {
		return 0, fmt.Errorf("invalid from flag value %s: refers to current build stage or index out of bounds", name)
	}
	if j, ok := b.file.stage(name, len(b.file.stages)); ok && !named {
		if j == current {
			return 0, fmt.Errorf("invalid from flag value %s: refers to current build stage", name)
		}
		return 0, fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage", name)
	}
	if name == "scratch" {
		return None, nil
	}
	platform := ""
	if format(b.opt.Platform) != format(b.opt.Host) {
		platform = format(b.opt.Platform)
	}
	k := [2]string{name, platform}
	if step, ok := b.bases[k]; ok {
		return step, nil
	}
	img, err := b.resolve(b.image(name), platform)
	if err != nil {
		return 0, fmt.Errorf("invalid from flag value %s: %w", name, err)
	}
	b.bases[k] = b.add(Step{Parent: None, About: "FROM " + name, Op: Base{Image: img.ID, Layers: img.Config.RootFS.DiffIDs}})
	return b.bases[k], nil
}

// empty is the config of an image FROM scratch.
func empty(p ocispec.Platform) Config {
	var c Config
	c.Platform = p
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	c.Config.Env = []string{"PATH=" + defaultPath}
	c.Config.WorkingDir = "/"
	return c
}

// oneLine is an instruction as it is printed.
func oneLine(s string) string { return strings.TrimSpace(s) }
