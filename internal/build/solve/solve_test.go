package solve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/build/cache"
	"tare/internal/build/graph"
)

type noHolds struct{}

func (noHolds) Hold(string, ...digest.Digest) {}
func (noHolds) Release(string)                {}

func newSolver(t *testing.T) *Solver {
	t.Helper()
	c, err := cache.Open(t.TempDir(), noHolds{}, func(digest.Digest) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return New(c)
}

// worker records what it does; a Run's first argument names its behaviour.
type worker struct {
	mu    sync.Mutex
	did   []string
	reads map[string]string        // by source path
	gates map[string]chan struct{} // "wait x" waits for x
	began chan string              // gets the name of each "wait"
}

func (w *worker) Reads(_ context.Context, s graph.Step) (string, error) {
	if c, ok := s.Op.(graph.Copy); ok && c.From.Context {
		return w.reads[c.Paths[0]], nil
	}
	return "", nil
}
func (w *worker) Begin() func() { return func() {} }
func (w *worker) Do(ctx context.Context, work Work, log io.Writer) (Layer, error) {
	w.mu.Lock()
	w.did = append(w.did, work.Step.About)
	w.mu.Unlock()
	fmt.Fprintf(log, "doing %s\n", work.Step.About)
	if r, ok := work.Step.Op.(graph.Run); ok {
		switch r.Args[0] {
		case "nothing":
			return Layer{}, nil
		case "fail":
			return Layer{}, errors.New("it failed")
		case "wait":
			w.began <- r.Args[1]
			select {
			case <-w.gates[r.Args[1]]:
			case <-ctx.Done():
				return Layer{}, ctx.Err()
			}
		}
	}
	reads, _ := w.Reads(ctx, work.Step)
	key, err := Key(work, reads)
	return Layer{DiffID: digest.FromString(key), Size: 1}, err
}

func run(parent int, args ...string) graph.Step {
	return graph.Step{Parent: parent, About: fmt.Sprint(args), Op: graph.Run{Args: args}}
}

func solve(t *testing.T, s *Solver, w Worker, o Options, steps ...graph.Step) ([]Result, error) {
	t.Helper()
	r := s.Start(t.Context(), &graph.Graph{Steps: steps}, w, o)
	_, err := r.Wait()
	results := make([]Result, len(steps))
	for i := range steps {
		results[i], _ = r.Tasks[i].Result()
	}
	return results, err
}

func TestSecondBuildDoesNothing(t *testing.T) {
	s, w := newSolver(t), &worker{reads: map[string]string{"/a": "1"}}
	steps := []graph.Step{
		{Parent: graph.None, Op: graph.Base{Layers: []digest.Digest{digest.FromString("base")}}},
		{Parent: 0, About: "copy", Op: graph.Copy{From: graph.Source{Context: true}, Paths: []string{"/a"}}},
		run(1, "make"), run(2, "nothing"),
		{Parent: graph.None, Inputs: []int{3}, About: "copy from", Op: graph.Copy{Paths: []string{"/out"}}},
	}
	first, err := solve(t, s, w, Options{Build: "1"}, steps...)
	if err != nil || len(w.did) != 4 {
		t.Fatalf("%v, did %v", err, w.did)
	}
	if len(first[3].Layers) != 3 || first[3].Added || len(first[4].Layers) != 1 {
		t.Errorf("layers: %v", first)
	}
	second, err := solve(t, s, w, Options{Build: "2"}, steps...)
	if err != nil || len(w.did) != 4 {
		t.Fatalf("%v, did again %v", err, w.did[4:])
	}
	if !second[4].Cached || !second[4].Created.Equal(first[4].Created) || second[4].Layers[0] != first[4].Layers[0] {
		t.Errorf("second %+v, first %+v", second[4], first[4])
	}
	w.reads["/a"] = "2"
	if _, err := solve(t, s, w, Options{Build: "3"}, steps...); err != nil || len(w.did) != 8 {
		t.Errorf("changed context: %v, did %v", err, w.did[4:])
	}
	if _, err := solve(t, s, w, Options{Build: "4", NoCache: true}, steps...); err != nil || len(w.did) != 12 {
		t.Errorf("no cache: %v, did %v", err, w.did[8:])
	}
}

func TestIndependentStepsRunAtOnce(t *testing.T) {
	s := newSolver(t)
	w := &worker{gates: map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}, began: make(chan string)}
	r := s.Start(t.Context(), &graph.Graph{Steps: []graph.Step{run(graph.None, "wait", "a"), run(graph.None, "wait", "b")}}, w, Options{})
	<-w.began
	<-w.began // both before either may go on
	close(w.gates["a"])
	close(w.gates["b"])
	if _, err := r.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTwoBuildsShareAStep(t *testing.T) {
	s := newSolver(t)
	w := &worker{gates: map[string]chan struct{}{"a": make(chan struct{})}, began: make(chan string, 2)}
	g := &graph.Graph{Steps: []graph.Step{run(graph.None, "wait", "a")}}
	ctx, cancel := context.WithCancel(t.Context())
	r1 := s.Start(ctx, g, w, Options{Build: "1"})
	<-w.began
	r2 := s.Start(t.Context(), g, w, Options{Build: "2"})
	waiting(t, s, 2)
	cancel() // the first build leaves, the work goes on for the second
	if _, err := r1.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled build: %v", err)
	}
	close(w.gates["a"])
	if _, err := r2.Wait(); err != nil {
		t.Error(err)
	}
	if len(w.did) != 1 {
		t.Errorf("did %v", w.did)
	}
	var text string
	r2.Tasks[0].Log.Follow(t.Context(), func(p []byte) { text += string(p) })
	if text != "doing [wait a]\n" {
		t.Errorf("the second build saw %q", text)
	}
}

// waiting polls until n tasks wait for the only flight.
func waiting(t *testing.T, s *Solver, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		for _, f := range s.flights {
			if f.waiters == n {
				s.mu.Unlock()
				return
			}
		}
		s.mu.Unlock()
	}
	t.Fatal("nobody joined")
}

func TestCancelEndsTheWork(t *testing.T) {
	s := newSolver(t)
	w := &worker{began: make(chan string)}
	ctx, cancel := context.WithCancel(t.Context())
	r := s.Start(ctx, &graph.Graph{Steps: []graph.Step{run(graph.None, "wait", "for ever")}}, w, Options{})
	<-w.began
	cancel()
	if _, err := r.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(s.flights) != 0 {
		t.Error("flight left")
	}
}

func TestFailureNamesItsStepAndEndsOthers(t *testing.T) {
	s := newSolver(t)
	w := &worker{began: make(chan string, 1)}
	r := s.Start(t.Context(), &graph.Graph{Steps: []graph.Step{
		run(graph.None, "wait", "x"), run(graph.None, "fail"), run(1, "after")}}, w, Options{})
	step, err := r.Wait()
	if step != 1 || err == nil || err.Error() != "it failed" {
		t.Errorf("step %d: %v", step, err)
	}
}

func TestLogClipsWhatNobodyReads(t *testing.T) {
	l := NewLog()
	for range 10 {
		l.Write(make([]byte, logLimit/5))
	}
	l.Write([]byte("end\xe2\x82"))
	l.Write([]byte("\xac"))
	l.Close()
	var n int
	var last []byte
	l.Follow(t.Context(), func(p []byte) { n += len(p); last = p })
	if n > logLimit+100 || string(last[len(last)-6:]) != "end€" {
		t.Errorf("%d bytes, ending in %q", n, last[len(last)-6:])
	}
}
