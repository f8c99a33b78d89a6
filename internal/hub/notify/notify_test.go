package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tare/internal/hub/config"
)

func TestDeliveriesComeInOrderAndSurviveFailureAndRestart(t *testing.T) {
	root := t.TempDir()
	secret := filepath.Join(root, "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan Event, 10)
	broken := make(chan bool, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-broken:
			w.WriteHeader(503)
			return
		default:
		}
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte("s3cret"))
		mac.Write(body)
		if r.Header.Get("X-Registry-Signature-256") != "sha256="+hex.EncodeToString(mac.Sum(nil)) || r.Header.Get("Content-Type") != mediaType || r.Header.Get("X-Key") != "v" {
			t.Errorf("headers %v", r.Header)
		}
		var e envelope
		if err := json.Unmarshal(body, &e); err != nil || len(e.Events) != 1 || e.Events[0].ID != r.Header.Get("X-Registry-Delivery") {
			t.Errorf("%v: %s", err, body)
			return
		}
		got <- e.Events[0]
	}))
	defer srv.Close()
	hooks := []config.Webhook{{Name: "a", URL: srv.URL, SecretFile: secret, Headers: map[string]string{"X-Key": "v"}, Events: []string{"push"}, Repositories: []string{"x/*"},
		Timeout: config.Duration(5 * time.Second), GiveUp: config.Duration(time.Hour)}}
	open := func() *Sender {
		s, err := Open(root, hooks, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	event := func(action, repository, tag string) Event {
		return Event{Action: action, Target: Target{Repository: repository, Tag: tag, Size: 5}}
	}
	broken <- true
	s := open()
	for _, e := range []Event{event("push", "x/a", "1"), event("pull", "x/a", "no"), event("push", "y", "no"), event("push", "x/a", "2")} {
		if err := s.Send(e); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"1", "2"} {
		if e := <-got; e.Target.Tag != want || e.Target.Length != 5 || e.Timestamp.IsZero() {
			t.Errorf("%+v, want tag %s", e, want)
		}
	}
	delivered(t, s)
	s.Close()
	for range 90 { // as long as this lasts, nothing gets through
		broken <- true
	}
	s = open()
	s.Send(event("push", "x/a", "3"))
	s.Send(event("push", "x/a", "4"))
	s.Close()
	for len(broken) > 0 {
		<-broken
	}
	s = open()
	defer s.Close()
	for _, want := range []string{"3", "4"} {
		if e := <-got; e.Target.Tag != want {
			t.Errorf("after a restart: %+v, want tag %s", e, want)
		}
	}
	delivered(t, s)
	if left, _ := filepath.Glob(filepath.Join(root, "webhooks/a/*")); len(left) > 0 {
		t.Error("left", left)
	}
}

// delivered waits until nothing is under way; before that a restart delivers again.
func delivered(t *testing.T, s *Sender) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); s.Waiting() > 0; {
		if time.Now().After(end) {
			t.Fatal("still waiting:", s.Waiting())
		}
	}
}
