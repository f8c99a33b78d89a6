// Package audit records who did what: one JSON object a line, appended to a file.
//
//	{"time":"…","actor":"ann","remote":"10.0.0.7","action":"push","repository":"a/b","tag":"v1","digest":"sha256:…","status":201}
//
// Actions are login, token, pull, push, mount, delete; what was refused is there, too, with its status.
package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// Entry is one line.
type Entry struct {
	Time       time.Time `json:"time"`
	Actor      string    `json:"actor,omitempty"` // nobody's name is left out
	Remote     string    `json:"remote"`          // address, without port
	Action     string    `json:"action"`
	Object     string    `json:"object,omitempty"` // blob, manifest, tag
	Repository string    `json:"repository,omitempty"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	From       string    `json:"from,omitempty"` // of a mount
	Bytes      int64     `json:"bytes,omitempty"`
	Status     int       `json:"status"`
	Agent      string    `json:"agent,omitempty"`
	Reason     string    `json:"reason,omitempty"` // of a refusal, or of a deletion by the registry itself
}

// Log is an open file. A nil Log drops everything.
type Log struct {
	path string

	mu sync.Mutex // guards f
	f  *os.File
}

// Open appends to path; "" gives nil.
func Open(path string) (*Log, error) {
	if path == "" {
		return nil, nil
	}
	l := &Log{path: path}
	return l, l.Reopen()
}

// Reopen lets go of a file that was moved away, and makes a new one.
func (l *Log) Reopen() error {
	if l == nil {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
	}
	l.f = f
	return nil
}

// Write appends an entry with one write call, so that lines never mix.
func (l *Log) Write(e Entry) error {
	if l == nil {
		return nil
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.f.Write(append(line, '\n'))
	return err
}

// Close ends the use of the file.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}
