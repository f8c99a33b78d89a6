// Package health probes containers that have a health check.
//
// Each probe is an exec in the container. The status begins as starting; a probe that succeeds makes it healthy,
// Retries failures in a row make it unhealthy; within the start period failures don't count until
// the first success. The last five results are kept with the container. A paused container is not probed.
//
// The service learns of starts and ends from the event bus, and looks at all containers again if it fell behind.
package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/event"
	enginecontainer "tare/internal/engine/container"
)

// Docker's defaults.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
	keptResults          = 5
	keptOutput           = 4096 // bytes of a probe's output
)

// execs is what probing needs of the exec service.
type execs interface {
	Create(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error)
	Start(ctx context.Context, id string, req container.ExecStartRequest) (*enginecontainer.Stream, error)
	Wait(ctx context.Context, id string) (int, error)
	Kill(ctx context.Context, id string) error
}

// containers is what it needs of the container service (its Access).
type containers interface {
	Probed(id string) (enginecontainer.Probed, bool)
	SetHealth(id string, startedAt time.Time, h container.Health) bool
	IDs() []string
}

// Service probes the containers of one engine.
type Service struct {
	containers containers
	execs      execs
	bus        *event.Bus
	stop       context.CancelFunc
	done       sync.WaitGroup

	mu     sync.Mutex // guards all below
	probes map[string]context.CancelFunc
}

// New begins to watch and probe.
func New(c containers, x execs, bus *event.Bus) *Service {
	ctx, stop := context.WithCancel(context.Background())
	s := &Service{containers: c, execs: x, bus: bus, stop: stop, probes: map[string]context.CancelFunc{}}
	sub := bus.Subscribe()
	for _, id := range c.IDs() {
		s.begin(ctx, id)
	}
	s.done.Go(func() { s.watch(ctx, sub) })
	return s
}

// Close ends all probing.
func (s *Service) Close() {
	s.stop()
	s.done.Wait()
}

func (s *Service) watch(ctx context.Context, sub *event.Subscription) {
	defer func() { sub.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-sub.C:
			if !ok { // cut off: look at everything again
				sub = s.bus.Subscribe()
				s.endAll()
				for _, id := range s.containers.IDs() {
					s.begin(ctx, id)
				}
				continue
			}
			if e.Type != "container" {
				continue
			}
			switch e.Action {
			case "start", "unpause":
				s.begin(ctx, e.ID)
			case "die", "pause":
				s.end(e.ID)
			}
		}
	}
}

// begin probes a container if it wants it and is not probed yet.
func (s *Service) begin(ctx context.Context, id string) {
	p, ok := s.containers.Probed(id)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.probes[id]; ok {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	s.probes[id] = cancel
	s.done.Go(func() {
		defer cancel()
		s.loop(ctx, p)
	})
}

func (s *Service) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, ok := s.probes[id]; ok {
		cancel()
		delete(s.probes, id)
	}
}

func (s *Service) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, cancel := range s.probes {
		cancel()
		delete(s.probes, id)
	}
}

func or(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func (s *Service) loop(ctx context.Context, p enginecontainer.Probed) {
	h := p.Health
	for {
		interval := or(p.Config.Interval, defaultInterval)
		if h.Status == container.Starting && p.Config.StartPeriod > 0 && time.Since(p.StartedAt) < p.Config.StartPeriod {
			interval = min(or(p.Config.StartInterval, defaultStartInterval), interval)
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		r, err := s.probe(ctx, p)
		if ctx.Err() != nil || errors.Is(err, errGone) {
			return
		}
		h = next(h, r, p)
		if !s.containers.SetHealth(p.ID, p.StartedAt, h) {
			return
		}
	}
}

// next is the health after one more result.
func next(h container.Health, r container.HealthcheckResult, p enginecontainer.Probed) container.Health {
	h.Log = append(h.Log[:len(h.Log):len(h.Log)], &r)
	if n := len(h.Log); n > keptResults {
		h.Log = h.Log[n-keptResults:]
	}
	if r.ExitCode == 0 {
		h.Status, h.FailingStreak = container.Healthy, 0
		return h
	}
	if h.Status == container.Starting && r.Start.Sub(p.StartedAt) < p.Config.StartPeriod {
		return h // not counted
	}
	h.FailingStreak++
	retries := p.Config.Retries
	if retries == 0 {
		retries = defaultRetries
	}
	if h.FailingStreak >= retries {
		h.Status = container.Unhealthy
	}
	return h
}

var errGone = errors.New("the container ended")

// probe runs the check once.
func (s *Service) probe(ctx context.Context, p enginecontainer.Probed) (container.HealthcheckResult, error) {
	r := container.HealthcheckResult{Start: time.Now()}
	finish := func(code int, output string) (container.HealthcheckResult, error) {
		r.End, r.ExitCode, r.Output = time.Now(), code, output
		return r, nil
	}
	id, err := s.execs.Create(ctx, p.ID, container.ExecCreateRequest{Cmd: command(p), AttachStdout: true, AttachStderr: true})
	if err != nil {
		if _, runs := s.containers.Probed(p.ID); !runs {
			return r, errGone
		}
		return finish(-1, err.Error())
	}
	stream, err := s.execs.Start(ctx, id, container.ExecStartRequest{})
	if err != nil {
		if _, runs := s.containers.Probed(p.ID); !runs {
			return r, errGone
		}
		return finish(-1, err.Error())
	}
	defer stream.Conn.Close()
	timeout := or(p.Config.Timeout, defaultTimeout)
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	output := make(chan string, 1)
	go func() { output <- read(stream.Conn) }()
	code, err := s.execs.Wait(limited, id)
	if err != nil {
		s.execs.Kill(context.WithoutCancel(ctx), id)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		return finish(-1, "Health check exceeded timeout ("+timeout.String()+")")
	}
	select {
	case o := <-output:
		return finish(code, o)
	case <-limited.Done(): // a child of the probe holds the output open
		return finish(code, "")
	}
}

func command(p enginecontainer.Probed) []string {
	test := p.Config.Test
	if test[0] == "CMD-SHELL" {
		shell := p.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(shell[:len(shell):len(shell)], test[1:]...)
	}
	return test[1:]
}

// read collects the multiplexed output, of which it keeps the beginning.
func read(r io.Reader) string {
	var out bytes.Buffer
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			break
		}
		n := int64(binary.BigEndian.Uint32(header[4:]))
		room := min(n, int64(max(0, keptOutput-out.Len())))
		if _, err := io.CopyN(&out, r, room); err != nil {
			break
		}
		if _, err := io.CopyN(io.Discard, r, n-room); err != nil {
			break
		}
	}
	if out.Len() >= keptOutput {
		return out.String() + "..."
	}
	return out.String()
}
