package supervise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"tare/internal/runtime"
)

var stamp = time.Date(2026, 1, 2, 3, 4, 5, 60, time.UTC)

func newLog(t testing.TB, l runtime.Log) *logFile {
	t.Helper()
	l.Driver = "json-file"
	if l.Path == "" {
		l.Path = filepath.Join(t.TempDir(), "c-json.log")
	}
	f, err := openLog("box", l, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.close(stamp) })
	return f
}

func TestLogFormat(t *testing.T) {
	f := newLog(t, runtime.Log{})
	path := f.config.Path
	f.write(stdout, []byte("one\ntw"), stamp)
	f.write(stderr, []byte("err <&> \"q\" \\ \t\x1b\r\n"), stamp)
	f.write(stdout, []byte("o\n\n\xff\u2028é\n"), stamp)
	f.write(stdout, []byte("rest"), stamp)
	f.close(stamp)
	const end = `,"time":"2026-01-02T03:04:05.00000006Z"}` + "\n"
	want := `{"log":"one\n","stream":"stdout"` + end +
		`{"log":"err \u003c\u0026\u003e \"q\" \\ \u0009\u001b\r\n","stream":"stderr"` + end +
		`{"log":"two\n","stream":"stdout"` + end +
		`{"log":"\n","stream":"stdout"` + end +
		`{"log":"\ufffd\u2028é\n","stream":"stdout"` + end +
		`{"log":"rest","stream":"stdout"` + end
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLogAttrs(t *testing.T) {
	f := newLog(t, runtime.Log{Attrs: map[string]string{"tag": "x", "a": "b"}})
	f.write(stdout, []byte("l\n"), stamp)
	want := `{"log":"l\n","stream":"stdout","attrs":{"a":"b","tag":"x"},"time":"2026-01-02T03:04:05.00000006Z"}` + "\n"
	if got, _ := os.ReadFile(f.config.Path); string(got) != want {
		t.Errorf("got %s", got)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	f := newLog(t, runtime.Log{})
	long := strings.Repeat("é", maxLine) // the limit falls inside no character
	text := "a" + long + "\n" + "b" + long
	for rest := []byte(text); len(rest) > 0; {
		n := min(len(rest), 5000)
		f.write(stdout, rest[:n], stamp)
		rest = rest[n:]
	}
	path := f.config.Path
	f.close(stamp)
	var all strings.Builder
	entries := entriesOf(t, path)
	for i, e := range entries {
		all.WriteString(e)
		if len(e) > maxLine || strings.HasSuffix(e, "\n") != (i == 2) {
			t.Errorf("entry %d: %d bytes, ends %q", i, len(e), e[len(e)-1:])
		}
	}
	if all.String() != text || len(entries) != 6 {
		t.Errorf("%d entries, %d bytes of %d", len(entries), all.Len(), len(text))
	}
}

func entriesOf(t testing.TB, path string) (out []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range bytes.SplitAfter(data, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var e struct{ Log string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		out = append(out, e.Log)
	}
	return out
}

func TestRotation(t *testing.T) {
	for _, files := range []int{1, 2, 4} {
		f := newLog(t, runtime.Log{MaxSize: 1000, MaxFiles: files})
		var burst []byte
		const n = 500
		for i := range n {
			burst = fmt.Appendf(burst, "line %d\n", i)
			if i%7 == 0 {
				f.write(stdout, burst, stamp)
				burst = burst[:0]
			}
		}
		f.write(stdout, burst, stamp)
		var all []string
		for i := files - 1; i >= 0; i-- {
			path := f.config.Path
			if i > 0 {
				path += fmt.Sprint(".", i)
			}
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && (st.Size() < 1000 || st.Size() > 1100) {
				t.Errorf("%d files: %s has %d bytes", files, path, st.Size())
			}
			all = append(all, entriesOf(t, path)...)
		}
		if _, err := os.Stat(fmt.Sprint(f.config.Path, ".", files)); err == nil {
			t.Errorf("%d files: one too many", files)
		}
		for i, e := range all {
			if want := fmt.Sprintf("line %d\n", n-len(all)+i); e != want {
				t.Fatalf("%d files: entry %d is %q, want %q", files, i, e, want)
			}
		}
	}
}

// TestFullDisk fills a small file system: entries are lost whole, and writing goes on when there is room.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	f := newLog(t, runtime.Log{Path: filepath.Join(dir, "log")})
	said := 0
	f.complain = func(format string, args ...any) { said++; t.Logf(format, args...) }
	for i := range 2000 {
		f.write(stdout, fmt.Appendf(nil, "%d %s\n", i, strings.Repeat("x", 100)), stamp)
	}
	if f.lost == 0 || said != 1 {
		t.Fatalf("%d lost, told %d times", f.lost, said)
	}
	before := len(entriesOf(t, f.config.Path))
	if err := os.Truncate(f.config.Path, 0); err != nil {
		t.Fatal(err)
	}
	f.size = 0
	f.write(stdout, []byte("room again\n"), stamp)
	if got := entriesOf(t, f.config.Path); len(got) != 1 || got[0] != "room again\n" {
		t.Errorf("got %q", got)
	}
	if f.lost != 0 || said != 2 || before == 0 {
		t.Errorf("%d lost, told %d times, %d before", f.lost, said, before)
	}
}

func TestLogGoesOnAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(`{"log":"cut`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newLog(t, runtime.Log{Path: path})
	f.write(stdout, []byte("x\n"), stamp)
	got, _ := os.ReadFile(path)
	if !bytes.HasPrefix(got, []byte("{\"log\":\"cut\n{\"log\":\"x\\n\"")) {
		t.Errorf("got %q", got)
	}
}

// FuzzLog writes data in pieces and reads it back with encoding/json.
func FuzzLog(f *testing.F) {
	f.Add([]byte("a\nb\n"), uint64(1))
	f.Add([]byte("é\u2028<\xff\x00\n\n"), uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		l := newLog(t, runtime.Log{})
		path := l.config.Path
		rnd := rand.New(rand.NewPCG(seed, 0))
		for rest := data; len(rest) > 0; {
			n := 1 + rnd.IntN(len(rest))
			l.write(stdout, rest[:n], stamp)
			rest = rest[n:]
		}
		l.close(stamp)
		got := strings.Join(entriesOf(t, path), "")
		if utf8.Valid(data) && got != string(data) || !utf8.Valid(data) && len(got) < len(data) {
			t.Errorf("got %q, want %q", got, data)
		}
	})
}

func BenchmarkLog(b *testing.B) {
	f := newLog(b, runtime.Log{MaxSize: 10 << 20, MaxFiles: 3})
	data := bytes.Repeat([]byte("a line as programs write it, some sixty bytes long, it ends\n"), readSize/60)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		f.write(stdout, data, stamp)
	}
}

func BenchmarkLogLineByLine(b *testing.B) {
	f := newLog(b, runtime.Log{MaxSize: 10 << 20, MaxFiles: 3})
	line := []byte("a line as programs write it, some sixty bytes long, it ends\n")
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		f.write(stdout, line, stamp)
	}
}
