package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"tare/internal/base/fault"
	"tare/internal/base/listing"
	"tare/internal/build/solve"
)

// folder is a Peer: a flat folder of files, name → text.
type folder struct {
	files  map[string]string
	lists  int      // listings asked for
	sent   []string // contents asked for
	lie    map[string]string
	lost   bool
	asked  chan struct{} // closed when files are first asked for
	secret map[string]string
}

func (f *folder) listing() []byte {
	w := listing.NewWriter(0)
	for _, n := range slices.Sorted(func(yield func(string) bool) {
		for n := range f.files {
			if !yield(n) {
				return
			}
		}
	}) {
		w.Add(&listing.Entry{Kind: listing.File, Name: n, Mode: 0o644, Size: int64(len(f.files[n])), Sum: sha256.Sum256([]byte(f.files[n]))})
	}
	return w.Bytes()
}

func (f *folder) Listing(context.Context, string) ([]byte, error) {
	f.lists++
	return f.listing(), nil
}

func (f *folder) Files(ctx context.Context, _ string, sums []listing.Digest, got func(listing.Digest, int64, io.Reader) error) error {
	if f.asked != nil {
		close(f.asked)
		<-ctx.Done()
	}
	if f.lost {
		return solve.ErrLost
	}
	for _, sum := range sums {
		for n, text := range f.files {
			if sha256.Sum256([]byte(text)) != sum {
				continue
			}
			f.sent = append(f.sent, n)
			if l, ok := f.lie[n]; ok {
				text = l
			}
			if err := got(sum, int64(len(text)), strings.NewReader(text)); err != nil {
				return err
			}
			break
		}
	}
	slices.Sort(f.sent)
	return nil
}

func (f *folder) Secret(_ context.Context, id string) ([]byte, error) {
	if s, ok := f.secret[id]; ok {
		return []byte(s), nil
	}
	return nil, fault.NotFound("no secret %s", id)
}

func (f *folder) Output(context.Context) (io.WriteCloser, error) {
	return nil, fault.Unsupported("no output")
}

func (f *folder) SSH(context.Context, string) (net.Conn, error) {
	return nil, fault.NotFound("no agent")
}

func (f *folder) request(dockerfile string) Request {
	sum := sha256.Sum256(f.listing())
	f.lists, f.sent = 0, nil
	return Request{Peer: f, Digest: hex.EncodeToString(sum[:]), Dockerfile: "Dockerfile", Text: []byte(dockerfile)}
}

func TestOnlyWhatIsNewTravels(t *testing.T) {
	w := newWorld(t)
	f := &folder{files: map[string]string{"a": "text of a", "b": "text of b", "unused": "never copied", "empty": ""}}
	const df = "FROM scratch\nCOPY a b empty /\n"
	build := func(lists int, sent ...string) {
		t.Helper()
		req := f.request(df)
		if _, err := w.s.Build(t.Context(), req, &printed{}); err != nil {
			t.Fatal(err)
		}
		if f.lists != lists || !slices.Equal(f.sent, sent) {
			t.Errorf("listings %d, sent %q, want %d and %q", f.lists, f.sent, lists, sent)
		}
	}
	build(1, "a", "b")
	build(0)
	f.files["b"] = "other text"
	build(1, "b")
	f.files["unused"] = "something else"
	build(1)
	f.files["c"] = f.files["a"] // a new name for a content that is here
	delete(f.files, "a")
	build2 := f.request("FROM scratch\nCOPY c /\n")
	if _, err := w.s.Build(t.Context(), build2, &printed{}); err != nil || len(f.sent) > 0 {
		t.Errorf("%v, sent %q", err, f.sent)
	}
	f.files["a"] = f.files["c"]
	w.s.Close()
	w.open() // names are forgotten with the engine, contents are not
	f.files["b"] = "third text"
	build(1, "b")
}

func TestPeerThatLies(t *testing.T) {
	w := newWorld(t)
	f := &folder{files: map[string]string{"a": "text of a"}, lie: map[string]string{"a": "else"}}
	_, err := w.s.Build(t.Context(), f.request("FROM scratch\nCOPY a /\n"), &printed{})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "changed while it was sent") {
		t.Error(err)
	}
	req := f.request("FROM scratch\n")
	req.Digest = strings.Repeat("0", 64)
	if _, err := w.s.Build(t.Context(), req, &printed{}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	f.lie = nil
	if _, err := w.s.Build(t.Context(), f.request("FROM scratch\nCOPY a /\n"), &printed{}); err != nil {
		t.Error(err)
	}
}

// A build that waits for a step of another one does it itself when the other's client goes away.
func TestPeerThatGoesAway(t *testing.T) {
	w := newWorld(t)
	first := &folder{files: map[string]string{"a": "text of a"}, asked: make(chan struct{}), lost: true}
	second := &folder{files: first.files}
	const df = "FROM scratch\nCOPY a /\n"
	ctx, cancel := context.WithCancel(t.Context())
	one, two := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := w.s.Build(ctx, first.request(df), &printed{})
		one <- err
	}()
	<-first.asked
	go func() {
		_, err := w.s.Build(t.Context(), second.request(df), &printed{})
		two <- err
	}()
	cancel()
	if err := <-one; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-two; err != nil {
		t.Error(err)
	}
}

func FuzzListing(f *testing.F) {
	f.Add((&folder{files: map[string]string{"a": "x", "b": ""}}).listing())
	f.Fuzz(func(t *testing.T, data []byte) {
		w := listing.NewWriter(0)
		if listing.Decode(data, func(e *listing.Entry) error { w.Add(e); return nil }, w.Up) == nil && !bytes.Equal(data, w.Bytes()) {
			t.Error("two forms of one listing")
		}
	})
}
