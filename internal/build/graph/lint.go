package graph

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// Warning is what a check of BuildKit's linter found.
type Warning struct {
	Rule        string // "" is the parser's own
	Description string // of the rule
	URL         string
	Text        string
	Line        int // in the file; 0: nowhere
	Last        int // of the lines it is about
}

func (w Warning) String() string {
	if w.Line > 0 {
		return fmt.Sprintf("%s (line %d)", w.Text, w.Line)
	}
	return w.Text
}

// newLinter reads the options of "# check=" or, before them, those that the request has.
func (f *File) newLinter(text []byte, option string) error {
	if option == "" {
		_, option, _, _ = parser.ParseDirective("check", text)
	}
	config, err := linter.ParseLintOptions(option)
	if err != nil {
		return fault.Invalid("failed to parse check options: %w", err)
	}
	config.Warn = func(rule, description, url, text string, at []parser.Range) {
		w := Warning{Rule: rule, Description: description, URL: url, Text: text}
		if len(at) > 0 {
			w.Line, w.Last = at[0].Start.Line, at[len(at)-1].End.Line
		}
		if !slices.Contains(f.warnings, w) {
			f.warnings = append(f.warnings, w)
		}
	}
	f.lint = linter.New(config)
	return nil
}

// checkStages looks at what needs no values: the casing of instructions, and the names of stages.
func (f *File) checkStages() {
	lower := 0
	consistent := func(word string) {
		switch word {
		case strings.ToLower(word):
			lower++
		case strings.ToUpper(word):
			lower--
		}
	}
	for _, s := range f.stages {
		consistent(s.OrigCmd)
		for _, c := range s.Commands {
			consistent(c.Name())
		}
	}
	casing := func(word string, at []parser.Range) {
		want, name := strings.ToUpper(word), "uppercase"
		if lower > 0 {
			want, name = strings.ToLower(word), "lowercase"
		}
		if word != want {
			f.lint.Run(&linter.RuleConsistentInstructionCasing, at, linter.RuleConsistentInstructionCasing.Format(word, name))
		}
	}
	names := map[string]bool{}
	for _, s := range f.stages {
		casing(s.OrigCmd, s.Location)
		for _, c := range s.Commands {
			casing(c.Name(), c.Location())
		}
		if s.Name == "" {
			continue
		}
		if s.Name == "scratch" || s.Name == "context" {
			f.lint.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if names[s.Name] {
			f.lint.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		names[s.Name] = true
	}
}

// checkOnce finds CMD, ENTRYPOINT and HEALTHCHECK that a later one of the same stage replaces.
func (f *File) checkOnce(s *instructions.Stage) {
	last := map[string]instructions.Command{}
	for _, c := range s.Commands {
		name := strings.ToUpper(c.Name())
		if name != "CMD" && name != "ENTRYPOINT" && name != "HEALTHCHECK" {
			continue
		}
		if old := last[name]; old != nil {
			f.lint.Run(&linter.RuleMultipleInstructionsDisallowed, old.Location(), linter.RuleMultipleInstructionsDisallowed.Format(c.Name()))
		}
		last[name] = c
	}
}

// checker applies the linter's rules to instructions as their values become known.
type checker struct {
	lint   *linter.Linter
	args   []instructions.ArgCommand // before the first FROM
	ignore []string                  // the patterns of .dockerignore
}

// checkDefaults finds FROM lines that have no valid name when no build argument is given.
func (b *builder) checkDefaults() {
	plain := Options{Platform: b.opt.Platform, Host: b.opt.Host}
	d := &builder{file: b.file, opt: plain, lex: b.lex, used: map[string]bool{}}
	if d.globals() != nil {
		return
	}
	for _, s := range b.file.stages {
		name, _, err := b.lex.ProcessWord(s.BaseName, d.global)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(name); err != nil {
			b.check.lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

// from looks at a FROM line's words, expanded with the global arguments.
func (k checker) from(s *instructions.Stage, global envs, name, platform shell.ProcessWordResult) {
	for _, r := range []shell.ProcessWordResult{name, platform} {
		for v := range r.Unmatched {
			if _, declared := global.Get(v); declared || slices.ContainsFunc(k.args, func(a instructions.ArgCommand) bool {
				return slices.ContainsFunc(a.Args, func(kv instructions.KeyValuePairOptional) bool { return kv.Key == v })
			}) {
				continue
			}
			near, _ := suggest.Search(v, global.Keys(), true)
			k.lint.Run(&linter.RuleUndefinedArgInFrom, s.Location, linter.RuleUndefinedArgInFrom.Format(v, near))
		}
	}
	if s.Platform == "" {
		return
	}
	if len(platform.Matched)+len(platform.Unmatched) == 0 {
		if os, rest, _ := strings.Cut(platform.Result, "/"); rest != "" {
			arch, _, _ := strings.Cut(rest, "/")
			if !strings.Contains(s.Name, os) && !strings.Contains(s.Name, arch) {
				k.lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, s.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(platform.Result))
			}
		}
	}
	if _, ok := platform.Matched["TARGETPLATFORM"]; ok && len(platform.Matched) == 1 && len(platform.Unmatched) == 0 {
		if v, _ := global.Get("TARGETPLATFORM"); v == platform.Result {
			k.lint.Run(&linter.RuleRedundantTargetPlatform, s.Location, linter.RuleRedundantTargetPlatform.Format(s.Platform))
		}
	}
}

// platform compares what a base image is made for with what was asked for.
func (k checker) platform(s *instructions.Stage, name string, want, have ocispec.Platform) {
	if have.OS != "" && have.Architecture != "" && (have.OS != want.OS || have.Architecture != want.Architecture) {
		k.lint.Run(&linter.RuleInvalidBaseImagePlatform, s.Location, linter.RuleInvalidBaseImagePlatform.Format(name, format(want), format(have)))
	}
}

// vars reports variables that nobody defined.
func (k checker) vars(s *stage, c instructions.Command, unmatched map[string]struct{}) {
	for v := range unmatched {
		if slices.ContainsFunc(s.args, func(a instructions.KeyValuePairOptional) bool { return a.Key == v }) {
			continue
		}
		near, _ := suggest.Search(v, s.env.Keys(), true)
		k.lint.Run(&linter.RuleUndefinedVar, c.Location(), linter.RuleUndefinedVar.Format(v, near))
	}
}

var (
	secretWords = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicWords = regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

// command applies the rules about single instructions.
func (k checker) command(s *stage, c instructions.Command) {
	at := c.Location()
	secret := func(word, key string) {
		if secretWords.MatchString(key) && !publicWords.MatchString(key) {
			k.lint.Run(&linter.RuleSecretsUsedInArgOrEnv, at, linter.RuleSecretsUsedInArgOrEnv.Format(word, key))
		}
	}
	shellForm := func(l instructions.ShellDependantCmdLine) {
		if l.PrependShell && len(s.Config.Config.Shell) == 0 {
			k.lint.Run(&linter.RuleJSONArgsRecommended, at, linter.RuleJSONArgsRecommended.Format(c.Name()))
		}
	}
	legacy := func(list instructions.KeyValuePairs) {
		for _, kv := range list {
			if kv.NoDelim {
				k.lint.Run(&linter.RuleLegacyKeyValueFormat, at, linter.RuleLegacyKeyValueFormat.Format(c.Name()))
			}
		}
	}
	switch c := c.(type) {
	case *instructions.EnvCommand:
		legacy(c.Env)
		for _, kv := range c.Env {
			secret("ENV", kv.Key)
		}
	case *instructions.ArgCommand:
		for _, kv := range c.Args {
			secret("ARG", kv.Key)
		}
	case *instructions.LabelCommand:
		legacy(c.Labels)
	case *instructions.CmdCommand:
		shellForm(c.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		shellForm(c.ShellDependantCmdLine)
	case *instructions.WorkdirCommand:
		if !s.dirSet && !strings.HasPrefix(c.Path, "/") {
			k.lint.Run(&linter.RuleWorkdirRelativePath, at, linter.RuleWorkdirRelativePath.Format(c.Path))
		}
		s.dirSet = true
	case *instructions.CopyCommand:
		if c.From == "" {
			k.ignored("Copy", c.SourcePaths, at)
		}
	case *instructions.AddCommand:
		k.ignored("Add", c.SourcePaths, at)
	case *instructions.ExposeCommand:
		for _, p := range c.Ports {
			if _, proto, ok := strings.Cut(p, "/"); ok && proto != strings.ToLower(proto) && !strings.Contains(p, "$") {
				k.lint.Run(&linter.RuleExposeProtoCasing, at, linter.RuleExposeProtoCasing.Format(p))
			}
			if strings.Contains(p, ":") {
				k.lint.Run(&linter.RuleExposeInvalidFormat, at, linter.RuleExposeInvalidFormat.Format(p))
			}
		}
	}
}

// ignored finds sources that the ignore file excludes.
func (k checker) ignored(word string, paths []string, at []parser.Range) {
	if len(k.ignore) == 0 {
		return
	}
	m, err := patternmatcher.New(k.ignore)
	if err != nil {
		return
	}
	for _, p := range paths {
		if isURL(p) || IsGit(p) {
			continue
		}
		if ignored, err := m.MatchesOrParentMatches(strings.TrimPrefix(sourcePath(p, false), "/")); err == nil && ignored {
			k.lint.Run(&linter.RuleCopyIgnoredFile, at, linter.RuleCopyIgnoredFile.Format(word, p))
		}
	}
}
