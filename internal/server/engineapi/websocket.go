package engineapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/pkg/stdcopy"
	"golang.org/x/net/websocket"

	"tare/internal/base/fault"
	"tare/internal/engine/container"
)

// attachWebSocket is attach for browsers: what the client sends is the process's input, and binary frames bring its output,
// both streams as one.
func (d streamDoor) attachWebSocket(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return fault.Invalid("%s is for WebSockets: the request has no header Upgrade: websocket", r.URL.Path)
	}
	if err := checkOrigin(r); err != nil {
		return err
	}
	o, err := attachOptions(r)
	if err != nil {
		return err
	}
	s, err := d.s.Attach(context.WithoutCancel(r.Context()), r.PathValue("id"), o)
	if err != nil {
		return err
	}
	bridged := false
	server := websocket.Server{Handler: func(ws *websocket.Conn) {
		bridged = true
		ws.PayloadType = websocket.BinaryFrame
		bridge(ws, s, o.Stdin)
	}}
	server.ServeHTTP(hijacked{w}, r)
	if !bridged && s.Conn != nil { // no handshake
		s.Conn.Close()
	}
	return nil
}

// checkOrigin refuses requests that a page of another site makes a browser send: unlike others, browsers let any page
// open a WebSocket anywhere, so that an engine on tcp://127.0.0.1 would obey whoever its user visits.
func checkOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if u, err := url.Parse(origin); err == nil && u.Host == r.Host {
		return nil
	}
	return fault.Forbidden("a page of %s must not attach to containers of this engine (%s)", origin, r.Host)
}

// hijacked lets the WebSocket server take the connection over from behind the wrappers of the response.
type hijacked struct{ http.ResponseWriter }

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err == nil {
		begin(h.ResponseWriter)
	}
	return conn, rw, err
}

// bridge copies until the output ends, the client goes or types the detach keys.
func bridge(ws *websocket.Conn, s *container.Stream, stdin bool) {
	output := func(r io.Reader) error {
		if r == nil {
			return nil
		}
		if s.Terminal {
			_, err := io.Copy(ws, r)
			return err
		}
		_, err := stdcopy.StdCopy(ws, ws, r)
		return err
	}
	if s.Conn == nil {
		if s.Past != nil {
			_ = output(s.Past)
		}
		return
	}
	done := make(chan struct{}, 2)
	go func() {
		var to io.Writer = io.Discard
		var from io.Reader = ws
		if stdin {
			to = s.Conn
			if len(s.DetachKeys) > 0 {
				from = &keyWatch{r: ws, keys: s.DetachKeys}
			}
		}
		if _, err := io.Copy(to, from); !errors.Is(err, errDetached) {
			_, _ = io.Copy(io.Discard, ws) // the process reads no more, but its output goes on while the client is there
		}
		done <- struct{}{}
	}()
	go func() {
		var err error
		if s.Past != nil {
			err = output(s.Past)
		}
		if err == nil {
			err = output(s.Conn)
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			_ = ws.WriteClose(websocketFailed)
		}
		done <- struct{}{}
	}()
	<-done
	s.Conn.Close()
}

// websocketFailed is the code of a stream that broke (RFC 6455, 7.4.1).
const websocketFailed = 1011
