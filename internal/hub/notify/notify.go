// Package notify tells webhooks what happens, in the envelope of Docker's registry notifications
// (application/vnd.docker.distribution.events.v1+json).
//
//	event      something that happened to a repository: push, pull, mount, delete
//	hook       an address that wants some events of some repositories
//	delivery   one event on its way to one hook
//
// A delivery is a file in ROOT/webhooks/<hook>/ until the hook has answered 2xx. It is tried again with growing pauses, also after a
// restart, in order, until the hook's giveUp has passed. A hook may get an event twice (the registry ended between
// answer and removal), never a part of one. Each delivery carries X-Registry-Delivery with the event's id, and,
// with a secret, X-Registry-Signature-256: sha256=<HMAC of the body in hex>.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tare/internal/base/files"
	"tare/internal/base/ids"
	"tare/internal/hub/config"
	"tare/internal/hub/pattern"
)

// Event is one entry of the envelope.
type Event struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    Target    `json:"target"`
	Request   Request   `json:"request"`
	Actor     Actor     `json:"actor"`
	Source    Source    `json:"source"`
}

// Target is what it happened to.
type Target struct {
	MediaType      string `json:"mediaType,omitempty"`
	Size           int64  `json:"size,omitempty"`
	Digest         string `json:"digest,omitempty"`
	Length         int64  `json:"length,omitempty"` // Size, under its older name
	Repository     string `json:"repository"`
	FromRepository string `json:"fromRepository,omitempty"`
	URL            string `json:"url,omitempty"`
	Tag            string `json:"tag,omitempty"`
}

// Request is what caused it.
type Request struct {
	ID        string `json:"id,omitempty"`
	Addr      string `json:"addr,omitempty"`
	Host      string `json:"host,omitempty"`
	Method    string `json:"method,omitempty"`
	UserAgent string `json:"useragent,omitempty"`
}

// Actor is who caused it.
type Actor struct {
	Name string `json:"name,omitempty"`
}

// Source is the registry.
type Source struct {
	Addr       string `json:"addr,omitempty"`
	InstanceID string `json:"instanceID,omitempty"`
}

type envelope struct {
	Events []Event `json:"events"`
}

const mediaType = "application/vnd.docker.distribution.events.v1+json"

// maxWaiting bounds the deliveries that wait for one hook; the oldest go first.
const maxWaiting = 100_000

// Sender delivers to all hooks. A nil Sender has none.
type Sender struct {
	log   *slog.Logger
	id    string
	hooks []*hook
	stop  context.CancelFunc
	done  sync.WaitGroup
}

type hook struct {
	config.Webhook
	dir    string
	secret []byte
	client *http.Client
	pause  func(failures int) time.Duration
	log    *slog.Logger

	mu      sync.Mutex // guards waiting
	waiting []string   // file names, oldest first
	wake    chan struct{}
}

// Open takes up what an earlier run did not deliver. No hooks give nil.
func Open(root string, hooks []config.Webhook, log *slog.Logger) (*Sender, error) {
	if len(hooks) == 0 {
		return nil, nil
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Sender{log: log, id: ids.New()[:16], stop: stop}
	for _, c := range hooks {
		h := &hook{Webhook: c, dir: filepath.Join(root, "webhooks", c.Name), wake: make(chan struct{}, 1), log: log.With("webhook", c.Name),
			client: &http.Client{Timeout: c.Timeout.Std()}, pause: pause}
		if err := h.load(); err != nil {
			stop()
			return nil, fmt.Errorf("cannot open webhook %s: %w", c.Name, err)
		}
		s.hooks = append(s.hooks, h)
	}
	for _, h := range s.hooks {
		s.done.Go(func() { h.run(ctx) })
	}
	return s, nil
}

// pause doubles from one second to five minutes.
func pause(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 10), 5*time.Minute)
}

func (h *hook) load() error {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	if err := files.Sweep(h.dir); err != nil {
		return err
	}
	if h.SecretFile != "" {
		secret, err := os.ReadFile(h.SecretFile)
		if err != nil {
			return err
		}
		h.secret = bytes.TrimSpace(secret)
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			h.waiting = append(h.waiting, e.Name())
		}
	}
	return nil
}

// Send notes an event for every hook that wants it and returns when the notes are written. id and source are filled in.
func (s *Sender) Send(e Event) error {
	if s == nil {
		return nil
	}
	if e.Timestamp.IsZero() {
		e.Timestamp = time.Now().UTC()
	}
	e.ID = ids.New()[:32]
	e.Source.InstanceID = s.id
	e.Target.Length = e.Target.Size
	var first error
	for _, h := range s.hooks {
		if !slices.Contains(h.Events, e.Action) || !pattern.Any(h.Repositories, e.Target.Repository) {
			continue
		}
		if err := h.add(e); err != nil && first == nil {
			first = fmt.Errorf("cannot note an event for webhook %s: %w", h.Name, err)
		}
	}
	return first
}

func (h *hook) add(e Event) error {
	data, err := json.Marshal(envelope{[]Event{e}})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	name := fmt.Sprintf("%019d-%s.json", time.Now().UnixNano(), e.ID)
	if err := files.Write(filepath.Join(h.dir, name), data, 0o600, files.Fast); err != nil {
		return err
	}
	h.waiting = append(h.waiting, name)
	if len(h.waiting) > maxWaiting {
		h.log.Error("too many deliveries are waiting; the oldest is dropped", "event", h.waiting[0])
		os.Remove(filepath.Join(h.dir, h.waiting[0]))
		h.waiting = h.waiting[1:]
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return nil
}

// Waiting is how many deliveries are under way.
func (s *Sender) Waiting() int {
	if s == nil {
		return 0
	}
	n := 0
	for _, h := range s.hooks {
		h.mu.Lock()
		n += len(h.waiting)
		h.mu.Unlock()
	}
	return n
}

// Close stops; what was not delivered waits for the next Open.
func (s *Sender) Close() {
	if s == nil {
		return
	}
	s.stop()
	s.done.Wait()
}

func (h *hook) next() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		return ""
	}
	return h.waiting[0]
}

func (h *hook) drop(name string) {
	os.Remove(filepath.Join(h.dir, name))
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) > 0 && h.waiting[0] == name {
		h.waiting = h.waiting[1:]
	}
}

func (h *hook) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		name := h.next()
		if name == "" {
			select {
			case <-h.wake:
			case <-ctx.Done():
			}
			continue
		}
		data, err := os.ReadFile(filepath.Join(h.dir, name))
		var e envelope
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil || len(e.Events) != 1 {
			h.log.Error("a delivery can't be read and is dropped", "file", name, "error", err)
			h.drop(name)
			continue
		}
		if err := h.deliver(ctx, e.Events[0].ID, data); err == nil {
			h.drop(name)
			failures = 0
			continue
		} else if ctx.Err() != nil {
			return
		} else if time.Since(e.Events[0].Timestamp) > h.GiveUp.Std() {
			h.log.Error("a delivery failed for too long and is dropped", "event", e.Events[0].ID, "error", err)
			h.drop(name)
			continue
		} else {
			failures++
			h.log.Warn("a delivery failed and will be repeated", "event", e.Events[0].ID, "failures", failures, "error", err)
		}
		t := time.NewTimer(h.pause(failures))
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (h *hook) deliver(ctx context.Context, id string, data []byte) error {
	rq, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(data))
	if err != nil {
		return err
	}
	rq.Header.Set("Content-Type", mediaType)
	rq.Header.Set("User-Agent", "tare-registry")
	rq.Header.Set("X-Registry-Delivery", id)
	for k, v := range h.Headers {
		rq.Header.Set(k, v)
	}
	if h.secret != nil {
		mac := hmac.New(sha256.New, h.secret)
		mac.Write(data)
		rq.Header.Set("X-Registry-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	rs, err := h.client.Do(rq)
	if err != nil {
		return err
	}
	defer rs.Body.Close()
	io.Copy(io.Discard, io.LimitReader(rs.Body, 64<<10))
	if rs.StatusCode < 200 || rs.StatusCode > 299 {
		return fmt.Errorf("%s answered %s", rq.URL.Host, rs.Status)
	}
	return nil
}
