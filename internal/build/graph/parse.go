package graph

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"tare/internal/base/fault"
)

// File is a parsed Dockerfile.
type File struct {
	name     string
	lines    []string
	stages   []instructions.Stage
	args     []instructions.ArgCommand // before the first FROM
	escape   rune
	lint     *linter.Linter
	warnings []Warning
}

// frontends are the names of BuildKit's own Dockerfile frontend; all it has ever known is understood here.
var frontends = regexp.MustCompile(`^(docker\.io/)?docker/dockerfile(-upstream)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$`)

// Parse reads a Dockerfile. Errors are Invalid, in Docker's words, and show the line. args are the request's build arguments, of
// which some are for the parser.
func Parse(name string, text []byte, args map[string]*string) (*File, error) {
	f := &File{name: name, lines: strings.Split(string(text), "\n")}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, fault.Invalid("the Dockerfile (%s) cannot be empty", name)
	}
	option := ""
	if v := args["BUILDKIT_DOCKERFILE_CHECK"]; v != nil {
		option = *v
	}
	if err := f.newLinter(text, option); err != nil {
		return nil, err
	}
	frontend, _, at, ok := parser.DetectSyntax(text)
	if v := args["BUILDKIT_SYNTAX"]; v != nil {
		frontend, at, ok = *v, nil, true
	}
	if ok && !frontends.MatchString(frontend) {
		return nil, f.fail(fault.Unsupported("frontend %s is not supported: only docker/dockerfile, which is built in", frontend), at)
	}
	result, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, f.fail(err, nil)
	}
	f.escape = result.EscapeToken
	for _, w := range result.Warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL {
			f.lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
			continue
		}
		f.warnings = append(f.warnings, Warning{Text: w.Short})
	}
	f.stages, f.args, err = instructions.Parse(result.AST, f.lint)
	if err != nil {
		return nil, f.fail(err, nil)
	}
	if len(f.stages) == 0 {
		return nil, fault.Invalid("the Dockerfile (%s) contains no stages to build", name)
	}
	f.checkStages()
	return f, nil
}

// fail makes err Invalid and appends file, line number and the line's text. at is used where err does not know its place.
func (f *File) fail(err error, at []parser.Range) error {
	var located *parser.LocationError
	if errors.As(err, &located) && len(located.Locations) > 0 && len(located.Locations[0]) > 0 {
		at = located.Locations[0]
	}
	if len(at) == 0 {
		return fault.Invalid("%s: %w", f.name, err)
	}
	first, last := at[0].Start.Line, at[len(at)-1].End.Line
	return fault.Invalid("%w\n%s:%d\n%s", err, f.name, first, strings.TrimSuffix(Excerpt(f.lines, first, max(first, last)), "\n"))
}

// around is how many lines are shown before and after those that an error is about.
const around = 2

// Excerpt shows some of the lines, marked, with those around them.
func Excerpt(lines []string, first, last int) string {
	var b strings.Builder
	end := len(lines)
	if end > 0 && lines[end-1] == "" {
		end--
	}
	for n := max(1, first-around); n <= min(last+around, end); n++ {
		mark := "   "
		if n >= first && n <= last {
			mark = ">>>"
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%4d | %s %s", n, mark, strings.TrimRight(lines[n-1], "\r")), " ") + "\n")
	}
	return b.String()
}
