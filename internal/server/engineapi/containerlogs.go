package engineapi

import (
	"context"
	"encoding/binary"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/engine/logs"
)

// logTime is RFC 3339 with all nine digits, so that lines stay aligned.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

// logs streams what a container wrote, as raw bytes if it has a terminal, else as frames.
func (d fileDoor) logs(w http.ResponseWriter, r *http.Request) error {
	o, err := logOptions(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	f, err := d.s.Open(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	defer release(f)
	if f.LogPath == "" {
		return fault.Unsupported("configured logging driver does not support reading")
	}
	o.Running = f.Running
	start(w, streamType(f.Terminal))
	out := logWriter{
		w: flushing(w), framed: !f.Terminal,
		times: boolean(r, "timestamps"), details: boolean(r, "details"),
	}
	err = logs.Read(ctx, f.LogPath, o, out.entry)
	if err != nil && ctx.Err() == nil {
		// The headers are gone; what went wrong is told on stderr.
		out.frame(2, []byte("Error grabbing logs: "+err.Error()+"\n"))
	}
	return nil
}

func logOptions(r *http.Request) (logs.Options, error) {
	var o logs.Options
	if err := parseForm(r); err != nil {
		return o, err
	}
	o.Stdout, o.Stderr, o.Follow = boolean(r, "stdout"), boolean(r, "stderr"), boolean(r, "follow")
	if !o.Stdout && !o.Stderr {
		return o, fault.Invalid("Bad parameters: you must choose at least one stream")
	}
	var err error
	if o.Since, err = timeParam(r, "since"); err != nil {
		return o, err
	}
	if o.Until, err = timeParam(r, "until"); err != nil {
		return o, err
	}
	o.Tail = -1
	if n, err := strconv.Atoi(r.FormValue("tail")); err == nil {
		o.Tail = n // "all", and what is no number, is everything
	}
	return o, nil
}

// release ends the use of a container's files.
func release(f *enginecontainer.Files) {
	if f.Release != nil {
		f.Release()
	}
}

// logWriter puts entries into Docker's form.
type logWriter struct {
	w                      io.Writer
	framed, times, details bool
	buf                    []byte
}

func (l *logWriter) entry(e logs.Entry) error {
	line := e.Line
	if l.times || l.details {
		l.buf = l.buf[:0]
		if l.times {
			l.buf = append(e.Time.UTC().AppendFormat(l.buf, logTime), ' ')
		}
		if l.details {
			l.buf = append(append(l.buf, details(e.Attrs)...), ' ')
		}
		l.buf = append(l.buf, e.Line...)
		line = l.buf
	}
	stream := byte(1)
	if e.Stream == "stderr" {
		stream = 2
	}
	return l.frame(stream, line)
}

// frame writes one frame: stream, three zeros, length, data; or the plain data.
func (l *logWriter) frame(stream byte, data []byte) error {
	if l.framed {
		head := make([]byte, 8, 8+len(data))
		head[0] = stream
		binary.BigEndian.PutUint32(head[4:], uint32(len(data)))
		data = append(head, data...)
	}
	_, err := l.w.Write(data)
	return err
}

// details lists a line's attributes as k=v,k=v in order of the keys.
func details(attrs map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		parts = append(parts, k+"="+attrs[k])
	}
	return strings.Join(parts, ",")
}

// containerFiles gives access to what a container has on disk.
type containerFiles interface {
	Open(ctx context.Context, ref string) (*enginecontainer.Files, error)
}

type fileDoor struct{ s containerFiles }
