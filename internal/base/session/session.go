// Package session is how `tare build` and an engine talk during a build: a connection that both turned from HTTP
// (POST /build/session, Upgrade: tare-build) into many streams.
//
//	control   the first stream, opened by the client: a Begin line, then the engine's messages, those of POST /build, then an End
//	want      a stream that the engine opens when it needs something: a Want line, then what the kind of Want says
//
//	client                      engine
//	  ── control: Begin ───────▶        the digest of the context, the Dockerfile
//	  ◀─ want listing ──────────        only if no context of that digest is known
//	  ── the listing ──────────▶
//	  ◀─ want files: digests ───        only those that a step copies and the engine lacks
//	  ── contents ─────────────▶
//	  ◀─ messages, End ─────────
//
// Lines are JSON. The engine never opens a path of the client's, it only gets what the client sends; and it takes
// no digest on trust, only contents that have it.
package session

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"time"

	"github.com/hashicorp/yamux"
)

// Path is the door, Protocol the word behind Upgrade.
const (
	Path     = "/build/session"
	Protocol = "tare-build"
)

// Begin is the client's first line. What POST /build takes as a query stands in the URL.
type Begin struct {
	Contexts   map[string]Context // by name; "" is the build's own
	Dockerfile *File              `json:",omitempty"` // nil: it is in the context, under the query's name
	Secrets    []string           `json:",omitempty"` // ids that the client has
	SSH        []string           `json:",omitempty"` // ids of agents that the client reaches
	Ignore     []string           `json:",omitempty"` // patterns that were applied to the context
	Origin     string             `json:",omitempty"` // where the Dockerfile is: builds of one origin are compared
	Options    Options
}

// Options are what POST /build has no words for.
type Options struct {
	Explain       bool     `json:",omitempty"` // tell why steps ran
	NoCacheFilter []string `json:",omitempty"` // stages in which nothing is taken from the cache
	Allow         []string `json:",omitempty"` // entitlements
	Files         bool     `json:",omitempty"` // send the files of the result as a tar (Output), make no image
	Check         bool     `json:",omitempty"` // only lint
}

// Context is a folder of the client's.
type Context struct {
	Digest string // of its listing, in hex
	Image  string `json:",omitempty"` // or an image instead
}

// File is a file of the client's that is in no context.
type File struct {
	Name string
	Text []byte
}

// Want is the engine's line at the head of a stream it opens.
type Want struct {
	Kind    string // one of the below
	Context string `json:",omitempty"`
	ID      string `json:",omitempty"`
	Count   int    `json:",omitempty"`
}

// Kinds of Want. The client answers all with a Have line, then:
const (
	Listing = "listing" // the bytes of the context's listing, to the stream's end
	Files   = "files"   // the engine sends Count digests of 32 bytes; the client answers each with 8 bytes of length and the content
	Secret  = "secret"  // the bytes of the secret, to the stream's end
	SSH     = "ssh"     // a connection to the agent, in both directions
	Output  = "output"  // the engine sends a tar, to the stream's end
)

// Have answers a Want.
type Have struct {
	Error string `json:",omitempty"`
}

// End is the last line of the control stream.
type End struct {
	End    bool // true, to tell it from messages
	Status int  `json:",omitempty"` // of an error before the first message, as HTTP's
	Error  string
}

// Client and Server make the two sides of a session. Closing it closes the connection.
func Client(conn net.Conn) (*yamux.Session, error) { return yamux.Client(conn, config()) }

// Server is the engine's side.
func Server(conn net.Conn) (*yamux.Session, error) { return yamux.Server(conn, config()) }

func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	c.EnableKeepAlive = false // the kernel's do
	c.MaxStreamWindowSize = 4 << 20
	c.StreamOpenTimeout = 0
	c.ConnectionWriteTimeout = 10 * time.Minute // a reader that is busy is not gone
	return c
}

// Conn is one stream.
type Conn struct {
	net.Conn
	r *bufio.Reader
}

// NewConn makes a stream's lines readable.
func NewConn(c net.Conn) *Conn { return &Conn{Conn: c, r: bufio.NewReaderSize(c, 64<<10)} }

// Read reads what follows the lines.
func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// maxLine is the longest line, in bytes.
const maxLine = 32 << 20

// ReadLine decodes a line.
func (c *Conn) ReadLine(v any) error {
	var line []byte
	for {
		part, err := c.r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			return json.Unmarshal(line, v)
		}
		if err != bufio.ErrBufferFull {
			return err
		}
		if len(line) > maxLine {
			return bufio.ErrTooLong
		}
	}
}

// WriteLine sends a line.
func (c *Conn) WriteLine(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.Write(append(data, '\n'))
	return err
}
