package engineapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"

	"tare/internal/base/progress"
)

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err := w.Write(buf.Bytes())
	return err
}

// noContent answers 204.
func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// orEmpty turns a nil slice into one that encodes as [].
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// flushed sends every write to the client at once.
type flushed struct {
	w  io.Writer
	rc *http.ResponseController
}

func flushing(w http.ResponseWriter) *flushed {
	return &flushed{w: w, rc: http.NewResponseController(w)}
}

func (f *flushed) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		// A writer that can't flush (a test's) only delays.
		if ferr := f.rc.Flush(); ferr != nil && !errors.Is(ferr, http.ErrNotSupported) {
			err = ferr
		}
	}
	return n, err
}

// start sends the headers now.
func start(w http.ResponseWriter, contentType string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
}

// message is a line of a progress stream. Error repeats errorDetail's text for old clients.
type message struct {
	Stream   string               `json:"stream,omitempty"`
	Status   string               `json:"status,omitempty"`
	Progress *jsonstream.Progress `json:"progressDetail,omitempty"`
	ID       string               `json:"id,omitempty"`
	Detail   *jsonstream.Error    `json:"errorDetail,omitempty"`
	Error    string               `json:"error,omitempty"`
	Aux      any                  `json:"aux,omitempty"`
}

// lines is a progress stream: JSON objects, one a line, each flushed. The answer begins with the first
// of them, so an error before it still gets a status of its own. Safe for concurrent use.
type lines struct {
	mu   sync.Mutex // guards all below
	w    http.ResponseWriter
	out  *flushed
	dead error
}

func newLines(w http.ResponseWriter) *lines { return &lines{w: w, out: flushing(w)} }

func (l *lines) send(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead != nil {
		return
	}
	if !begun(l.w) {
		l.w.Header().Set("Content-Type", "application/json")
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		l.dead = err
		return
	}
	// Docker ends its lines with \r\n.
	_, l.dead = l.out.Write(append(bytes.TrimRight(buf.Bytes(), "\n"), '\r', '\n'))
}

// sink is the stream as a progress.Sink.
func (l *lines) sink(u progress.Update) {
	if u.Action == "" && u.Aux != nil {
		l.send(message{ID: u.ID, Aux: u.Aux, Progress: nil})
		return
	}
	m := message{ID: u.ID, Status: u.Action, Aux: u.Aux}
	if u.ID != "" {
		m.Progress = &jsonstream.Progress{Current: u.Current, Total: u.Total}
	}
	l.send(m)
}

// Stream sends output of a build step.
func (l *lines) Stream(text string) { l.send(message{Stream: text}) }

// Status sends the state of one part, such as a layer of a base image.
func (l *lines) Status(id, action string, current, total int64) {
	l.sink(progress.Update{ID: id, Action: action, Current: current, Total: total})
}

// close ends the stream: err is returned if nothing was sent yet, else sent as errorDetail.
func (l *lines) close(err error) error {
	if err == nil {
		if !begun(l.w) {
			start(l.w, "application/json")
		}
		return nil
	}
	if !begun(l.w) {
		return err
	}
	m := message{Detail: &jsonstream.Error{Message: err.Error()}, Error: err.Error()}
	var code interface{ ExitCode() int }
	if errors.As(err, &code) {
		m.Detail.Code = code.ExitCode()
	}
	l.send(m)
	return nil
}

// writeLine sends v as one line of a begun stream.
func writeLine(w http.ResponseWriter, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := flushing(w).Write(buf.Bytes())
	return err
}
