// Package wire is the protocol between the engine and the supervisor.
//
// It runs over one unix stream socket per engine, EXEC_ROOT/supervisor.sock. A
// message is a frame; frames go both ways and are never interleaved:
//
//	 0        4                       4+n
//	┌────────┬───────────────────────┐
//	│ n      │ Message as JSON       │   n: uint32, big endian, 1 … MaxFrame
//	└────────┴───────────────────────┘
//	   + descriptors (SCM_RIGHTS) that travel with the frame's bytes; Message.FDs tells how many
//
// The engine asks, the supervisor answers each request once, with the request's
// ID, in any order; exit records come unasked after Watch:
//
//	engine                                    supervisor
//	  {id 1, op watch}          ───────────▶
//	        ◀───────────  {id 1, op watch}
//	        ◀───────────  {op exit, body runtime.Exit}     all that are kept, then new ones
//	  {id 2, op create, body}   ───────────▶
//	  {id 3, op attach, body}   ───────────▶
//	        ◀───────────  {id 3, op attach, fds 1} + stream socket
//	        ◀───────────  {id 2, op create, body {pid}}
//	  {id 4, op start, body}    ───────────▶
//	        ◀───────────  {id 4, op start, error {class, message, …}}
//
// Descriptors arrive in the order of the messages that announce them, so a
// receiver keeps them in a queue and takes FDs of them for each message. A
// frame that was cut off by the end of the connection is discarded whole.
//
// The frame's JSON may gain fields: a receiver ignores those it does not know.
package wire

import (
	"encoding/binary"
	"encoding/json"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// Names of the supervisor's files in the exec root.
const (
	SocketName = "supervisor.sock" // mode 0600
	PidName    = "supervisor.pid"  // locked with flock(2) while the supervisor lives, never removed
)

// ExitBusy is the exit code of a supervisor that found another one in its exec root.
const ExitBusy = 3

// Op names what a message asks for, or answers.
type Op string

const (
	Watch    Op = "watch"    // no body; from now on Exit messages follow
	Exit     Op = "exit"     // supervisor → engine only, without ID; body runtime.Exit
	Create   Op = "create"   // runtime.Create → Pid
	Start    Op = "start"    // runtime.Ref
	Exec     Op = "exec"     // ExecBody → Pid, one descriptor if Attach was set
	Attach   Op = "attach"   // runtime.Attach → one descriptor
	Signal   Op = "signal"   // SignalBody
	Resize   Op = "resize"   // ResizeBody
	Pause    Op = "pause"    // runtime.Ref
	Resume   Op = "resume"   // runtime.Ref
	Delete   Op = "delete"   // runtime.Ref
	State    Op = "state"    // runtime.Ref → runtime.State
	List     Op = "list"     // no body → []runtime.State
	Collect  Op = "collect"  // runtime.Ref of an exec
	Shutdown Op = "shutdown" // no body
)

// MaxFrame is the largest length of a message's JSON in bytes.
const MaxFrame = 16 << 20

// header is the length of a frame's prefix in bytes.
const header = 4

// Message is one request, answer or exit record.
type Message struct {
	ID    uint64          `json:"id,omitempty"` // chosen by the asker, unique among its open requests; 0: no answer is wanted
	Op    Op              `json:"op"`
	FDs   int             `json:"fds,omitempty"` // descriptors that belong to this message
	Body  json.RawMessage `json:"body,omitempty"`
	Error *Error          `json:"error,omitempty"` // in answers only
}

// Pid answers Create and Exec.
type Pid struct {
	Pid int `json:"pid"`
}

// ExecBody is the body of Exec.
type ExecBody struct {
	Exec   runtime.Exec    `json:"exec"`
	Attach *runtime.Attach `json:"attach,omitempty"` // connect this stream before the exec
}

// SignalBody is the body of Signal.
type SignalBody struct {
	Ref    runtime.Ref `json:"ref"`
	Signal int         `json:"signal"`
}

// ResizeBody is the body of Resize.
type ResizeBody struct {
	Ref    runtime.Ref `json:"ref"`
	Width  uint16      `json:"width"`
	Height uint16      `json:"height"`
}

// Append adds m's frame to buf. It fails if a body is no JSON or the frame is too long.
func Append(buf []byte, m *Message) ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return buf, fault.Internal("cannot encode %s message: %w", m.Op, err)
	}
	if len(data) > MaxFrame {
		return buf, fault.Invalid("%s message of %d bytes is longer than the %d that the supervisor takes", m.Op, len(data), MaxFrame)
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(data)))
	return append(buf, data...), nil
}

// Body encodes v for Message.Body; v is one of this package's or runtime's types.
func Body(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic("wire: body of the wrong type: " + err.Error())
	}
	return data
}

// Decoder cuts a byte stream into messages. The zero value is ready.
type Decoder struct {
	buf  []byte
	head int
}

// Feed adds bytes of the stream; p is copied.
func (d *Decoder) Feed(p []byte) {
	if d.head > 0 {
		d.buf = append(d.buf[:0], d.buf[d.head:]...)
		d.head = 0
	}
	d.buf = append(d.buf, p...)
}

// Next returns the next whole message; ok is false if more bytes are needed.
// After an error the stream is useless: the connection has to be dropped.
func (d *Decoder) Next() (m Message, ok bool, err error) {
	rest := d.buf[d.head:]
	if len(rest) == 0 {
		d.buf, d.head = nil, 0 // an idle connection holds no memory
		return Message{}, false, nil
	}
	if len(rest) < header {
		return Message{}, false, nil
	}
	n := binary.BigEndian.Uint32(rest)
	if n == 0 || n > MaxFrame {
		return Message{}, false, fault.Invalid("supervisor protocol: frame of %d bytes", n)
	}
	if uint32(len(rest)-header) < n {
		return Message{}, false, nil
	}
	if err := json.Unmarshal(rest[header:header+n], &m); err != nil {
		return Message{}, false, fault.Invalid("supervisor protocol: %w", err)
	}
	if m.FDs < 0 || m.FDs > MaxFDs {
		return Message{}, false, fault.Invalid("supervisor protocol: message with %d descriptors", m.FDs)
	}
	d.head += header + int(n)
	return m, true, nil
}

// MaxFDs is how many descriptors one message may carry.
const MaxFDs = 8
