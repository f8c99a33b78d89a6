package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// writer appends and rotates as the supervisor does.
type writer struct {
	t        testing.TB
	path     string
	maxSize  int64
	maxFiles int
	f        *os.File
	size     int64
}

func newWriter(t testing.TB, maxSize int64, maxFiles int) *writer {
	w := &writer{t: t, path: filepath.Join(t.TempDir(), "c-json.log"), maxSize: maxSize, maxFiles: maxFiles}
	w.open()
	t.Cleanup(func() { w.f.Close() })
	return w
}

func (w *writer) open() {
	var err error
	if w.f, err = os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		w.t.Error(err)
	}
	w.size = 0
}

func (w *writer) raw(s string) {
	if w.maxSize > 0 && w.size >= w.maxSize {
		w.f.Close()
		for i := w.maxFiles - 1; i > 1; i-- {
			os.Rename(fmt.Sprintf("%s.%d", w.path, i-1), fmt.Sprintf("%s.%d", w.path, i))
		}
		if w.maxFiles > 1 {
			os.Rename(w.path, w.path+".1")
		} else {
			os.Remove(w.path)
		}
		w.open()
	}
	n, err := w.f.WriteString(s)
	if err != nil {
		w.t.Error(err)
	}
	w.size += int64(n)
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(i int) time.Time { return epoch.Add(time.Duration(i) * time.Second) }

func line(i int) string {
	stream := "stdout"
	if i%3 == 0 {
		stream = "stderr"
	}
	return fmt.Sprintf(`{"log":"line %d\n","stream":"%s","time":"%s"}`+"\n", i, stream, at(i).Format(time.RFC3339Nano))
}

func (w *writer) lines(from, to int) {
	for i := from; i < to; i++ {
		w.raw(line(i))
	}
}

func numbers(t *testing.T, path string, o Options) (got []int) {
	t.Helper()
	err := Read(context.Background(), path, o, func(e Entry) error {
		var n int
		if _, err := fmt.Sscanf(string(e.Line), "line %d\n", &n); err != nil {
			t.Errorf("entry %q: %v", e.Line, err)
		}
		if !e.Time.Equal(at(n)) {
			t.Errorf("entry %d has time %v", n, e.Time)
		}
		got = append(got, n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func span(from, to int) (s []int) {
	for i := from; i < to; i++ {
		s = append(s, i)
	}
	return s
}

func TestSelection(t *testing.T) {
	w := newWriter(t, 1000, 5) // 12 to 13 entries in a file
	w.lines(0, 60)
	both := Options{Stdout: true, Stderr: true, Tail: -1}
	all := numbers(t, w.path, both)
	first := all[0]
	if len(all) < 49 || fmt.Sprint(all) != fmt.Sprint(span(first, 60)) {
		t.Fatalf("all: %v", all)
	}
	with := func(f func(*Options)) Options { o := both; f(&o); return o }
	for name, c := range map[string]struct {
		o    Options
		want []int
	}{
		"tail 0":            {with(func(o *Options) { o.Tail = 0 }), nil},
		"tail 1":            {with(func(o *Options) { o.Tail = 1 }), span(59, 60)},
		"tail over files":   {with(func(o *Options) { o.Tail = 30 }), span(30, 60)},
		"tail of more":      {with(func(o *Options) { o.Tail = 1000 }), span(first, 60)},
		"since":             {with(func(o *Options) { o.Since = at(40) }), span(40, 60)},
		"until":             {with(func(o *Options) { o.Until = at(first + 3) }), span(first, first+4)},
		"since until":       {with(func(o *Options) { o.Since, o.Until = at(41), at(44) }), span(41, 45)},
		"tail and since":    {with(func(o *Options) { o.Tail = 5; o.Since = at(57) }), span(57, 60)},
		"stderr":            {with(func(o *Options) { o.Tail = 6; o.Stdout = false }), []int{54, 57}},
		"no stream":         {Options{Tail: -1}, nil},
		"follow, not alive": {with(func(o *Options) { o.Tail = 4; o.Follow = true; o.Running = func() bool { return false } }), span(56, 60)},
	} {
		if got := numbers(t, w.path, c.o); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	if got := numbers(t, w.path+"none", both); got != nil {
		t.Errorf("no log has entries: %v", got)
	}
}

func TestTailOverBlocks(t *testing.T) {
	w := newWriter(t, 0, 1)
	w.lines(0, 5000) // some 400 KB
	for _, n := range []int{1, 799, 800, 801, 2500, 4999, 5000, 5001} {
		got := numbers(t, w.path, Options{Stdout: true, Stderr: true, Tail: n})
		if fmt.Sprint(got) != fmt.Sprint(span(max(0, 5000-n), 5000)) {
			t.Errorf("tail %d: %d entries from %d", n, len(got), got[0])
		}
	}
}

func TestCrashRemains(t *testing.T) {
	w := newWriter(t, 0, 1)
	w.lines(0, 3)
	w.raw(`{"log":"cut off` + "\n")
	w.raw("\n\x00\x00\x00\n{}\nnull\n")
	w.lines(3, 5)
	w.raw(`{"log":"cut off aga`)
	got := numbers(t, w.path, Options{Stdout: true, Stderr: true, Tail: -1})
	if fmt.Sprint(got) != fmt.Sprint(span(0, 5)) {
		t.Errorf("got %v", got)
	}
	if got := numbers(t, w.path, Options{Stdout: true, Stderr: true, Tail: 2}); fmt.Sprint(got) != fmt.Sprint(span(3, 5)) {
		t.Errorf("tail: got %v", got)
	}
}

func TestFollowThroughRotations(t *testing.T) {
	for _, files := range []int{3, 4} {
		t.Run(fmt.Sprint(files), func(t *testing.T) {
			w := newWriter(t, 4000, files)
			const n = 20000
			var seen, running atomic.Int64
			running.Store(1)
			w.lines(0, 10)
			go func() {
				defer running.Store(0)
				for i := 10; i < n; i++ {
					// Half a line first, now and then: it must not be read.
					if l := line(i); i%50 == 7 {
						w.raw(l[:20])
						w.f.WriteString(l[20:])
						w.size += int64(len(l) - 20)
					} else {
						w.raw(l)
					}
					// No reader can follow a writer that has renamed the files away.
					for int64(i)-seen.Load() > 60 {
						time.Sleep(50 * time.Microsecond)
					}
				}
			}()
			next := 0
			err := Read(context.Background(), w.path, Options{
				Stdout: true, Stderr: true, Tail: -1, Follow: true,
				Running: func() bool { return running.Load() == 1 },
			}, func(e Entry) error {
				if want := fmt.Sprintf("line %d\n", next); string(e.Line) != want {
					return fmt.Errorf("got %q, want %q", e.Line, want)
				}
				next++
				seen.Store(int64(next))
				return nil
			})
			if err != nil {
				seen.Store(n)
				t.Fatal(err)
			}
			if next != n {
				t.Fatalf("%d entries of %d", next, n)
			}
		})
	}
}

func TestFollowWaitsForTheLogAndForUs(t *testing.T) {
	w := newWriter(t, 0, 1)
	os.Remove(w.path)
	w.f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	got := make(chan string)
	result := make(chan error)
	go func() {
		result <- Read(ctx, w.path, Options{Stdout: true, Stderr: true, Tail: -1, Follow: true}, func(e Entry) error {
			got <- string(e.Line)
			return nil
		})
	}()
	w.open()
	for i := range 5 {
		w.lines(i, i+1)
		if l := <-got; l != fmt.Sprintf("line %d\n", i) {
			t.Fatalf("got %q", l)
		}
	}
	w.f.Truncate(0)
	w.lines(7, 8)
	if l := <-got; l != "line 7\n" {
		t.Fatalf("after truncate: %q", l)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestErrorOfCallback(t *testing.T) {
	w := newWriter(t, 0, 1)
	w.lines(0, 3)
	stop := errors.New("stop")
	n := 0
	err := Read(context.Background(), w.path, Options{Stdout: true, Stderr: true, Tail: -1}, func(Entry) error { n++; return stop })
	if err != stop || n != 1 {
		t.Errorf("got %v after %d", err, n)
	}
}

func TestParse(t *testing.T) {
	var p parser
	const stamp = `"time":"2026-01-02T03:04:05.000000006Z"`
	for _, c := range []struct {
		in, line, stream, attr string
		ok                     bool
	}{
		{`{"log":"a\n","stream":"stdout",` + stamp + `}`, "a\n", "stdout", "", true},
		{`{"stream":"stderr", "log" : "\u003cx\u003e \"q\" \\ \t\u0009\ud83d\ude00\ufffd" ,` + stamp + `}`, "<x> \"q\" \\ \t\t😀\ufffd", "stderr", "", true},
		{`{"log":"x","stream":"stdout","attrs":{"tag":"t,}\"]"},` + stamp + `}`, "x", "stdout", "t,}\"]", true},
		{`{"log":"","stream":"stdout","later":[{"a":[1,2]},null],` + stamp + `}`, "", "stdout", "", true},
		{`{"log":"\ud83d x","stream":"stdout",` + stamp + `}`, "\ufffd x", "stdout", "", true},
		{`{"log":"a","stream":"stdout"}`, "", "", "", false},
		{`{"log":"a","stream":"stdout","time":"yesterday"}`, "", "", "", false},
		{`{` + stamp + `}`, "", "", "", false},
		{`{"log":"a","stream":"stdout",` + stamp + `} x`, "", "", "", false},
		{`{"log":"a\x","stream":"stdout",` + stamp + `}`, "", "", "", false},
		{`{`, "", "", "", false},
		{`{"log":"a\`, "", "", "", false},
		{``, "", "", "", false},
	} {
		e, ok := p.parse([]byte(c.in))
		if ok != c.ok || ok && (string(e.Line) != c.line || e.Stream != c.stream || e.Attrs["tag"] != c.attr || e.Time.Nanosecond() != 6) {
			t.Errorf("%s: got %q %s %v %v", c.in, e.Line, e.Stream, e.Attrs, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(line(3)))
	f.Add([]byte(`{"log":"\u003c\ud83d\ude00\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-02T03:04:05.6Z"}`))
	f.Add([]byte(`{"log":"x","x":[{"]":1}],"time":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p parser
		e, ok := p.parse(data)
		if !ok {
			return
		}
		// Where encoding/json takes it too, the two agree.
		var want struct {
			Log    *string   `json:"log"`
			Stream string    `json:"stream"`
			Time   time.Time `json:"time"`
		}
		if bytes.IndexByte(data, 0) >= 0 || json.Unmarshal(data, &want) != nil || want.Log == nil {
			return
		}
		if strings.Count(string(data), `"log"`) != 1 || strings.Count(string(data), `"stream"`) > 1 || strings.Count(string(data), `"time"`) != 1 || bytes.ContainsRune(bytes.ToUpper(data), 'ſ') || strings.Count(strings.ToLower(string(data)), "log") != 1 {
			return // the last of a key counts, in any case
		}
		if *want.Log != strings.ToValidUTF8(string(e.Line), "\ufffd") && !strings.Contains(*want.Log, "\ufffd") {
			t.Errorf("log %q, want %q", e.Line, *want.Log)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	w := newWriter(b, 0, 1)
	w.lines(0, 100000)
	b.SetBytes(w.size)
	for b.Loop() {
		n := 0
		err := Read(context.Background(), w.path, Options{Stdout: true, Stderr: true, Tail: -1}, func(Entry) error { n++; return nil })
		if err != nil || n != 100000 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkTail(b *testing.B) {
	w := newWriter(b, 0, 1)
	w.lines(0, 100000)
	for b.Loop() {
		err := Read(context.Background(), w.path, Options{Stdout: true, Stderr: true, Tail: 100}, func(Entry) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}
