package supervise

import (
	"golang.org/x/sys/unix"
)

// errand is a child that is no container's process: it does something for the supervisor and ends.
type errand struct {
	done        func(unix.WaitStatus) // nil for one that can be handed over
	compression *compression
}

type errandState struct {
	Pid         int          `json:"pid"`
	Compression *compression `json:"compression,omitempty"`
}

// ended does what follows an errand.
func (s *supervisor) errandEnded(pid int, status unix.WaitStatus) {
	e := s.errands[pid]
	if e == nil {
		return
	}
	delete(s.errands, pid)
	switch {
	case e.done != nil:
		e.done(status)
	case e.compression != nil:
		e.compression.ended(s, status)
	}
}
