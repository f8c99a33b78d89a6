package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// maxLine is the longest line in bytes that one entry holds; longer ones become
// several entries, of which only the last ends with a newline (as Docker's do).
const maxLine = 16 << 10

// flushSize is how many bytes of entries are gathered for one write.
const flushSize = 64 << 10

// logFile writes a container's output in the json-file format, one entry per line of the file:
//
//	{"log":"text\n","stream":"stdout","attrs":{…},"time":"2006-01-02T15:04:05.999999999Z"}
//
// Entries are only appended; a file that reached its size is renamed to Path.1
// (Path.1 to Path.2, …) before the next entry, which goes to a new file. So a reader
// that holds a file open and finds another at Path can read its own to the end
// and go on with the one that came after.
//
// A write that fails, on a full disk for example, loses its entries and never
// part of one: the file is cut back. The container is not told and does not wait.
type logFile struct {
	name     string // of the container, for the supervisor's own log
	config   runtime.Log
	closed   bool
	ring     *ring  // in the mode non-blocking; fd, size, lost and toldAt are then the writer's
	rotated  func() // called after a rotation, by whoever writes; nil: nothing is to be done
	attrs    string // `"attrs":{…},` or ""
	fd       int
	size     int64
	part     [2][]byte // the unfinished line of stdout and stderr
	lost     int       // entries since the last that was written
	toldAt   time.Time
	complain func(format string, args ...any)
}

// stream numbers as in Docker's multiplexed format.
const (
	stdout = 1
	stderr = 2
)

// scratch is where entries are gathered; one for all, because there is one thread.
var scratch = make([]byte, 0, flushSize+4*maxLine)

// openLog opens or creates the log, nil for the driver "none".
func openLog(name string, l runtime.Log, complain func(string, ...any)) (*logFile, error) {
	switch l.Driver {
	case "none":
		return nil, nil
	case "json-file", "local":
	default:
		return nil, fault.Invalid("logger: no log driver named '%s' is registered", l.Driver)
	}
	l.MaxFiles = max(l.MaxFiles, 1)
	f := &logFile{name: name, config: l, fd: -1, complain: complain}
	if len(l.Attrs) > 0 {
		data, err := json.Marshal(l.Attrs)
		if err != nil {
			return nil, err
		}
		f.attrs = `"attrs":` + string(data) + `,`
	}
	if err := f.open(); err != nil {
		return nil, fault.Internal("cannot open log %s: %w", l.Path, err)
	}
	return f, nil
}

func (f *logFile) open() error {
	fd, err := unix.Open(f.config.Path, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	f.fd, f.size = fd, st.Size
	// What a crash cut off becomes a line of its own, which readers skip.
	var last [1]byte
	if f.size > 0 {
		if n, err := unix.Pread(fd, last[:], f.size-1); err == nil && n == 1 && last[0] != '\n' {
			if n, err := unix.Write(fd, []byte{'\n'}); err == nil && n == 1 {
				f.size++
			}
		}
	}
	return nil
}

// write logs what the process wrote to stream at now. It cuts lines; the rest
// waits for its newline, for maxLine or for close.
func (f *logFile) write(stream byte, data []byte, now time.Time) {
	if f == nil {
		return
	}
	var stampBuf [40]byte
	stamp := now.UTC().AppendFormat(stampBuf[:0], time.RFC3339Nano)
	part := &f.part[stream-1]
	out := scratch[:0]
	entries := 0
	for len(data) > 0 {
		room := maxLine - len(*part)
		n := bytes.IndexByte(data[:min(len(data), room)], '\n')
		switch {
		case n >= 0:
			n++
		case len(data) >= room:
			n = room
			if k := cutRune(data[:n]); k < n {
				n -= k
			}
		default:
			*part = append(*part, data...)
			data = nil
			continue
		}
		line := data[:n]
		data = data[n:]
		if len(*part) > 0 {
			line = append(*part, line...)
			*part = nil
		}
		if f.ring == nil && f.full(len(out)) {
			f.flush(out, entries)
			out, entries = out[:0], 0
			f.rotate()
		}
		if f.ring != nil {
			f.add(f.entry(out[:0], line, stream, stamp), len(line))
			continue
		}
		out = f.entry(out, line, stream, stamp)
		entries++
		if len(out) >= flushSize {
			f.flush(out, entries)
			out, entries = out[:0], 0
		}
	}
	f.flush(out, entries)
	if cap(out) > cap(scratch) {
		scratch = out[:0]
	}
}

// full tells whether a file with pending bytes yet to be written takes no further entry.
func (f *logFile) full(pending int) bool {
	return f.config.MaxSize > 0 && f.size+int64(pending) >= f.config.MaxSize
}

// cutRune returns how many bytes at the end of b begin a UTF-8 character that b does not end.
func cutRune(b []byte) int {
	for k := 1; k < utf8.UTFMax && k <= len(b); k++ {
		if tail := b[len(b)-k:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return k
		}
	}
	return 0
}

func (f *logFile) entry(out, line []byte, stream byte, stamp []byte) []byte {
	out = append(out, `{"log":"`...)
	out = appendEscaped(out, line)
	if stream == stdout {
		out = append(out, `","stream":"stdout",`...)
	} else {
		out = append(out, `","stream":"stderr",`...)
	}
	out = append(out, f.attrs...)
	out = append(out, `"time":"`...)
	out = append(out, stamp...)
	return append(out, "\"}\n"...)
}

func (f *logFile) flush(out []byte, entries int) {
	if entries == 0 {
		return
	}
	if f.fd < 0 {
		if err := f.open(); err != nil { // a rotation that failed half way
			f.drop(entries, err)
			return
		}
	}
	n, err := unix.Write(f.fd, out)
	for err == unix.EINTR {
		n, err = unix.Write(f.fd, out)
	}
	if err == nil && n < len(out) {
		// The disk took a part. Try the rest for the reason, then take all of it back.
		var m int
		if m, err = unix.Write(f.fd, out[n:]); err == nil {
			n += m
			if n < len(out) {
				err = io.ErrShortWrite
			}
		}
	}
	if err != nil {
		if n > 0 {
			_ = unix.Ftruncate(f.fd, f.size)
		}
		f.drop(entries, err)
		return
	}
	f.size += int64(len(out))
	if f.lost > 0 {
		f.complain("container %s: log %s is written again, %d entries were lost", f.name, f.config.Path, f.lost)
		f.lost = 0
	}
}

func (f *logFile) drop(entries int, err error) {
	if f.lost == 0 || time.Since(f.toldAt) > 10*time.Second {
		f.toldAt = time.Now()
		f.complain("container %s: cannot write log %s: %v; its output is dropped", f.name, f.config.Path, err)
	}
	f.lost += entries
}

// rotate renames the files by one number and starts a new one. If that fails the old file is written on.
func (f *logFile) rotate() {
	fail := func(err error) {
		if time.Since(f.toldAt) > 10*time.Second {
			f.toldAt = time.Now()
			f.complain("container %s: cannot rotate log %s: %v", f.name, f.config.Path, err)
		}
	}
	path := f.config.Path
	if f.config.MaxFiles == 1 {
		// A reader that has the old file open reads it to the end.
		if err := os.Remove(path); err != nil {
			fail(err)
			return
		}
	}
	suffixes := []string{""}
	if f.config.Compress {
		suffixes = []string{"", ".gz"}
		for _, suffix := range suffixes {
			os.Remove(path + "." + strconv.Itoa(f.config.MaxFiles-1) + suffix)
		}
	}
	for i := f.config.MaxFiles - 1; i >= 1; i-- {
		from := path
		if i > 1 {
			from = path + "." + strconv.Itoa(i-1)
		}
		for _, suffix := range suffixes {
			if err := os.Rename(from+suffix, path+"."+strconv.Itoa(i)+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				fail(err)
				return
			}
			if i == 1 {
				break
			}
		}
	}
	unix.Close(f.fd)
	f.fd = -1
	if err := f.open(); err != nil {
		fail(err)
	}
	if f.rotated != nil {
		f.rotated()
	}
}

// close writes unfinished lines, without newline, and closes the file.
func (f *logFile) close(now time.Time) {
	if f == nil || f.closed {
		return
	}
	var stampBuf [40]byte
	stamp := now.UTC().AppendFormat(stampBuf[:0], time.RFC3339Nano)
	for i, part := range f.part {
		if len(part) > 0 && f.ring != nil {
			f.add(f.entry(scratch[:0], part, byte(i+1), stamp), len(part))
			f.part[i] = nil
		} else if len(part) > 0 {
			if f.full(0) {
				f.rotate()
			}
			f.flush(f.entry(scratch[:0], part, byte(i+1), stamp), 1)
			f.part[i] = nil
		}
	}
	f.closed = true
	if f.ring != nil {
		f.ring.finish(f)
		return
	}
	f.shut()
}

// shut closes the file.
func (f *logFile) shut() {
	if f.lost > 0 {
		f.complain("container %s: %d log entries were lost", f.name, f.lost)
	}
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// log opens a container's log as its configuration asks.
func (s *supervisor) log(name string, l runtime.Log) (*logFile, error) {
	f, err := openLog(name, l, complain)
	if f == nil || err != nil {
		return nil, err
	}
	if l.NonBlocking {
		f.ring = &ring{w: &s.writer, max: int(l.MaxBuffer)}
		if f.ring.max <= 0 {
			f.ring.max = 1 << 20
		}
	}
	if l.Compress && l.MaxFiles > 1 {
		f.rotated = func() { s.loop.post(func() { runner{s}.compressRotated(l.Path, l.MaxFiles) }) }
	}
	return f, nil
}

// state describes the log for a successor.
func (f *logFile) state() *logState { return &logState{Config: f.config, Part: f.part} }

// take goes on with the lines that a predecessor had not finished.
func (f *logFile) take(st *logState) { f.part = st.Part }

const hexDigits = "0123456789abcdef"

// appendEscaped appends s as the inside of a JSON string, escaping what Docker
// escapes: controls, quotes, <, >, & and the two line separators; what is no UTF-8 becomes U+FFFD.
func appendEscaped(out, s []byte) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			out = append(out, s[start:i]...)
			switch c {
			case '"', '\\':
				out = append(out, '\\', c)
			case '\n':
				out = append(out, '\\', 'n')
			case '\r':
				out = append(out, '\\', 'r')
			default:
				out = append(out, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, s[start:i]...)
			out = append(out, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			out = append(out, s[start:i]...)
			out = append(out, `\u202`...)
			out = append(out, hexDigits[r&15])
		default:
			i += n
			continue
		}
		i += n
		start = i
	}
	return append(out, s[start:]...)
}

// plain tells which ASCII bytes stand for themselves.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := byte(0x20); c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()
