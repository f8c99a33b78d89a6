package graph

import (
	"encoding/json"
	"fmt"
	"strings"
)

// String is the graph as golden files show it.
func (g *Graph) String() string {
	var b strings.Builder
	for i, s := range g.Steps {
		op := text(s.Op)
		fmt.Fprintf(&b, "step %d %s", i, s.Op.kind())
		if s.Parent != None {
			fmt.Fprintf(&b, " on %d", s.Parent)
		}
		if len(s.Inputs) > 0 {
			fmt.Fprintf(&b, " from %v", s.Inputs)
		}
		fmt.Fprintf(&b, " %s", op)
	}
	for i, s := range g.Stages {
		mark := ""
		if i == g.Target {
			mark = " (target)"
		}
		fmt.Fprintf(&b, "stage %d %q ends with step %d%s\n", s.Index, s.Name, s.Last, mark)
		for _, l := range s.Lines {
			fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(l.Text, "\n", "\n  : "))
			if l.CreatedBy != "" {
				fmt.Fprintf(&b, "    = %s\n", strings.ReplaceAll(l.CreatedBy, "\n", "\n    : "))
			}
		}
		cfg := text(s.Config.Config)
		fmt.Fprintf(&b, "  config %s", cfg)
	}
	for _, a := range g.UnusedArgs {
		fmt.Fprintf(&b, "unused arg %s\n", a)
	}
	return b.String()
}

func text(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error() + "\n"
	}
	return b.String()
}
