// Package progress is how long work reports its advance: a stream of updates,
// each about one named part (a layer, a step). Doors turn it into Docker's JSON
// stream, the command line into lines or bars.
package progress

// Update is the newest state of one part.
type Update struct {
	ID      string // the part, "" for the whole work; a layer's is the first 12 digits of its digest
	Action  string // Docker's words: "Pulling fs layer", "Downloading", "Pull complete", "Pushed", …
	Current int64  // bytes done, 0 if unknown
	Total   int64  // bytes in all, 0 if unknown
	Aux     any    // a result to hand to the client as JSON, nil for none
}

// Sink takes updates; it is safe for concurrent use and must not block for long.
type Sink func(Update)

// Report calls the sink if there is one.
func (s Sink) Report(u Update) {
	if s != nil {
		s(u)
	}
}

// Status reports a line without numbers.
func (s Sink) Status(id, action string) { s.Report(Update{ID: id, Action: action}) }
