package system

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// eventPrinter shows events in Docker's one-line form, or by a template.
func eventPrinter(env *command.Env, format string) (func(events.Message) error, error) {
	if format == "json" {
		format = "{{json .}}"
	}
	if format != "" {
		tmpl, err := output.Parse(format)
		if err != nil {
			return nil, err
		}
		return func(m events.Message) error {
			if err := tmpl.Execute(env.Stdout, m); err != nil {
				return err
			}
			_, err := fmt.Fprintln(env.Stdout)
			return err
		}, nil
	}
	return func(m events.Message) error {
		var b strings.Builder
		b.WriteString(time.Unix(0, m.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00"))
		fmt.Fprintf(&b, " %s %s %s", m.Type, m.Action, m.Actor.ID)
		if len(m.Actor.Attributes) > 0 {
			var attrs []string
			for k, v := range m.Actor.Attributes {
				attrs = append(attrs, k+"="+v)
			}
			slices.Sort(attrs)
			b.WriteString(" (" + strings.Join(attrs, ", ") + ")")
		}
		_, err := fmt.Fprintln(env.Stdout, b.String())
		return err
	}, nil
}
