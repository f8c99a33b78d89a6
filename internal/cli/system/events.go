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

// shown is an event as templates and JSON have it: with the old names of what happened to whom.
type shown struct {
	Status   string `json:"status,omitempty"`
	ID       string `json:"id,omitempty"`
	From     string `json:"from,omitempty"`
	Type     events.Type
	Action   events.Action
	Actor    events.Actor
	Scope    string `json:"scope,omitempty"`
	Time     int64  `json:"time,omitempty"`
	TimeNano int64  `json:"timeNano,omitempty"`
}

func newShown(m events.Message) *shown {
	s := &shown{Type: m.Type, Action: m.Action, Actor: m.Actor, Scope: m.Scope, Time: m.Time, TimeNano: m.TimeNano}
	switch m.Type {
	case events.ContainerEventType:
		s.From = m.Actor.Attributes["image"]
		fallthrough
	case events.ImageEventType:
		s.Status, s.ID = string(m.Action), m.Actor.ID
	}
	return s
}

// eventPrinter shows events in Docker's one-line form, or by a template.
func eventPrinter(env *command.Env, format string) (func(events.Message) error, error) {
	switch format {
	case "table":
		return eventTable(env.Stdout), nil
	case "json":
		format = "{{json .}}"
	}
	if format != "" {
		tmpl, err := output.Parse(format)
		if err != nil {
			return nil, &command.ExitError{Code: 64, Message: strings.Replace(err.Error(), "template parsing error", "Error parsing format", 1)}
		}
		return func(m events.Message) error {
			if err := tmpl.Execute(env.Stdout, newShown(m)); err != nil {
				return &command.ExitError{Code: 64, Message: "Error parsing format: " + err.Error()}
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
