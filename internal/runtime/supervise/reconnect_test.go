package supervise_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/runtime"
	"tare/internal/runtime/client"
	"tare/internal/runtime/wire"
)

// TestReconnect loses the engine's connection again and again under 20 containers
// that write: no line is missing or double, every exit has one record.
func TestReconnect(t *testing.T) {
	r := newRig(t)
	const n, lines = 20, 150
	boxes := make([]*box, n)
	for i := range boxes {
		io := runtime.Stdio{Log: runtime.Log{Driver: "json-file", MaxSize: 2000, MaxFiles: 20}}
		boxes[i] = r.create(io, "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit %d", lines, i)).start()
	}
	for range 10 {
		boxes[3].attach("", false) // a client that is never read
		r.Close()
		<-r.Done()
		r.connect()
		all, err := r.List(r.ctx())
		if err != nil || len(all) != n {
			t.Fatalf("%d containers, %v", len(all), err)
		}
		for _, b := range boxes {
			if st, err := r.State(r.ctx(), b.ID); err != nil || st.Status == runtime.Running && st.Pid != b.pid {
				t.Errorf("state: %+v, %v", st, err)
			}
		}
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i)
	}
	seqs := map[uint64]bool{}
	for i, b := range boxes {
		e := b.exit()
		if e.Code != i {
			t.Errorf("box %d: %+v", i, e)
		}
		seqs[e.Seq] = true
		if got := b.logged(); got != want.String() {
			t.Errorf("box %d: log %q", i, got)
		}
	}
	for i := 1; i <= n; i++ {
		if !seqs[uint64(i)] {
			t.Errorf("record %d is missing", i)
		}
	}
	// All records are kept for an engine that comes later.
	r.Close()
	r.connect()
	for i, b := range boxes {
		if e := b.exit(); e.Code != i {
			t.Errorf("box %d, later: %+v", i, e)
		}
	}
}

// TestEngineDiesInTheMiddle cuts the connection inside a message, and right after
// requests whose answers nobody takes.
func TestEngineDiesInTheMiddle(t *testing.T) {
	r := newRig(t)
	req := r.bundle(stdio(), nil, "sleep", "60")
	frame, err := wire.Append(nil, &wire.Message{ID: 1, Op: wire.Create, Body: wire.Body(req)})
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		c, err := net.Dial("unix", filepath.Join(r.opts.ExecRoot, wire.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, cut := range []int{1, 4, 5, len(frame) / 2, len(frame) - 1} {
		c := dial()
		c.Write(frame[:cut])
		c.Close()
	}
	if all, err := r.List(r.ctx()); err != nil || len(all) != 0 {
		t.Fatalf("half a request was carried out: %+v, %v", all, err)
	}
	c := dial()
	c.Write(frame)
	c.Close()
	eventually(t, "the container is there", func() bool {
		all, err := r.List(r.ctx())
		return err == nil && len(all) == 1 && all[0].ID == req.ID && all[0].Status == runtime.Created
	})
	if err := r.Delete(r.ctx(), req.ID); err != nil {
		t.Fatal(err)
	}
	// Noise ends the connection that it came by, no other.
	c = dial()
	c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("noise was answered: %d, %v", n, err)
	}
	c.Close()
	if _, err := r.List(r.ctx()); err != nil {
		t.Error(err)
	}
}

func TestSeveralEngines(t *testing.T) {
	r := newRig(t)
	other, err := client.Ensure(r.ctx(), r.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	b := r.create(stdio(), "sh", "-c", "exit 4")
	if err := other.Start(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if e := <-other.Exits(); e.Ref != b.ref || e.Code != 4 {
		t.Errorf("other engine: %+v", e)
	}
	if e := b.exit(); e.Code != 4 {
		t.Errorf("this engine: %+v", e)
	}
}

// TestCallsEndWithTheConnection kills the supervisor: it has no containers.
func TestCallsEndWithTheConnection(t *testing.T) {
	r := newRig(t)
	data, err := os.ReadFile(filepath.Join(r.opts.ExecRoot, wire.PidName))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("Done is not closed")
	}
	if _, err := r.List(r.ctx()); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("call: %v", err)
	}
	for range r.Exits() {
	}
	r.connect() // a new one, though the socket of the old is still there
	if all, err := r.List(r.ctx()); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
}

// TestSignalsToTheSupervisor holds that it lives while it has containers.
func TestSignalsToTheSupervisor(t *testing.T) {
	r := newRig(t)
	b := r.create(stdio(), "sh", "-c", "trap 'exit 9' HUP; echo up; while :; do sleep 0.01; done").start()
	data, err := os.ReadFile(filepath.Join(r.opts.ExecRoot, wire.PidName))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGPIPE, unix.SIGINT, unix.SIGTERM} {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it was asked to end", func() bool {
		said, _ := os.ReadFile(r.opts.LogFile)
		return strings.Contains(string(said), "1 containers are left")
	})
	// The container did not inherit a signal that is ignored.
	eventually(t, "output", func() bool { return b.logged() == "up\n" })
	if err := r.Signal(r.ctx(), b.ref, int(unix.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.Code != 9 {
		t.Errorf("exit: %+v", e)
	}
	if err := r.Delete(r.ctx(), b.ID); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-r.Done()
	r.connect()
}
