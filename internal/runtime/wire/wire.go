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
// Descriptors arrive in the order of the messages that announce them, so a receiver keeps them in a queue and takes FDs of
// them for each message. A frame that was cut off by the end of the connection is discarded whole. The frame's JSON may gain
// fields: a receiver ignores those it does not know. What is said in which order stands above the constants, see Op.
package wire

import (
	"encoding/binary"
	"encoding/json"

	"golang.org/x/sys/unix"

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

// Op names what a message asks for, answers or tells.
//
// The engine asks; the supervisor answers each request once, with the request's ID, in any order. What it tells unasked
// has no ID: exit records, kept descriptors, processes killed for want of memory, all of them after Watch only:
//
//	engine                                    supervisor
//	  {id 1, op hello}          ───────────▶
//	        ◀───────────  {id 1, op hello, body {life, program, …}}
//	  {op adopt, fds 3, body}   ───────────▶                   only where life is another than that of what the engine keeps
//	  {id 2, op recover}        ───────────▶                   only to a supervisor that has not recovered
//	        ◀───────────  {id 2, op recover}
//	  {id 3, op watch, keep}    ───────────▶
//	        ◀───────────  {op keep, fds 3, body {key, state}}  one for each process and attachment, then new ones
//	        ◀───────────  {id 3, op watch}
//	        ◀───────────  {op exit, body runtime.Exit}         all that are kept, then new ones
//	  {id 4, op create, body}   ───────────▶
//	        ◀───────────  {op keep, fds 4, body {key, state}}
//	        ◀───────────  {id 4, op create, body {pid}}
//	  {id 5, op attach, body}   ───────────▶
//	        ◀───────────  {id 5, op attach, fds 1} + stream socket
//	  {id 6, op start, body}    ───────────▶
//	        ◀───────────  {id 6, op start, error {class, message, …}}
//	        ◀───────────  {op forget, body {key}}
//
// # Keeping
//
// An engine that watches with keep holds duplicates of the descriptors that a successor of the supervisor needs: pidfds, the
// supervisor's ends of pipes, terminals and attached streams. Body and descriptors of a keep message are opaque to it; a later one
// with the same key replaces the first, forget ends it. Should the connection break and the supervisor that
// answers next have another life, that one gets them back, in the order in which their keys first came, as adopt messages.
//
// # Upgrading
//
// Upgrade has the supervisor execute another program in its place. Connections, open requests and half-sent answers pass over; the
// answer comes from the successor. From the request on until then nothing new is begun.
type Op string

const (
	Hello    Op = "hello"    // no body → HelloBody
	Adopt    Op = "adopt"    // a KeepBody and its descriptors, as they were told
	Recover  Op = "recover"  // no body: take over what lives of a predecessor and nobody kept
	Watch    Op = "watch"    // WatchBody or none; from now on Exit, Keep, Forget and OOM messages follow
	Exit     Op = "exit"     // supervisor → engine only, without ID; body runtime.Exit
	Keep     Op = "keep"     // supervisor → engine only, without ID; KeepBody and descriptors
	Forget   Op = "forget"   // supervisor → engine only, without ID; ForgetBody
	OOM      Op = "oom"      // supervisor → engine only, without ID; runtime.Ref of the container
	Upgrade  Op = "upgrade"  // UpgradeBody
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

// HelloBody answers Hello.
type HelloBody struct {
	Life      string   `json:"life"`      // one from a supervisor's start to its end, over upgrades
	Program   Identity `json:"program"`   // what runs
	Format    int      `json:"format"`    // of the state that it hands over at an upgrade
	Recovered bool     `json:"recovered"` // Recover was asked for, or there was nothing to recover from
}

// Identity tells one build of a program from another: the file, not its name.
type Identity struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	Time   int64  `json:"time"` // of the last change of the content, Unix time in nanoseconds
}

// Identify returns the identity of a program's file.
func Identify(program string) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(program, &st); err != nil {
		return Identity{}, fault.Internal("cannot look at %s: %w", program, err)
	}
	return Identity{Device: uint64(st.Dev), Inode: st.Ino, Size: st.Size, Time: st.Mtim.Nano()}, nil
}

// WatchBody is the body of Watch.
type WatchBody struct {
	Keep bool `json:"keep,omitempty"` // send Keep and Forget too
}

// KeepBody is the body of Keep and Adopt.
type KeepBody struct {
	Key   string          `json:"key"`
	State json.RawMessage `json:"state"` // the supervisor's own
}

// ForgetBody is the body of Forget.
type ForgetBody struct {
	Key string `json:"key"`
}

// UpgradeBody is the body of Upgrade.
type UpgradeBody struct {
	Program string `json:"program"` // absolute path
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

// Rest is what was fed and is no whole message yet.
func (d *Decoder) Rest() []byte { return d.buf[d.head:] }

// MaxFDs is how many descriptors one message may carry.
const MaxFDs = 8
