package system

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"

	"tare/internal/cli/output"
)

// eventRow is a line of the table. Events come one by one, so that the columns have fixed widths.
const eventRow = "%-19s  %-9s  %-16s  %-24s  %s\n"

// eventTable prints events for people: what happened to what, with the attributes that say more than its labels.
func eventTable(w io.Writer) func(events.Message) error {
	headed := false
	return func(m events.Message) error {
		if !headed {
			headed = true
			if _, err := fmt.Fprintf(w, eventRow, "TIME", "TYPE", "ACTION", "NAME", "DETAILS"); err != nil {
				return err
			}
		}
		name := m.Actor.Attributes["name"]
		if name == "" {
			name = output.ID(m.Actor.ID, false)
		}
		action, detail, _ := strings.Cut(string(m.Action), ": ")
		_, err := fmt.Fprintf(w, eventRow, time.Unix(0, m.TimeNano).Format(time.DateTime), m.Type, action, output.Ellipsis(name, 24), details(detail, m.Actor.Attributes))
		return err
	}
}

// told are the attributes that the table shows.
var told = []string{"image", "exitCode", "signal", "execDuration", "container", "driver", "destination", "oldName", "reclaimed"}

func details(first string, attributes map[string]string) string {
	var out []string
	if first != "" {
		out = append(out, first)
	}
	for _, k := range slices.Sorted(maps.Keys(attributes)) {
		if !slices.Contains(told, k) {
			continue
		}
		v := attributes[k]
		if k == "container" {
			v = output.ID(v, false)
		}
		out = append(out, k+"="+v)
	}
	return strings.Join(out, " ")
}
