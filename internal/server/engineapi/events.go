package engineapi

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// eventKeys are the filters that GET /events knows.
var eventKeys = []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"}

type eventDoor struct {
	bus       *event.Bus
	listeners *atomic.Int64 // streams that are open
}

// stream sends past events since a time, then new ones until a time or for ever.
func (d eventDoor) stream(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	since, err := timeParam(r, "since")
	if err != nil {
		return err
	}
	until, err := timeParam(r, "until")
	if err != nil {
		return err
	}
	if !since.IsZero() && !until.IsZero() && until.Before(since) {
		return fault.Invalid("`since` time (%s) cannot be after `until` time (%s)", r.FormValue("since"), r.FormValue("until"))
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	if err := f.Only(eventKeys...); err != nil {
		return err
	}
	past, sub, err := d.replay(since)
	if err != nil {
		return err
	}
	defer sub.Close()
	d.listeners.Add(1)
	defer d.listeners.Add(-1)
	var end <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		end = timer.C
	}
	mediaType := eventMediaType(r.Header.Values("Accept"))
	start(w, mediaType)
	out := eventWriter{w: flushing(w), until: until, filters: f, sequence: mediaType == types.MediaTypeJSONSequence}
	for _, e := range past {
		if err := out.send(e); err != nil {
			return err
		}
	}
	for {
		select {
		case e, ok := <-sub.C:
			if !ok {
				return fault.Unavailable("the client fell too far behind the events")
			}
			if err := out.send(e); err != nil {
				return err
			}
		case <-end:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// replay is the past since a time, none without one, and the subscription for what follows.
func (d eventDoor) replay(since time.Time) ([]event.Event, *event.Subscription, error) {
	if since.IsZero() {
		return nil, d.bus.Subscribe(), nil
	}
	return d.bus.Replay(since)
}

// eventMediaType picks the form of the stream that the client likes best.
func eventMediaType(accept []string) string {
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			mt, _, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			switch mt {
			case types.MediaTypeJSONSequence, types.MediaTypeJSONLines, types.MediaTypeNDJSON, types.MediaTypeJSON:
				return mt
			}
		}
	}
	return types.MediaTypeJSON
}

// message121 is an event that also bears its names of API 1.21. Docker leaves them out from 1.52 on, but clients that take
// the newest version there is, like docker-compose 1.29, read them.
type message121 struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

type eventWriter struct {
	w        *flushed
	until    time.Time
	filters  filter.Args
	sequence bool // RFC 7464: a record separator before each text
}

func (o eventWriter) send(e event.Event) error {
	if !o.until.IsZero() && e.Time.After(o.until) || !eventMatches(o.filters, e) {
		return nil
	}
	attrs := e.Attributes
	if attrs == nil {
		attrs = map[string]string{}
	}
	var buf bytes.Buffer
	if o.sequence {
		buf.WriteByte(0x1e)
	}
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	m := message121{Message: events.Message{
		Type: events.Type(e.Type), Action: events.Action(e.Action), Scope: "local",
		Actor: events.Actor{ID: e.ID, Attributes: attrs},
		Time:  e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}}
	if e.Type == "container" || e.Type == "image" {
		m.Status, m.ID = e.Action, e.ID
		if e.Type == "container" {
			m.From = attrs["image"]
		}
	}
	err := enc.Encode(m)
	if err != nil {
		return err
	}
	_, err = o.w.Write(buf.Bytes())
	return err
}

// eventMatches applies Docker's filters: an object's key (container, network, …) accepts ids, beginnings
// of ids and names of objects of that type.
func eventMatches(f filter.Args, e event.Event) bool {
	exact := func(have string) func(string) bool { return func(want string) bool { return want == have } }
	if !f.Match("event", func(want string) bool {
		// "exec_create: sh" and "health_status: healthy" are found by their first word too.
		kind, _, _ := strings.Cut(e.Action, ":")
		return want == e.Action || want == kind
	}) || !f.Match("type", exact(e.Type)) || !f.Match("scope", exact("local")) {
		return false
	}
	for _, kind := range []string{"container", "network", "volume", "plugin", "daemon", "node", "service", "secret", "config"} {
		if f.Has(kind) && !(e.Type == kind && f.Match(kind, func(want string) bool {
			name := e.Attributes["name"]
			return strings.HasPrefix(e.ID, want) || name == want || name == strings.TrimPrefix(want, "/")
		})) {
			return false
		}
	}
	return f.Match("image", func(want string) bool { return eventImage(e, want) }) &&
		f.Labels(e.Attributes)
}

// eventImage tells whether an image's event, or a container's, is about the image that want names, with or without a tag.
func eventImage(e event.Event, want string) bool {
	names := []string{e.Attributes["image"]}
	if e.Type == "image" {
		names = []string{e.ID, e.Attributes["name"]}
	} else if e.Type != "container" {
		return false
	}
	return slices.ContainsFunc(names, func(have string) bool {
		if have == "" {
			return false
		}
		if have == want {
			return true
		}
		ref, err := reference.ParseNormalizedNamed(have)
		return err == nil && reference.FamiliarName(ref) == want
	})
}
