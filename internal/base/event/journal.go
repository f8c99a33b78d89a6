package event

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// journalSize is how large, in bytes, the journal's newest file grows before it becomes the older one: some 3,000 events.
const journalSize = 1 << 20

// Journal keeps events in two files, PATH and the older PATH.1, so that they can be asked for
// after a restart. A line is one event in JSON; its first key is the time in nanoseconds. What a kill or a full disk left
// of a line is skipped. Lines are written, not synced: a power cut may lose the last ones.
type Journal struct {
	path  string
	limit int64
	f     *os.File
	size  int64
	buf   bytes.Buffer
}

// line is one line of a journal; Time is first so that it can be read without the rest.
type line struct {
	Time       int64             `json:"time"`
	Type       string            `json:"type"`
	Action     string            `json:"action"`
	ID         string            `json:"id,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// OpenJournal opens or makes the journal at path.
func OpenJournal(path string) (*Journal, error) {
	j := &Journal{path: path, limit: journalSize}
	return j, j.open()
}

func (j *Journal) open() error {
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the journal of events: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	j.f, j.size = f, st.Size()
	return j.mend()
}

// mend ends a line that was cut, so that the next one stands alone.
func (j *Journal) mend() error {
	if j.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := j.f.ReadAt(last, j.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	n, err := j.f.WriteString("\n")
	j.size += int64(n)
	return err
}

// write appends an event.
func (j *Journal) write(e Event) error {
	if j.size >= j.limit {
		if err := j.turn(); err != nil {
			return err
		}
	}
	j.buf.Reset()
	enc := json.NewEncoder(&j.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(line{e.Time.UnixNano(), e.Type, e.Action, e.ID, e.Attributes}); err != nil {
		return err
	}
	n, err := j.f.Write(j.buf.Bytes())
	j.size += int64(n)
	if err != nil && n > 0 {
		return errors.Join(err, j.mend())
	}
	return err
}

// turn makes the newest file the older one and starts a new one.
func (j *Journal) turn() error {
	if err := os.Rename(j.path, j.path+".1"); err != nil {
		return err
	}
	old := j.f
	if err := j.open(); err != nil {
		return errors.Join(err, os.Rename(j.path+".1", j.path))
	}
	return old.Close()
}

// A span is what the journal holds at one moment: files that later turns don't change.
type span []*io.SectionReader

// until returns what has been written so far, and what frees it.
func (j *Journal) until() (span, func(), error) {
	var parts span
	var open []*os.File
	done := func() {
		for _, f := range open {
			f.Close()
		}
	}
	for _, path := range []string{j.path + ".1", j.path} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			done()
			return nil, nil, err
		}
		open = append(open, f)
		st, err := f.Stat()
		if err != nil {
			done()
			return nil, nil, err
		}
		parts = append(parts, io.NewSectionReader(f, 0, st.Size()))
	}
	return parts, done, nil
}

// since reads the events not before a time.
func (s span) since(t time.Time) ([]Event, error) {
	var out []Event
	from := t.UnixNano()
	for _, part := range s {
		r := bufio.NewReaderSize(part, 64<<10)
		for {
			text, err := r.ReadBytes('\n')
			if err == io.EOF {
				break // a line without an end was cut
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read the journal of events: %w", err)
			}
			if at, ok := timeOf(text); !ok || at < from {
				continue
			}
			var l line
			if json.Unmarshal(text, &l) != nil {
				continue
			}
			out = append(out, Event{Type: l.Type, Action: l.Action, ID: l.ID, Attributes: l.Attributes, Time: time.Unix(0, l.Time)})
		}
	}
	return out, nil
}

// timeOf reads the time at the beginning of a line.
func timeOf(text []byte) (int64, bool) {
	rest, ok := bytes.CutPrefix(text, []byte(`{"time":`))
	if !ok {
		return 0, false
	}
	end := bytes.IndexAny(rest, ",}")
	if end < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	return n, err == nil
}

// Close closes the newest file.
func (j *Journal) Close() error { return j.f.Close() }
