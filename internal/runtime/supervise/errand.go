package supervise

import (
	"golang.org/x/sys/unix"
)

// runner is the supervisor, as what runs errands.
type runner struct{ *supervisor }

// errand is a child that is no container's process: it does something for the supervisor and ends.
type errand struct {
	done        func(unix.WaitStatus) // nil for one that can be handed over
	compression *compression
}

type errandState struct {
	Pid         int          `json:"pid"`
	Compression *compression `json:"compression,omitempty"`
}

// reaped does what follows an errand; other children fell to us when their parents ended.
func (s runner) reaped(pid int, status unix.WaitStatus) {
	e := s.errands[pid]
	if e == nil {
		if s.pending > 0 { // it may be what a foreign runtime's command is about to tell of
			if s.unclaimed == nil {
				s.unclaimed = make(map[int]unix.WaitStatus)
			}
			s.unclaimed[pid] = status
		}
		return
	}
	delete(s.errands, pid)
	switch {
	case e.done != nil:
		e.done(status)
	case e.compression != nil:
		e.compression.ended(s.supervisor, status)
	}
}
