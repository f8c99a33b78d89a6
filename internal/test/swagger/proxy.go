package swagger

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Proxy stands between clients and an engine and lets a Checker see all answers. It changes
// nothing: streams flow as they come, a half-closed connection stays half open, a client that goes away
// takes its request with it.
type Proxy struct {
	Checker *Checker
	backend string // unix socket
	server  *http.Server
	client  *http.Transport
	hijacks sync.WaitGroup
}

// NewProxy listens on the unix socket and sends requests to the engine at backend.
func NewProxy(socket, backend string) (*Proxy, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	p := &Proxy{Checker: &Checker{}, backend: backend}
	// A connection for each request: one that the engine is about to close, after an answer ahead of the request's end, is not used again.
	p.client = &http.Transport{DialContext: p.dial, DisableCompression: true, MaxIdleConnsPerHost: -1}
	p.server = &http.Server{Handler: p}
	go p.server.Serve(l)
	return p, nil
}

func (p *Proxy) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", p.backend)
}

// Close ends all connections.
func (p *Proxy) Close() {
	p.server.Close()
	p.client.CloseIdleConnections()
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" || r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, "/attach") || strings.Contains(r.URL.Path, "/exec/") && strings.HasSuffix(r.URL.Path, "/start")) {
		p.raw(w, r)
		return
	}
	rc := http.NewResponseController(w)
	rc.EnableFullDuplex()
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", "tare", ""
	res, err := p.client.RoundTrip(out)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			p.Checker.problem("%s %s: no answer: %v", r.Method, r.URL.Path, err)
		}
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	h := w.Header()
	for k, vs := range res.Header {
		h[k] = vs
	}
	w.WriteHeader(res.StatusCode)
	rc.Flush()
	body := p.Checker.Begin(Answer{r.Method, r.URL.Path, res.StatusCode, res.Header})
	buf := make([]byte, 32<<10)
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			body.Write(buf[:n])
			if _, werr := w.Write(buf[:n]); werr != nil {
				body.Close(false)
				return
			}
			rc.Flush()
		}
		if err == io.EOF {
			body.Close(true)
			return
		}
		if err != nil {
			body.Close(false)
			panic(http.ErrAbortHandler)
		}
	}
}

// raw passes bytes through, after the head of the request.
func (p *Proxy) raw(w http.ResponseWriter, r *http.Request) {
	backend, err := net.Dial("unix", p.backend)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer backend.Close()
	if err := r.Write(backend); err != nil {
		panic(http.ErrAbortHandler)
	}
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	br := bufio.NewReader(io.TeeReader(backend, client))
	res, err := http.ReadResponse(br, r)
	if err != nil {
		return
	}
	body := p.Checker.Begin(Answer{r.Method, r.URL.Path, res.StatusCode, res.Header})
	if res.StatusCode != http.StatusSwitchingProtocols && res.Header.Get("Content-Type") == "application/json" {
		_, err := io.Copy(body, res.Body)
		body.Close(err == nil)
		return
	}
	input := make(chan struct{})
	go func() {
		defer close(input)
		io.Copy(backend, rw.Reader)
		backend.(*net.UnixConn).CloseWrite()
		// A client that goes away altogether, instead of closing one direction, takes the other with it.
		awaitHangup(client.(*net.UnixConn))
		backend.Close()
	}()
	io.Copy(client, backend)
	client.Close()
	backend.Close()
	<-input
}

// awaitHangup returns when the peer, or this side, has closed both directions.
func awaitHangup(c *net.UnixConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, _ := unix.Poll(p, 0)
		return n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}
