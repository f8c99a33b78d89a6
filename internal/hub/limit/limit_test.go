package limit

import (
	"context"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	now := time.Unix(0, 0)
	r := NewRate(2, 3)
	r.now = func() time.Time { return now }
	for i := range 3 {
		if w := r.Take("a"); w != 0 {
			t.Fatal(i, w)
		}
	}
	if w := r.Take("a"); w != 500*time.Millisecond {
		t.Error(w)
	}
	if w := r.Take("b"); w != 0 {
		t.Error("another client waits", w)
	}
	now = now.Add(500 * time.Millisecond)
	if w := r.Take("a"); w != 0 {
		t.Error(w)
	}
	now = now.Add(time.Hour)
	r.Take("c")
	if len(r.clients) != 1 {
		t.Error("idle clients are remembered:", len(r.clients))
	}
	if NewRate(0, 0).Take("x") != 0 {
		t.Error("no limit is a limit")
	}
}

func TestGate(t *testing.T) {
	g := &Gate{All: 3, Each: 2}
	full, cancel := context.WithCancel(context.Background())
	cancel()
	enter := func(client string) func() {
		t.Helper()
		leave, err := g.Enter(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		return leave
	}
	leave := enter("a")
	enter("a")
	if _, err := g.Enter(full, "a"); err == nil {
		t.Error("a third time for a")
	}
	enter("b")
	if _, err := g.Enter(full, "c"); err == nil || g.Inside() != 3 {
		t.Error("a fourth at once", g.Inside())
	}
	in := make(chan func())
	go func() { in <- enter("a") }()
	leave()
	(<-in)()
	if g.Inside() != 2 {
		t.Error(g.Inside())
	}
}
