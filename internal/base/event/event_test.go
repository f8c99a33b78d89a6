package event

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Unix(1_800_000_000, 5)

// numbered is the n-th event of a test, n seconds after start.
func numbered(n int) Event {
	return Event{Type: "container", Action: "die", ID: fmt.Sprint(n), Attributes: map[string]string{"name": "<a&b>"}, Time: start.Add(time.Duration(n) * time.Second)}
}

func ids(events []Event) string {
	var out []string
	for _, e := range events {
		out = append(out, e.ID)
	}
	return strings.Join(out, " ")
}

func journal(t *testing.T, path string, limit int64) *Journal {
	t.Helper()
	j, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	if limit > 0 {
		j.limit = limit
	}
	return j
}

func replay(t *testing.T, b *Bus, since time.Time) []Event {
	t.Helper()
	past, sub, err := b.Replay(since)
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
	return past
}

func TestJournalOutlivesItsBus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	var first Bus
	first.Publish(numbered(0)) // before there is a journal
	j := journal(t, path, 0)
	first.Keep(j)
	first.Publish(numbered(1))
	j.Close()

	var second Bus
	second.Keep(journal(t, path, 0))
	second.Publish(numbered(2))
	got := replay(t, &second, start)
	if ids(got) != "0 1 2" {
		t.Errorf("events %s", ids(got))
	}
	if diff := cmp.Diff(numbered(1), got[1]); diff != "" {
		t.Error(diff)
	}
	if got := ids(replay(t, &second, numbered(1).Time)); got != "1 2" {
		t.Errorf("since the second: %s", got)
	}
}

func TestReplayHasNoGapAndNoRepeat(t *testing.T) {
	for name, kept := range map[string]bool{"memory": false, "journal": true} {
		t.Run(name, func(t *testing.T) {
			var b Bus
			if kept {
				b.Keep(journal(t, filepath.Join(t.TempDir(), "events"), 2000))
			}
			const n = 500
			go func() {
				for i := range n {
					b.Publish(numbered(i))
				}
			}()
			last := b.Subscribe()
			defer last.Close()
			var past []Event
			var sub *Subscription
			for len(past) == 0 {
				var err error
				if past, sub, err = b.Replay(start); err != nil {
					t.Fatal(err)
				}
				if len(past) == 0 {
					sub.Close()
				}
			}
			defer sub.Close()
			next := past[0].ID
			for _, e := range past {
				if e.ID != next {
					t.Fatalf("event %s where %s was due", e.ID, next)
				}
				next = after(e.ID)
			}
			for next != fmt.Sprint(n) {
				if e := <-sub.C; e.ID != next {
					t.Fatalf("event %s where %s was due", e.ID, next)
				}
				next = after(next)
			}
		})
	}
}

func after(id string) string {
	var n int
	fmt.Sscan(id, &n)
	return fmt.Sprint(n + 1)
}

func TestJournalStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	var b Bus
	b.Keep(journal(t, path, 1000))
	for i := range 100 {
		b.Publish(numbered(i))
	}
	for _, p := range []string{path, path + ".1"} {
		if st, err := os.Stat(p); err != nil || st.Size() > 1200 {
			t.Errorf("%s: %v %v", p, st, err)
		}
	}
	got := replay(t, &b, start)
	if len(got) < 8 || got[len(got)-1].ID != "99" {
		t.Errorf("kept: %s", ids(got))
	}
}

func TestJournalSkipsWhatIsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	var b Bus
	j := journal(t, path, 0)
	b.Keep(j)
	b.Publish(numbered(0))
	j.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "rubbish\n{\"time\":1}\n{\"time\":%d,\"type\":[]}\n{\"time\":%d,\"ty", start.Add(time.Hour).UnixNano(), start.Add(time.Hour).UnixNano()) // cut by a kill
	f.Close()
	var again Bus
	again.Keep(journal(t, path, 0))
	again.Publish(numbered(7))
	if got := ids(replay(t, &again, start)); got != "0 7" {
		t.Errorf("events %q", got)
	}
}

func TestSlowSubscriberIsCutOff(t *testing.T) {
	var b Bus
	sub := b.Subscribe()
	for i := range backlog + 1 {
		b.Publish(numbered(i))
	}
	n := 0
	for range sub.C {
		n++
	}
	if n != backlog {
		t.Errorf("%d events, then the end; want %d", n, backlog)
	}
}
