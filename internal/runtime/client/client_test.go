package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// script is a supervisor that a test answers for.
type script struct {
	t    *testing.T
	conn *net.UnixConn
	dec  wire.Decoder
}

func dialScript(t *testing.T) (*Client, *script) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, wire.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		c   *Client
		err error
	}
	met := make(chan result, 1)
	go func() {
		c, err := connect(t.Context(), Options{ExecRoot: dir})
		met <- result{c, err}
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	s := &script{t: t, conn: conn.(*net.UnixConn)}
	for _, want := range []wire.Op{wire.Hello, wire.Recover, wire.Watch} {
		m := s.next()
		if m.Op != want {
			t.Fatalf("%+v instead of %s", m, want)
		}
		m.Body = wire.Body(wire.HelloBody{Life: "one"})
		s.say(m)
	}
	got := <-met
	if got.err != nil {
		t.Fatal(got.err)
	}
	t.Cleanup(func() { got.c.Close() })
	return got.c, s
}

func (s *script) next() wire.Message {
	s.t.Helper()
	buf := make([]byte, 4096)
	for {
		m, ok, err := s.dec.Next()
		if err != nil {
			s.t.Fatal(err)
		}
		if ok {
			return m
		}
		n, err := s.conn.Read(buf)
		if err != nil {
			s.t.Fatal(err)
		}
		s.dec.Feed(buf[:n])
	}
}

func (s *script) say(m wire.Message, fds ...int) {
	s.t.Helper()
	data, err := wire.Append(nil, &m)
	if err != nil {
		s.t.Fatal(err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := s.conn.WriteMsgUnix(data, rights, nil); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnswersOutOfOrder(t *testing.T) {
	c, s := dialScript(t)
	got := make(chan string, 2)
	ask := func(id string) {
		st, err := c.State(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		got <- id + st.ID
	}
	go ask("a")
	go ask("b")
	one, two := s.next(), s.next()
	s.say(wire.Message{ID: two.ID, Op: two.Op, Body: wire.Body(runtime.State{ID: string(two.Body)})})
	s.say(wire.Message{ID: one.ID, Op: one.Op, Body: wire.Body(runtime.State{ID: string(one.Body)})})
	for range 2 {
		if g := <-got; g != `a{"container":"a"}` && g != `b{"container":"b"}` {
			t.Errorf("got %s", g)
		}
	}
}

// TestAbandonedAttach has an answer that comes too late: its descriptor is closed.
func TestAbandonedAttach(t *testing.T) {
	c, s := dialScript(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := c.Attach(ctx, runtime.Attach{}); failed <- err }()
	m := s.next()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	s.say(wire.Message{ID: m.ID, Op: m.Op, FDs: 1}, pair[1])
	unix.Close(pair[1])
	_ = unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	if n, err := unix.Read(pair[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the stream is still open: %d, %v", n, err)
	}
}

// TestAbandonedCreate takes back what may come into being yet.
func TestAbandonedCreate(t *testing.T) {
	c, s := dialScript(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := c.Create(ctx, runtime.Create{ID: "x"}); failed <- err }()
	if m := s.next(); m.Op != wire.Create {
		t.Fatalf("got %+v", m)
	}
	cancel()
	if m := s.next(); m.Op != wire.Delete || m.ID != 0 || string(m.Body) != `{"container":"x"}` {
		t.Errorf("got %+v", m)
	}
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestExitsDoNotHoldCallsUp has exit records that nobody takes.
func TestExitsDoNotHoldCallsUp(t *testing.T) {
	c, s := dialScript(t)
	const n = 5000
	go func() {
		for i := range n {
			s.say(wire.Message{Op: wire.Exit, Body: wire.Body(runtime.Exit{Seq: uint64(i + 1)})})
		}
		m := s.next()
		s.say(wire.Message{ID: m.ID, Op: m.Op, Body: wire.Body([]runtime.State{})})
	}()
	if _, err := c.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if e := <-c.Exits(); e.Seq != uint64(i+1) {
			t.Fatalf("record %d is %+v", i, e)
		}
	}
}
