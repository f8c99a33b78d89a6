// Package solve does the steps of a graph, each when its inputs are ready: from the cache where
// it can, else by a Worker.
//
//	task     a step of one build: waits for its inputs, then has a result
//	key      what decides a result: the layers below, the step's definition, the layers and digests of what it reads
//	flight   the work for a key; tasks of several builds that want the same key share one
//
// Keys are made of the contents of the layers below, not of how they were made: a
// step that is run again and makes the same layer invalidates nothing.
package solve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/base/trace"
	"tare/internal/build/cache"
	"tare/internal/build/graph"
)

// ErrLost matches the error of a Do whose own build went away; others who wait for the key do the step themselves.
var ErrLost = errors.New("the client of the build is gone")

// Layer is what a step made: no DiffID says that it changed nothing.
type Layer struct {
	DiffID digest.Digest
	Size   int64 // bytes
	Since  time.Time
}

// Work is a step with its inputs' results: diffIDs, bottom first.
type Work struct {
	Step   graph.Step
	Parent []digest.Digest
	Inputs [][]digest.Digest
	// Since is when the oldest of the steps below began, or this one: what has this time or a later one was made by the build, at a
	// time that says nothing.
	Since time.Time
}

// Worker does the steps of one build.
type Worker interface {
	// Reads returns a digest of all that the step reads besides layers, "" for nothing.
	Reads(ctx context.Context, s graph.Step) (string, error)
	// Do executes the step; log receives its output.
	Do(ctx context.Context, w Work, log io.Writer) (Layer, error)
	// Begin is called before a Do, end after it: a Do may outlive its build while another build waits for it.
	Begin() (end func())
}

// Solver does graphs. Safe for concurrent use.
type Solver struct {
	cache *cache.Cache
	slots chan struct{} // as many steps run at once

	mu      sync.Mutex // guards flights and what is in them
	flights map[string]*flight
}

// New makes a solver.
func New(c *cache.Cache) *Solver {
	return &Solver{cache: c, slots: make(chan struct{}, max(4, 2*runtime.NumCPU())), flights: map[string]*flight{}}
}

// Options of one build.
type Options struct {
	Build   string       // names it, for pins
	NoCache bool         // look nothing up; results are stored all the same
	Fresh   map[int]bool // steps for which the same holds
}

// Result of a task.
type Result struct {
	Key     string          // "" for a base
	Layers  []digest.Digest // all, bottom first
	Added   bool            // the last of Layers is this step's
	Created time.Time       // when the step was done; zero for a base
	Took    time.Duration
	Since   time.Time // as in Work; zero for a base
	Cached  bool
}

// Task is a step of one build.
type Task struct {
	Log    *Log
	Work   Work          // as Result, valid after Done
	Reads  string        // what Worker.Reads said
	done   chan struct{} // closed when result and err are set
	result Result
	err    error
}

// Done is closed when the task has ended.
func (t *Task) Done() <-chan struct{} { return t.done }

// Result is valid after Done.
func (t *Task) Result() (Result, error) { return t.result, t.err }

// Run is a graph being solved.
type Run struct {
	Tasks []*Task // one for each step
	group sync.WaitGroup

	mu     sync.Mutex // guards below
	failed int
	err    error
}

// Wait returns when all tasks have ended: the first error and its step.
func (r *Run) Wait() (step int, err error) {
	r.group.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed, r.err
}

// Start begins to solve g. A failing step ends all others.
func (s *Solver) Start(ctx context.Context, g *graph.Graph, w Worker, o Options) *Run {
	ctx, cancel := context.WithCancel(ctx)
	r := &Run{Tasks: make([]*Task, len(g.Steps)), failed: graph.None}
	for i := range g.Steps {
		r.Tasks[i] = &Task{Log: NewLog(), done: make(chan struct{})}
	}
	for i, step := range g.Steps {
		t, ctx := r.Tasks[i], trace.Beside(ctx)
		if trace.On() {
			trace.Step(ctx, "build", "step", "", number(i, step))
		}
		r.group.Go(func() {
			defer close(t.done)
			defer t.Log.Close()
			o := o
			o.NoCache = o.NoCache || o.Fresh[i]
			if t.result, t.err = s.task(ctx, r, step, t, w, o); t.err != nil {
				r.mu.Lock()
				if r.err == nil || errors.Is(r.err, context.Canceled) && !errors.Is(t.err, context.Canceled) {
					r.failed, r.err = i, t.err
				}
				r.mu.Unlock()
				cancel()
			}
		})
	}
	go func() {
		r.group.Wait()
		cancel()
	}()
	return r
}

// number tells a step and those it waits for, as graph's golden form does.
func number(i int, step graph.Step) string {
	s := strconv.Itoa(i) + " " + graph.Kind(step.Op)
	if step.Parent != graph.None {
		s += fmt.Sprintf(" on %d", step.Parent)
	}
	if len(step.Inputs) > 0 {
		s += fmt.Sprintf(" from %v", step.Inputs)
	}
	return s
}

// task waits for the inputs, then finds or makes the result.
func (s *Solver) task(ctx context.Context, r *Run, step graph.Step, me *Task, w Worker, o Options) (Result, error) {
	log := me.Log
	if base, ok := step.Op.(graph.Base); ok {
		return Result{Layers: base.Layers}, nil
	}
	work := Work{Step: step, Inputs: make([][]digest.Digest, len(step.Inputs))}
	var parents []string
	var since time.Time
	wait := func(i int) ([]digest.Digest, error) {
		if i == graph.None {
			return nil, nil
		}
		t := r.Tasks[i]
		select {
		case <-t.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if t.err != nil {
			return nil, context.Canceled // the cause is told once, by the task that failed
		}
		if t.result.Key != "" {
			parents = append(parents, t.result.Key)
		}
		since = earlier(since, t.result.Since)
		return t.result.Layers, nil
	}
	var err error
	if work.Parent, err = wait(step.Parent); err != nil {
		return Result{}, err
	}
	for i, in := range step.Inputs {
		if work.Inputs[i], err = wait(in); err != nil {
			return Result{}, err
		}
	}
	below := work.Parent
	if c, ok := step.Op.(graph.Copy); ok && c.Alone() {
		work.Parent = nil
	}
	reads, err := w.Reads(ctx, step)
	if err != nil {
		return Result{}, err
	}
	me.Work, me.Reads = work, reads
	key, err := Key(work, reads)
	if err != nil {
		return Result{}, err
	}
	if !o.NoCache {
		if rec, ok := s.cache.Get(key, o.Build); ok {
			trace.Step(ctx, "build", "cached", "step", step.About)
			return made(below, since, rec, true), nil
		}
	}
	name := key
	if o.NoCache {
		name = o.Build + " " + key // shares with itself only
	}
	var mine atomic.Bool
	do := func(ctx context.Context, log *Log) (cache.Record, error) {
		mine.Store(true)
		begun := time.Now()
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return cache.Record{}, ctx.Err()
		}
		if !o.NoCache {
			if rec, ok := s.cache.Get(key, pin(name)); ok { // finished between the look-up and the flight
				return rec, nil
			}
		}
		defer w.Begin()()
		work := work
		work.Since = earlier(since, begun.Add(-clockLag))
		l, err := w.Do(ctx, work, log)
		if err != nil {
			return cache.Record{}, err
		}
		rec := cache.Record{Key: key, Parents: parents, Kind: graph.Kind(step.Op), About: step.About,
			Layer: l.DiffID, Size: l.Size, Created: time.Now(), Took: time.Since(begun), Since: earlier(work.Since, l.Since)}
		return rec, s.cache.Put(rec, pin(name))
	}
	rec, err := s.fly(ctx, name, o.Build, log, do)
	for errors.Is(err, ErrLost) && !mine.Load() && ctx.Err() == nil {
		rec, err = s.fly(ctx, name, o.Build, log, do)
	}
	if err != nil {
		return Result{}, err
	}
	return made(below, since, rec, false), nil
}

// clockLag is how far the kernel's time for files may be behind the clock.
const clockLag = 20 * time.Millisecond

// earlier is the earlier of two times, of which a zero one does not count.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// made puts what a step made on the layers below it.
func made(below []digest.Digest, since time.Time, rec cache.Record, cached bool) Result {
	r := Result{Key: rec.Key, Layers: below, Created: rec.Created, Took: rec.Took, Since: earlier(since, rec.Since), Cached: cached}
	if rec.Layer != "" {
		r.Layers, r.Added = append(slices.Clone(below), rec.Layer), true
	}
	return r
}

// Key is the hash of all that decides a step's result.
func Key(w Work, reads string) (string, error) {
	data, err := json.Marshal(struct {
		Kind   string
		Op     graph.Op
		Parent []digest.Digest
		Inputs [][]digest.Digest
		Reads  string
		Epoch  int64
	}{graph.Kind(w.Step.Op), w.Step.Op, w.Parent, w.Inputs, reads, w.Step.Epoch})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
