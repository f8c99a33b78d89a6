package graph

import (
	"bytes"
	"errors"
	"fmt"
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
	warnings []string
}

// Parse reads a Dockerfile. Errors are Invalid, in Docker's words, and show the line.
func Parse(name string, text []byte) (*File, error) {
	f := &File{name: name, lines: strings.Split(string(text), "\n")}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, fault.Invalid("the Dockerfile (%s) cannot be empty", name)
	}
	result, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, f.fail(err, nil)
	}
	f.escape = result.EscapeToken
	for _, w := range result.Warnings {
		f.warnings = append(f.warnings, w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(_, _, _, msg string, at []parser.Range) {
		if len(at) > 0 {
			msg += fmt.Sprintf(" (line %d)", at[0].Start.Line)
		}
		f.warnings = append(f.warnings, msg)
	}})
	f.stages, f.args, err = instructions.Parse(result.AST, lint)
	if err != nil {
		return nil, f.fail(err, nil)
	}
	if len(f.stages) == 0 {
		return nil, fault.Invalid("the Dockerfile (%s) contains no stages to build", name)
	}
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
	var text strings.Builder
	for n := first; n <= max(first, last) && n >= 1 && n <= len(f.lines); n++ {
		fmt.Fprintf(&text, "\n%4d | >>> %s", n, strings.TrimRight(f.lines[n-1], "\r"))
	}
	return fault.Invalid("%w\n%s:%d%s", err, f.name, first, text.String())
}
