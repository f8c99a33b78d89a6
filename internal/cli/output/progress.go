package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// Progress shows the engine's stream of messages until it ends: on a terminal
// one line for each part, updated in place; elsewhere a line whenever a part's
// status changes. aux, if not nil, gets the results among the messages.
// The error is the one that the stream carried, or the connection's.
func Progress(r io.Reader, w io.Writer, tty bool, aux func(id string, data json.RawMessage)) error {
	dec := json.NewDecoder(r)
	p := progress{w: w, tty: tty, rows: map[string]int{}}
	for {
		var m jsonstream.Message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the engine's answer broke off: %w", err)
		}
		switch {
		case m.Error != nil:
			return m.Error
		case m.Aux != nil:
			if aux != nil {
				aux(m.ID, *m.Aux)
			}
		case m.Stream != "":
			p.end()
			if _, err := io.WriteString(w, m.Stream); err != nil {
				return err
			}
		default:
			p.show(m)
		}
	}
}

type progress struct {
	w    io.Writer
	tty  bool
	rows map[string]int // part → line, from the top of the block
}

// end closes the block of lines that are updated in place.
func (p *progress) end() { clear(p.rows) }

func (p *progress) show(m jsonstream.Message) {
	text := m.Status
	if m.ID == "" {
		p.end()
		fmt.Fprintln(p.w, text)
		return
	}
	if !p.tty {
		if bar(m.Progress) == "" { // without the numbers
			fmt.Fprintf(p.w, "%s: %s\n", m.ID, text)
		}
		return
	}
	if b := bar(m.Progress); b != "" {
		text += " " + b
	}
	row, known := p.rows[m.ID]
	if !known {
		row = len(p.rows)
		p.rows[m.ID] = row
		fmt.Fprintf(p.w, "%s: %s\n", m.ID, text)
		return
	}
	up := len(p.rows) - row
	fmt.Fprintf(p.w, "\x1b[%dA\x1b[2K\r%s: %s\x1b[%dB\r", up, m.ID, text, up)
}

// barWidth is the number of characters between the brackets.
const barWidth = 50

func bar(p *jsonstream.Progress) string {
	switch {
	case p == nil || p.Current <= 0 && p.Total <= 0:
		return ""
	case p.Total <= 0 || p.Current > p.Total:
		return fmt.Sprintf("%8v", units.HumanSize(float64(p.Current)))
	}
	done := int(p.Current * barWidth / p.Total)
	b := "[" + strings.Repeat("=", done)
	if done < barWidth {
		b += ">" + strings.Repeat(" ", barWidth-done-1)
	}
	b += "]"
	if p.HideCounts {
		return b
	}
	return fmt.Sprintf("%s %8v/%v", b, units.HumanSize(float64(p.Current)), units.HumanSize(float64(p.Total)))
}
