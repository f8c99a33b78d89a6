package api

import (
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

	"tare/internal/test/harness"
)

func dialWebSocket(t *testing.T, e *harness.Engine, path, origin string) (*websocket.Conn, error) {
	t.Helper()
	conn, err := net.Dial("unix", e.Direct)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	location := &url.URL{Scheme: "ws", Host: "engine", Path: "/v1.50/containers/" + path}
	location.Path, location.RawQuery, _ = strings.Cut(location.Path, "?")
	from, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	return websocket.NewClient(&websocket.Config{Location: location, Origin: from, Version: websocket.ProtocolVersionHybi13}, conn)
}

func TestAttachByWebSocket(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	e.Docker("create", "--name", "cat", "-i", "tools", "cat")
	ws, err := dialWebSocket(t, e, "cat/attach/ws?stream=1&stdin=1&stdout=1&stderr=1", "http://engine")
	if err != nil {
		t.Fatal(err)
	}
	e.Docker("start", "cat")
	if _, err := ws.Write([]byte("in and out\n")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("in and out\n"))
	if _, err := io.ReadFull(ws, got); err != nil || string(got) != "in and out\n" {
		t.Errorf("%q, %v", got, err)
	}
	e.Docker("kill", "cat")
	if rest, err := io.ReadAll(ws); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}

	// What was said before, and both streams as one.
	e.Docker("run", "--name", "said", "tools", "echo", "once")
	ws, err = dialWebSocket(t, e, "said/attach/ws?logs=1&stdout=1&stderr=1", "http://engine")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(ws); err != nil || string(all) != "once\n" {
		t.Errorf("logs: %q, %v", all, err)
	}

	// The detach keys end the attachment, not the container.
	e.Docker("run", "-d", "--name", "tty", "-it", "tools", "cat")
	ws, err = dialWebSocket(t, e, "tty/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a", "http://engine")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ws.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, ws); err != nil {
		t.Error(err)
	}
	if state := e.Docker("inspect", "-f", "{{.State.Status}}", "tty"); state != "running" {
		t.Errorf("after the detach it is %s", state)
	}
	e.Docker("rm", "-f", "tty")
}

// A page of another site must not reach an engine through the browser of somebody who visits it.
func TestWebSocketOfAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	e.Docker("run", "-d", "--name", "one", "tools", "sleep", "1000")
	if _, err := dialWebSocket(t, e, "one/attach/ws?stream=1&stdout=1", "http://evil.example"); err == nil {
		t.Error("a page of another site attached")
	}
	conn, err := net.Dial("unix", e.Direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(t.Context(), func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, "GET /containers/one/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("without an upgrade: %s, %v", answer, err)
	}
}
