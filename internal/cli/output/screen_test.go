package output

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"
)

// screen is a terminal of a few lines that knows what progress uses: new line, carriage return, cursor up and
// down, erase line, colours (counted). It wraps long lines and scrolls, as real ones do.
type screen struct {
	t             *testing.T
	width, height int
	lines         [][]rune
	x, y          int
	colors        int
	gone          []string // scrolled away at the top
}

func newScreen(t *testing.T, width, height int) *screen {
	return &screen{t: t, width: width, height: height, lines: make([][]rune, height)}
}

func (s *screen) Write(p []byte) (int, error) {
	text := []rune(string(p))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\n':
			s.newline()
			s.x = 0 // the line discipline adds the carriage return
		case '\r':
			s.x = 0
		case '\x1b':
			n, j := 0, i+2
			for ; text[j] >= '0' && text[j] <= '9'; j++ {
				n = n*10 + int(text[j]-'0')
			}
			s.escape(text[j], n)
			i = j
		default:
			if s.x == s.width {
				s.newline()
				s.x = 0
			}
			line := &s.lines[s.y]
			for len(*line) <= s.x {
				*line = append(*line, ' ')
			}
			(*line)[s.x] = c
			s.x++
		}
	}
	return len(p), nil
}

func (s *screen) newline() {
	if s.y < s.height-1 {
		s.y++
		return
	}
	s.gone = append(s.gone, string(s.lines[0]))
	s.lines = append(s.lines[1:], nil)
}

func (s *screen) escape(command rune, n int) {
	switch command {
	case 'A':
		if n > s.y {
			s.t.Errorf("cursor goes up %d from line %d", n, s.y)
			n = s.y
		}
		s.y -= n
	case 'B':
		s.y = min(s.y+n, s.height-1)
	case 'K':
		s.lines[s.y] = nil
	case 'm':
		s.colors++
	default:
		s.t.Errorf("unknown escape %c", command)
	}
}

func (s *screen) text() string {
	var out []string
	for _, l := range s.lines {
		out = append(out, strings.TrimRight(string(l), " "))
	}
	return strings.TrimRight(strings.Join(out, "\n"), "\n")
}

func TestProgressUpdatesLinesInPlace(t *testing.T) {
	s := newScreen(t, 60, 10)
	stream := `{"status":"Pulling from x","id":"latest"}
{"status":"Downloading","id":"aa","progressDetail":{"current":5,"total":10}}
{"status":"Waiting","id":"bb"}
{"status":"Pull complete","id":"aa","progressDetail":{}}
{"status":"Downloading","id":"bb","progressDetail":{"current":1000,"total":4000}}
{"status":"Digest: sha256:1"}
{"status":"Waiting","id":"aa"}
`
	if err := Progress(strings.NewReader(stream), s, &Terminal{Size: func() (int, int) { return 60, 10 }}, nil); err != nil {
		t.Fatal(err)
	}
	want := "latest: Pulling from x\naa: Pull complete\nbb: Downloading [=======>                    ]      1kB/4kB\nDigest: sha256:1\naa: Waiting"
	if s.text() != want || s.colors != 0 {
		t.Errorf("%d colours\n%s\nwant\n%s", s.colors, s.text(), want)
	}
}

// Whatever comes in which order, what is on the screen at the end is the last of each part that is on it.
func TestProgressOnAnyScreen(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		width, height, parts := 5+rng.IntN(100), 2+rng.IntN(12), 1+rng.IntN(20)
		s := newScreen(t, width, height)
		size := &Terminal{Size: func() (int, int) { return width, height }, Color: seed%2 == 0}
		var stream strings.Builder
		var order []string
		last := map[string]string{}
		p := progress{t: size}
		for range 100 {
			id := fmt.Sprintf("part%02d", rng.IntN(parts))
			m := message(id, []string{"Waiting", "Downloading", "Pull complete"}[rng.IntN(3)], rng.Int64N(5e6), 5e6)
			if last[id] == "" {
				order = append(order, id)
			}
			last[id] = p.line(m, width)
			fmt.Fprintf(&stream, `{"id":%q,"status":%q,"progressDetail":{"current":%d,"total":%d}}`+"\n", id, m.Status, m.Progress.Current, m.Progress.Total)
		}
		if err := Progress(strings.NewReader(stream.String()), s, size, nil); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, id := range order[max(0, len(order)-(height-1)):] {
			want = append(want, strings.TrimRight(last[id], " "))
		}
		if got := s.text(); got != strings.Join(want, "\n") {
			t.Fatalf("seed %d, %d×%d:\n%s\nwant\n%s", seed, width, height, got, strings.Join(want, "\n"))
		}
		if len(s.gone) != max(0, len(order)-(height-1)) {
			t.Errorf("seed %d: %d lines scrolled away for %d parts on %d lines", seed, len(s.gone), len(order), height)
		}
	}
}

func message(id, status string, current, total int64) jsonstream.Message {
	return jsonstream.Message{ID: id, Status: status, Progress: &jsonstream.Progress{Current: current, Total: total}}
}
