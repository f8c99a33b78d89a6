// Package launch executes plans: it clones a child into the namespaces that the
// plan asks for, and the child (the stage: this program, re-executed with the
// plan on a descriptor) performs the steps, reports, waits for the word, execs.
//
// Nothing here blocks on the child: the supervisor's event loop watches
// Process.Sync and Process.PidFD itself. `tare-run create` and `run` use the
// blocking helpers.
//
//	parent                                child (stage)
//	  New ── clone, plan on fd ──────────▶ steps …
//	      ◀──────── "created" ───────────  waits
//	  Go  ── "go" ───────────────────────▶ execve
//	      ◀──────── EOF (close-on-exec), or "failed STEP ERRNO" ──
package launch

import (
	"os"

	"tare/internal/base/fault"
	"tare/internal/runtime/plan"
)

// Stdio are the child's descriptors 0, 1, 2. With Console set (a pty's
// other end is opened inside the container's devpts by the stage) they are nil
// and the pty master arrives with the "created" message.
type Stdio struct {
	In, Out, Err *os.File
	Console      bool
}

// Process is a launched child.
type Process struct {
	Pid   int
	PidFD int
	Sync  int // non-blocking unix socket: see Message
}

// Message is one report of the stage.
type Message struct {
	Created bool     // set-up is done, the child waits for Go
	Started bool     // the exec happened
	Err     error    // a step failed; the child is gone
	ExecErr bool     // Err is execve's
	Master  *os.File // the pty master, with Created, if Console was asked for
}

// New starts the child. joinPid is 0 for a container's init, and for an exec the pid of the container's init.
func New(p *plan.Plan, joinPid int, stdio Stdio) (*Process, error) { return nil, fault.Unsupported("") }

// Receive returns the next message, or ok=false if none has arrived yet (EAGAIN).
func (p *Process) Receive() (m Message, ok bool, err error) { return Message{}, false, nil }

// Go lets a created child exec.
func (p *Process) Go() error { return fault.Unsupported("") }

// StageMain is the child's entry; tare-run calls it, before anything else, when it finds itself re-executed as the stage.
func StageMain() {}
