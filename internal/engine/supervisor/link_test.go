package supervisor

import (
	"context"
	"sync"
	"testing"
	"time"

	"tare/internal/runtime"
)

// fakeConn is a connection whose end the test decides.
type fakeConn struct {
	connection
	exits chan runtime.Exit
	once  sync.Once
}

func newFake() *fakeConn                       { return &fakeConn{exits: make(chan runtime.Exit)} }
func (f *fakeConn) Exits() <-chan runtime.Exit { return f.exits }
func (f *fakeConn) Close() error               { f.once.Do(func() { close(f.exits) }); return nil }

// A supervisor that is lost while the engine ends must not keep it from ending:
// the connection that is being made meanwhile is closed too.
func TestCloseWhileRedialling(t *testing.T) {
	first, second := newFake(), newFake()
	dialling, goOn := make(chan struct{}), make(chan struct{})
	dials := 0
	l, err := open(context.Background(), func(context.Context) (connection, error) {
		dials++
		if dials == 1 {
			return first, nil
		}
		close(dialling)
		<-goOn
		return second, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	<-dialling
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	<-l.closing
	close(goOn)
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("Close hangs")
	}
	select {
	case _, open := <-second.exits:
		if open {
			t.Error("an exit out of nowhere")
		}
	default:
		t.Error("the second connection was left open")
	}
}
