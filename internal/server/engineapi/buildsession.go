package engineapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/yamux"
	buildtypes "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"

	"tare/internal/base/fault"
	"tare/internal/base/listing"
	"tare/internal/base/session"
	"tare/internal/build"
	"tare/internal/build/solve"
)

// session runs a build that is a conversation with `tare build`.
func (d buildDoor) session(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") != session.Protocol {
		return fault.Invalid("a build session needs the header Upgrade: %s", session.Protocol)
	}
	req, err := buildRequest(r)
	if err != nil {
		return err
	}
	conn, err := upgrade(w, session.Protocol)
	if err != nil {
		return err
	}
	mux, err := session.Server(conn)
	if err != nil {
		conn.Close()
		return nil
	}
	defer mux.Close()
	raw, err := mux.Accept()
	if err != nil {
		return nil
	}
	// A request whose connection was taken over does not notice that the client went away.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-mux.CloseChan():
			cancel()
		case <-stop:
		}
	}()
	control := session.NewConn(raw)
	var begin session.Begin
	if err := control.ReadLine(&begin); err != nil {
		return nil
	}
	out := &controlStream{c: control}
	if !req.Quiet {
		tellUnused(r, out)
	}
	id, err := d.converse(ctx, req, begin, &peer{mux: mux}, out)
	if err == nil && id != "" && req.Quiet {
		out.Stream(id + "\n")
	} else if err == nil && id != "" {
		out.send(message{Aux: buildtypes.Result{ID: id}})
	}
	out.end(err)
	// Closing the session at once would cut off what is on its way.
	control.Close()
	io.Copy(io.Discard, control)
	return nil
}

func (d buildDoor) converse(ctx context.Context, req build.Request, begin session.Begin, p *peer, out build.Output) (string, error) {
	req.Context, req.Peer = nil, p
	main, ok := begin.Contexts[""]
	if !ok || begin.Dockerfile == nil {
		return "", fault.Invalid("a build session needs a context and a Dockerfile")
	}
	req.Contexts = map[string]build.Context{}
	for name, c := range begin.Contexts {
		if name != "" {
			req.Contexts[strings.ToLower(name)] = build.Context{Digest: c.Digest, Image: c.Image}
		}
	}
	p.secrets, p.agents = begin.Secrets, begin.SSH
	req.Ignore, req.Origin, req.Allow = begin.Ignore, begin.Origin, begin.Options.Allow
	req.Explain, req.NoCacheFilter, req.Files, req.Check = begin.Options.Explain, begin.Options.NoCacheFilter, begin.Options.Files, begin.Options.Check
	req.Digest, req.Dockerfile, req.Text = main.Digest, begin.Dockerfile.Name, begin.Dockerfile.Text
	if req.Quiet {
		out = &kept{}
	}
	id, err := d.s.Build(ctx, req, out)
	return id.String(), err
}

// upgrade turns the request's connection over to another protocol.
func upgrade(w http.ResponseWriter, protocol string) (net.Conn, error) {
	h := w.Header().Clone()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fault.Internal("cannot take over the connection: %w", err)
	}
	begin(w)
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", protocol)
	h.Del("Content-Type")
	h.Write(&head)
	head.WriteString("\r\n")
	if _, err := conn.Write(head.Bytes()); err != nil {
		conn.Close()
		return nil, err
	}
	if n := rw.Reader.Buffered(); n > 0 { // the client may have sent ahead
		ahead, _ := rw.Reader.Peek(n)
		return &readAhead{Conn: conn, r: io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), conn)}, nil
	}
	return conn, nil
}

// readAhead is a connection of which something was read already.
type readAhead struct {
	net.Conn
	r io.Reader
}

func (c *readAhead) Read(p []byte) (int, error) { return c.r.Read(p) }

// controlStream is a session's control stream as a build's Output.
type controlStream struct {
	mu   sync.Mutex // guards all below
	c    *session.Conn
	said bool
	dead error
}

func (s *controlStream) send(m message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = true
	s.write(m)
}

func (s *controlStream) write(v any) {
	if s.dead != nil {
		return
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if s.dead = enc.Encode(v); s.dead == nil {
		_, s.dead = s.c.Write(buf.Bytes())
	}
}

func (s *controlStream) Stream(text string) { s.send(message{Stream: text}) }

func (s *controlStream) Status(id, action string, current, total int64) {
	m := message{ID: id, Status: action}
	if id != "" {
		m.Progress = &jsonstream.Progress{Current: current, Total: total}
	}
	s.send(m)
}

// end tells how the build ended: an error before the first message as HTTP would have, a later one as a message.
func (s *controlStream) end(err error) {
	end := session.End{End: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil && s.said:
		m := message{Detail: &jsonstream.Error{Message: err.Error()}, Error: err.Error()}
		var code interface{ ExitCode() int }
		if errors.As(err, &code) {
			m.Detail.Code = code.ExitCode()
		}
		s.write(m)
	case err != nil:
		end.Status, end.Error = statusOf(err), err.Error()
	}
	s.write(end)
}

// peer implements build.Peer.
type peer struct {
	mux             *yamux.Session
	secrets, agents []string // ids that the client has
}

// want opens a stream and reads the client's Have.
func (p *peer) want(ctx context.Context, want session.Want, ask []byte) (*session.Conn, error) {
	raw, err := p.mux.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", solve.ErrLost, err)
	}
	s := session.NewConn(raw)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	if err = s.WriteLine(want); err == nil && len(ask) > 0 {
		_, err = s.Write(ask)
	}
	var have session.Have
	if err == nil {
		err = s.ReadLine(&have)
	}
	stop()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("%w: %w", solve.ErrLost, err)
	case have.Error != "":
		err = fault.NotFound("%s", have.Error)
	default:
		return s, nil
	}
	s.Close()
	return nil, err
}

// maxListing is the longest listing that is read, in bytes: some millions of files.
const maxListing = 512 << 20

func (p *peer) Listing(ctx context.Context, name string) ([]byte, error) {
	return p.all(ctx, session.Want{Kind: session.Listing, Context: name}, maxListing)
}

// all reads an answer to its end.
func (p *peer) all(ctx context.Context, want session.Want, limit int64) ([]byte, error) {
	s, err := p.want(ctx, want, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { p.mux.Close() })()
	data, err := io.ReadAll(io.LimitReader(s, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", solve.ErrLost, err)
	}
	if int64(len(data)) > limit {
		return nil, fault.Invalid("the client sent a %s of more than %d bytes", want.Kind, limit)
	}
	return data, nil
}

func (p *peer) Files(ctx context.Context, name string, sums []listing.Digest, got func(listing.Digest, int64, io.Reader) error) error {
	ask := make([]byte, 0, len(sums)*len(listing.Digest{}))
	for _, s := range sums {
		ask = append(ask, s[:]...)
	}
	s, err := p.want(ctx, session.Want{Kind: session.Files, Context: name, Count: len(sums)}, ask)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, sum := range sums {
		if err := ctx.Err(); err != nil {
			return err
		}
		var head [8]byte
		if _, err := io.ReadFull(s, head[:]); err != nil {
			return fmt.Errorf("%w: %w", solve.ErrLost, err)
		}
		if err := got(sum, int64(binary.BigEndian.Uint64(head[:])), s); err != nil {
			return err
		}
	}
	return nil
}

// maxSecret is the largest secret, in bytes.
const maxSecret = 500 << 10

func (p *peer) Secret(ctx context.Context, id string) ([]byte, error) {
	if !slices.Contains(p.secrets, id) {
		return nil, fault.NotFound("secret %s: not found", id)
	}
	return p.all(ctx, session.Want{Kind: session.Secret, ID: id}, maxSecret)
}

func (p *peer) SSH(ctx context.Context, id string) (net.Conn, error) {
	if !slices.Contains(p.agents, id) {
		return nil, fault.NotFound("no SSH key %q forwarded from the client", id)
	}
	return p.want(ctx, session.Want{Kind: session.SSH, ID: id}, nil)
}

func (p *peer) Output(ctx context.Context) (io.WriteCloser, error) {
	return p.want(ctx, session.Want{Kind: session.Output}, nil)
}
