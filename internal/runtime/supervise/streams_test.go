package supervise_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime"
)

func TestAttachBeforeStartLosesNothing(t *testing.T) {
	r := newRig(t)
	const n = 20000
	b := r.create(stdio(), "sh", "-c", fmt.Sprintf("seq %d; echo end >&2", n))
	one, two := b.attach("", false), b.attach("", false)
	only, err := r.Client.Attach(r.ctx(), runtime.Attach{Ref: b.ref, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()
	b.start()
	type result struct {
		out [3]string
		err error
	}
	results := make(chan result)
	for _, s := range []*net.UnixConn{one, two} {
		go func() { out, err := frames(s); results <- result{out, err} }()
	}
	var want strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&want, i)
	}
	for range 2 {
		if got := <-results; got.err != nil || got.out[1] != want.String() || got.out[2] != "end\n" {
			t.Errorf("got %d bytes of %d, stderr %q, %v", len(got.out[1]), want.Len(), got.out[2], got.err)
		}
	}
	if out, err := frames(only); err != nil || out != [3]string{"", "", "end\n"} {
		t.Errorf("stderr only: %q, %v", out, err)
	}
	b.exit()
	if got := strings.Replace(b.logged(), "end\n", "", 1); got != want.String() {
		t.Errorf("log: %d bytes of %d", len(got), want.Len())
	}
	// Too late is the end of the stream, not an error.
	if out, err := frames(b.attach("", true)); err != nil || out != [3]string{} {
		t.Errorf("after the end: %q, %v", out, err)
	}
}

func TestLargeThroughCat(t *testing.T) {
	size := 100 << 20
	if testing.Short() {
		size = 8 << 20
	}
	r := newRig(t)
	b := r.create(runtime.Stdio{OpenStdin: true, StdinOnce: true, Log: runtime.Log{Driver: "none"}}, "cat")
	s := b.attach("", true)
	b.start()
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * 7 / 3)
	}
	sent, got := sha256.New(), sha256.New()
	go func() {
		for n := 0; n < size; n += len(chunk) {
			binary.BigEndian.PutUint64(chunk, uint64(n))
			sent.Write(chunk)
			if _, err := s.Write(chunk); err != nil {
				t.Error(err)
				break
			}
		}
		s.CloseWrite()
	}()
	total := int64(0)
	var h [8]byte
	for {
		if _, err := io.ReadFull(s, h[:]); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		n, err := io.CopyN(got, s, int64(binary.BigEndian.Uint32(h[4:])))
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if e := b.exit(); e.Code != 0 {
		t.Errorf("exit: %+v", e)
	}
	if total != int64(size) || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes of %d came back, or others", total, size)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	io := runtime.Stdio{Terminal: true, OpenStdin: true, Width: 91, Height: 33, Log: runtime.Log{Driver: "json-file"}}
	b := r.create(io, "sh", "-c", "stty size; read x; echo got $x; trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done")
	s := b.attach("", true)
	b.start()
	var seen bytes.Buffer
	expect := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for !strings.Contains(seen.String(), want) {
			n, err := s.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %q, got %q, %v", want, seen.String(), err)
			}
			seen.Write(buf[:n])
		}
		rest := seen.String()[strings.Index(seen.String(), want)+len(want):]
		seen.Reset()
		seen.WriteString(rest)
	}
	expect("33 91\r\n")
	if _, err := s.Write([]byte("word\n")); err != nil {
		t.Fatal(err)
	}
	expect("word\r\n") // the echo
	expect("got word\r\nready\r\n")
	if err := r.Resize(r.ctx(), b.ref, 120, 50); err != nil {
		t.Fatal(err)
	}
	expect("50 120\r\n")
	if _, err := s.Write([]byte{3}); err != nil { // ^C
		t.Fatal(err)
	}
	b.exit()
	if log := b.logged(); !strings.Contains(log, "got word\r\n") {
		t.Errorf("log: %q", log)
	}

	// All that is written just before the end arrives.
	io.OpenStdin = false
	c := r.create(io, "sh", "-c", "seq 3000")
	s = c.attach("", false)
	c.start()
	data := readAll(t, s)
	if n := strings.Count(data, "\r\n"); n != 3000 {
		t.Errorf("%d lines of 3000", n)
	}
	c.exit()
	if n := strings.Count(c.logged(), "\r\n"); n != 3000 {
		t.Errorf("%d lines of 3000 in the log", n)
	}
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExecWithTerminal(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sleep", "60").start()
	req := runtime.Exec{
		Ref:     runtime.Ref{Container: b.ID, Exec: "tty"},
		Process: specs.Process{Args: []string{"sh", "-c", "test -t 0 && stty size"}, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"}},
		Stdio:   runtime.Stdio{Terminal: true, Width: 70, Height: 20},
	}
	_, s, err := r.Exec(r.ctx(), req, &runtime.Attach{Ref: req.Ref, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := readAll(t, s); got != "20 70\r\n" {
		t.Errorf("got %q", got)
	}
	if e := r.wait(req.Ref); e.Code != 0 {
		t.Errorf("exit: %+v", e)
	}
}

func TestStdinOnceAndNot(t *testing.T) {
	r := newRig(t)
	// Not once: the second client's input follows the first's.
	b := r.create(runtime.Stdio{OpenStdin: true, Log: runtime.Log{Driver: "json-file"}}, "sh", "-c", "read a; read b; echo $a $b").start()
	for _, word := range []string{"one\n", "two\n"} {
		s := b.attach("", true)
		if _, err := s.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		s.CloseWrite()
	}
	b.exit()
	if got := b.logged(); got != "one two\n" {
		t.Errorf("log: %q", got)
	}
	// Once: the end of one is the end, also if the client vanishes.
	for _, end := range []func(*net.UnixConn){func(s *net.UnixConn) { s.CloseWrite() }, func(s *net.UnixConn) { s.Close() }} {
		b := r.create(runtime.Stdio{OpenStdin: true, StdinOnce: true, Log: runtime.Log{Driver: "json-file"}}, "sh", "-c", "cat; echo over").start()
		s := b.attach("", true)
		if _, err := s.Write([]byte("in\n")); err != nil {
			t.Fatal(err)
		}
		end(s)
		b.exit()
		if got := b.logged(); got != "in\nover\n" {
			t.Errorf("log: %q", got)
		}
	}
	// Without OpenStdin there is nothing to read.
	b = r.create(stdio(), "cat").start()
	if e := b.exit(); e.Code != 0 {
		t.Errorf("cat without stdin: %+v", e)
	}
	// Input for a process that does not read any more is thrown away.
	b = r.create(runtime.Stdio{OpenStdin: true, StdinOnce: true, Log: runtime.Log{Driver: "none"}}, "sh", "-c", "exec <&-; sleep 0.3")
	s := b.attach("", true)
	b.start()
	for range 40 {
		if _, err := s.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	b.exit()
}

func TestEngineThatVanishesDoesNotEndStdin(t *testing.T) {
	r := newRig(t)
	b := r.create(runtime.Stdio{OpenStdin: true, StdinOnce: true, Log: runtime.Log{Driver: "json-file"}}, "cat")
	s := b.attach("", true)
	b.start()
	if _, err := s.Write([]byte("before\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "output", func() bool { return b.logged() == "before\n" })
	s.Close()
	r.Close()
	r.connect()
	s = b.attach("", true)
	time.Sleep(150 * time.Millisecond) // longer than the supervisor waits to see who vanished
	if _, err := s.Write([]byte("after\n")); err != nil {
		t.Fatal(err)
	}
	s.CloseWrite()
	if e := b.exit(); e.Code != 0 || b.logged() != "before\nafter\n" {
		t.Errorf("exit %+v, log %q", e, b.logged())
	}
}

// TestSlowClient has a client that does not read: the process waits after some
// 1 MiB, goes on when it reads, and when it is gone.
func TestSlowClient(t *testing.T) {
	r := newRig(t)
	io := runtime.Stdio{Log: runtime.Log{Driver: "json-file"}}
	b := r.create(io, "sh", "-c", "i=0; while [ $i -lt 80 ]; do head -c 65535 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done")
	slow := b.attach("", false)
	b.start()
	size := func() int64 {
		st, err := os.Stat(b.Stdio.Log.Path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	// It stops for good: the same size twice, some time apart.
	var held int64
	eventually(t, "the process waits", func() bool {
		last := held
		held = size()
		time.Sleep(100 * time.Millisecond)
		return held == last && held > 0
	})
	if held < 1<<20 || held > 2<<20 {
		t.Errorf("the process wrote %d bytes before it had to wait", held)
	}
	if _, err := frames(&limited{slow, 3 << 20}); err == nil {
		t.Error("the stream ended early")
	}
	eventually(t, "the process goes on", func() bool { return size() > held })
	slow.Close() // the rest goes to the log alone
	b.exit()
	if got, want := len(b.logged()), 80*65536; got != want {
		t.Errorf("log: %d bytes, want %d", got, want)
	}
}

// limited fails after n bytes.
type limited struct {
	r io.Reader
	n int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, fmt.Errorf("enough")
	}
	n, err := l.r.Read(p[:min(len(p), l.n)])
	l.n -= n
	return n, err
}

// TestOutputAfterAnExitThatNobodyReads lets a process end while its client does not read.
func TestExitWhileNobodyReads(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x")
	s := b.attach("", false)
	b.start()
	b.exit() // does not wait for the client
	if err := r.Delete(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if out, err := frames(s); err != nil || len(out[1]) != 1000000 {
		t.Errorf("%d bytes, %v", len(out[1]), err)
	}
}

// TestOrphansWithTheHostsPids has children that outlive init and hold its pipes.
func TestOrphansWithTheHostsPids(t *testing.T) {
	r := newRig(t)
	b := r.createWith(stdio(), func(s *specs.Spec) {
		s.Linux.Namespaces = s.Linux.Namespaces[1:]
	}, "sh", "-c", "sleep 300 & echo $!").start()
	if e := b.exit(); e.Code != 0 {
		t.Errorf("exit: %+v", e)
	}
	var orphan int
	if _, err := fmt.Sscan(b.logged(), &orphan); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the orphan is killed and collected", func() bool { return unix.Kill(orphan, 0) == unix.ESRCH })
}

// TestFullDiskHoldsNobodyUp has a container write much more than its log's disk takes.
func TestFullDiskHoldsNobodyUp(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	io := stdio()
	io.Log.Path = dir + "/json.log"
	b := r.create(io, "seq", "100000")
	s := b.attach("", false)
	b.start()
	out, err := frames(s)
	if err != nil || strings.Count(out[1], "\n") != 100000 {
		t.Errorf("a client got %d lines, %v", strings.Count(out[1], "\n"), err)
	}
	if e := b.exit(); e.Code != 0 {
		t.Errorf("exit: %+v", e)
	}
	if n := strings.Count(b.logged(), "\n"); n == 0 || n == 100000 {
		t.Errorf("%d lines are in the log", n)
	}
	if said, _ := os.ReadFile(r.opts.LogFile); !strings.Contains(string(said), "no space left") {
		t.Errorf("the supervisor's log says %q", said)
	}
}
