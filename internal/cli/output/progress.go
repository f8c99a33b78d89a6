package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
	"golang.org/x/term"
)

// Terminal is where lines can be updated in place.
type Terminal struct {
	// Size is asked before every line, so that a resized window is noticed.
	Size  func() (width, height int)
	Color bool
}

// TerminalOf returns f's terminal; nil if f is none, or one that can't move its cursor.
// NO_COLOR takes the colours away.
func TerminalOf(f *os.File) *Terminal {
	if !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &Terminal{
		Color: os.Getenv("NO_COLOR") == "",
		Size: func() (int, int) {
			w, h, err := term.GetSize(int(f.Fd()))
			if err != nil || w <= 0 || h <= 0 {
				return 80, 24
			}
			return w, h
		},
	}
}

// Progress shows the engine's stream of messages until it ends: on a terminal
// one line for each part, updated in place; elsewhere (t is nil) a line whenever a part's
// status changes. aux, if not nil, gets the results among the messages.
// The error is the one that the stream carried, or the connection's.
func Progress(r io.Reader, w io.Writer, t *Terminal, aux func(id string, data json.RawMessage)) error {
	dec := json.NewDecoder(r)
	p := progress{w: w, t: t, rows: map[string]int{}}
	for {
		var m jsonstream.Message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the engine's answer broke off: %w", err)
		}
		var err error
		switch {
		case m.Error != nil:
			return m.Error
		case m.Aux != nil:
			if aux != nil {
				aux(m.ID, *m.Aux)
			}
		case m.Stream != "":
			p.end()
			err = p.print(p.stream(m.Stream))
			p.open = !strings.HasSuffix(m.Stream, "\n")
		case m.ID == "":
			p.end()
			err = p.print(m.Status + "\n")
		case t == nil:
			if m.Progress == nil || m.Progress.Current <= 0 && m.Progress.Total <= 0 { // without the numbers
				err = p.print(m.ID + ": " + m.Status + "\n")
			}
		default:
			err = p.update(m)
		}
		if err != nil {
			return err
		}
	}
}

type progress struct {
	w    io.Writer
	t    *Terminal
	rows map[string]int // part → line, from the top of the block; the cursor is below the block
	open bool           // the last line has no end yet
}

func (p *progress) print(s string) error {
	_, err := io.WriteString(p.w, s)
	return err
}

// end closes the block of lines that are updated in place.
func (p *progress) end() { clear(p.rows) }

// update writes the line of one part, again or for the first time. A line that has
// left the screen at its top can't be written again and stays as it was.
func (p *progress) update(m jsonstream.Message) error {
	width, height := p.t.Size()
	line := p.color(p.line(m, width), m)
	row, known := p.rows[m.ID]
	if !known {
		p.rows[m.ID] = len(p.rows)
		if p.open {
			p.open = false
			line = "\n" + line
		}
		return p.print(line + "\n")
	}
	up := len(p.rows) - row
	if up >= height {
		return nil
	}
	return p.print(fmt.Sprintf("\x1b[%dA\r\x1b[2K%s\x1b[%dB\r", up, line, up))
}

// line fits into the width, less one column: terminals differ in what they do after the last.
func (p *progress) line(m jsonstream.Message, width int) string {
	text := m.ID + ": " + m.Status
	if m.Progress != nil && (m.Progress.Current > 0 || m.Progress.Total > 0) {
		counts := counts(m.Progress)
		room := width - 1 - len(text) - len(counts) - 4 // blank, brackets, blank
		if b := bar(m.Progress, min(room, barWidth)); b != "" {
			text += " " + b
		}
		if counts != "" {
			text += " " + counts
		}
	}
	r := []rune(text)
	return string(r[:min(len(r), max(width-1, 1))])
}

const (
	bold, green, plain = "\x1b[1m", "\x1b[32m", "\x1b[0m"
)

// color makes what is done green.
func (p *progress) color(line string, m jsonstream.Message) string {
	if !p.t.Color {
		return line
	}
	switch m.Status {
	case "Pull complete", "Already exists", "Pushed", "Layer already exists", "Loaded":
		return green + line + plain
	}
	return line
}

// stream makes the steps of a build bold.
func (p *progress) stream(s string) string {
	if p.t == nil || !p.t.Color || !strings.HasPrefix(s, "Step ") {
		return s
	}
	return bold + strings.TrimSuffix(s, "\n") + plain + s[len(strings.TrimSuffix(s, "\n")):]
}

// barWidth is the most characters between the brackets.
const barWidth = 50

// bar is "[=====>    ]" with room characters inside; "" if there is no total, or no room for anything to be seen.
func bar(p *jsonstream.Progress, room int) string {
	if p.Total <= 0 || p.Current > p.Total || room < 10 {
		return ""
	}
	done := int(p.Current * int64(room) / p.Total)
	b := "[" + strings.Repeat("=", done)
	if done < room {
		b += ">" + strings.Repeat(" ", room-done-1)
	}
	return b + "]"
}

func counts(p *jsonstream.Progress) string {
	switch {
	case p.HideCounts:
		return ""
	case p.Total <= 0 || p.Current > p.Total:
		return fmt.Sprintf("%8v", units.HumanSize(float64(p.Current)))
	}
	return fmt.Sprintf("%8v/%v", units.HumanSize(float64(p.Current)), units.HumanSize(float64(p.Total)))
}
