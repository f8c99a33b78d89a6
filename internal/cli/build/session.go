package build

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/moby/moby/client"

	"tare/internal/base/listing"
	"tare/internal/base/session"
)

// errNoSessions says that the engine is not one of ours.
var errNoSessions = errors.New("the engine knows no build sessions")

// local is the context's folder, once it was looked at.
type local struct {
	f     *folder
	list  []byte
	paths func() map[listing.Digest]string
}

// lookAt walks the context. What it learns is remembered.
func lookAt(ctx context.Context, dir string, patterns []string) (*local, error) {
	m := memoryOf(dir)
	old, trust := m.load(patterns)
	f, err := look(ctx, dir, patterns, old, trust)
	if err != nil {
		return nil, err
	}
	if f.fresh || len(f.hash) > 0 {
		m.save(f.root, patterns)
	}
	return &local{f: f, list: f.list().Bytes(), paths: sync.OnceValue(f.paths)}, nil
}

func (l *local) digest() string {
	sum := sha256.Sum256(l.list)
	return hex.EncodeToString(sum[:])
}

// talk is a session from the client's side.
type talk struct {
	contexts map[string]*local
	begun    func() // called once the engine has taken the session
	secrets  map[string]secret
	agents   map[string]string // sockets
	output   func(io.Reader)   // takes the result's files
}

// start opens a session and begins the build. The answer is the stream of messages, as POST /build's.
func (t *talk) start(ctx context.Context, c *client.Client, o client.ImageBuildOptions, b session.Begin) (io.ReadCloser, error) {
	q, err := query(o)
	if err != nil {
		return nil, err
	}
	meta := http.Header{}
	if len(o.AuthConfigs) > 0 {
		data, err := json.Marshal(o.AuthConfigs)
		if err != nil {
			return nil, err
		}
		meta.Set("X-Registry-Config", base64.URLEncoding.EncodeToString(data))
	}
	conn, err := c.DialHijack(ctx, session.Path+"?"+q.Encode(), session.Protocol, meta)
	if err != nil {
		var gone net.Error
		if ctx.Err() != nil || errors.As(err, &gone) {
			return nil, err
		}
		return nil, errNoSessions
	}
	mux, err := session.Client(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { mux.Close() })
	raw, err := mux.Open()
	if err != nil {
		mux.Close()
		return nil, err
	}
	control := session.NewConn(raw)
	if err := control.WriteLine(b); err != nil {
		mux.Close()
		return nil, err
	}
	go func() {
		for {
			s, err := mux.Accept()
			if err != nil {
				return
			}
			go t.answer(session.NewConn(s))
		}
	}()
	t.begun()
	a := &answer{ctx: ctx, control: control, close: func() error { stop(); return mux.Close() }}
	if err := a.next(); err != nil && err != io.EOF { // an error before the first message is no part of the story
		a.Close()
		return nil, err
	}
	return a, nil
}

// answer is the control stream without its End.
type answer struct {
	ctx     context.Context
	control *session.Conn
	rest    []byte
	ended   bool
	close   func() error
}

func (a *answer) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if err := a.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// next reads a line; io.EOF is behind the End.
func (a *answer) next() error {
	if a.ended {
		return io.EOF
	}
	var line json.RawMessage
	if err := a.control.ReadLine(&line); err != nil {
		if a.ctx.Err() != nil {
			return a.ctx.Err()
		}
		return fmt.Errorf("lost the engine: %w", err)
	}
	if !bytes.HasPrefix(line, []byte(`{"End":true`)) {
		a.rest = append(line, '\n')
		return nil
	}
	var end session.End
	if err := json.Unmarshal(line, &end); err != nil {
		return err
	}
	a.ended = true
	if end.Error != "" {
		return engineError(end.Error)
	}
	return io.EOF
}

func (a *answer) Close() error { return a.close() }

// engineError is an error that the engine had before the build began.
type engineError string

func (e engineError) Error() string { return "Error response from daemon: " + string(e) }

// answer gives the engine what it wants.
func (t *talk) answer(s *session.Conn) {
	defer s.Close()
	var want session.Want
	if s.ReadLine(&want) != nil {
		return
	}
	have := func(err error) bool {
		h := session.Have{}
		if err != nil {
			h.Error = err.Error()
		}
		return s.WriteLine(h) == nil && err == nil
	}
	switch want.Kind {
	case session.Listing:
		if l := t.contexts[want.Context]; l == nil {
			have(fmt.Errorf("there is no build context %q", want.Context))
		} else if have(nil) {
			s.Write(l.list)
		}
	case session.Files:
		if l := t.contexts[want.Context]; l == nil {
			have(fmt.Errorf("there is no build context %q", want.Context))
		} else if have(nil) {
			l.send(s, want.Count)
		}
	case session.Secret:
		data, err := t.secret(want.ID)
		if have(err) {
			s.Write(data)
		}
	case session.SSH:
		agent, err := net.Dial("unix", t.agents[want.ID])
		if !have(err) {
			return
		}
		defer agent.Close()
		go func() {
			io.Copy(agent, s)
			agent.Close()
		}()
		io.Copy(s, agent)
	case session.Output:
		if have(nil) {
			t.output(s)
		}
	default:
		have(fmt.Errorf("this client has no %s to give", want.Kind))
	}
}

// send answers digests with contents.
func (l *local) send(s *session.Conn, count int) {
	sums := make([]listing.Digest, count)
	for i := range sums {
		if _, err := io.ReadFull(s, sums[i][:]); err != nil {
			return
		}
	}
	paths := l.paths()
	buf := make([]byte, 256<<10)
	// What is small goes out together.
	w := bufio.NewWriterSize(s, 256<<10)
	for _, sum := range sums {
		if l.sendOne(w, paths[sum], buf) != nil {
			return
		}
	}
	w.Flush()
}

// sendOne sends length and content. A file that can't be read has no length, one that shrank is cut off: the engine notices both.
func (l *local) sendOne(w *bufio.Writer, name string, buf []byte) error {
	var head [8]byte
	file, err := l.f.open(name)
	if err != nil {
		binary.BigEndian.PutUint64(head[:], ^uint64(0))
		_, err = w.Write(head[:])
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(head[:], uint64(info.Size()))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(file, info.Size())}, buf)
	if err == nil && n < info.Size() {
		err = io.ErrUnexpectedEOF
	}
	return err
}
