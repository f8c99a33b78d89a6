package supervise

import (
	"encoding/json"
	"slices"

	"golang.org/x/sys/unix"

	"tare/internal/runtime"
	"tare/internal/runtime/wire"
)

// estateFormat numbers the form of estate and all in it. Who changes it in a way that an older or newer supervisor
// would misread has to count on: an upgrade between two formats is refused.
const estateFormat = 1

// estate is what a supervisor leaves to its successor, as JSON. At an upgrade it is the whole of it, in a memfd, and
// descriptors stand for themselves. For an engine that keeps things, it is one container's init, exec or attachment, and
// descriptors are numbers of those that travel beside it.
type estate struct {
	Format     int               `json:"format"`
	Life       string            `json:"life,omitempty"`
	Recovered  bool              `json:"recovered,omitempty"`
	Seq        uint64            `json:"seq,omitempty"`
	Listener   int               `json:"listener,omitempty"`
	Lock       int               `json:"lock,omitempty"`
	Conns      []connState       `json:"conns,omitempty"`
	Containers []containerState  `json:"containers,omitempty"`
	Lingering  []attachmentState `json:"lingering,omitempty"` // of processes that ended
	Errands    []errandState     `json:"errands,omitempty"`
	Answer     *ticket           `json:"answer,omitempty"` // the open Upgrade
}

type connState struct {
	FD       int             `json:"fd"`
	Watching bool            `json:"watching,omitempty"`
	Keeping  bool            `json:"keeping,omitempty"`
	Rest     []byte          `json:"rest,omitempty"` // of what was received
	Received []int           `json:"received,omitempty"`
	Queue    []outgoingState `json:"queue,omitempty"`
}

type outgoingState struct {
	Data []byte `json:"data"`
	FDs  []int  `json:"fds,omitempty"`
}

// ticket is an open request: of which of the connections, and its ID and operation.
type ticket struct {
	Conn int     `json:"conn"`
	ID   uint64  `json:"id"`
	Op   wire.Op `json:"op"`
}

type containerState struct {
	ID      string                  `json:"id"`
	Bundle  string                  `json:"bundle"`
	Cgroup  string                  `json:"cgroup"`
	Rootfs  *runtime.Overlay        `json:"rootfs,omitempty"` // until it runs
	Foreign *foreign                `json:"foreign,omitempty"`
	Created int64                   `json:"created"`
	Started int64                   `json:"started,omitempty"`
	OwnPids bool                    `json:"ownPids,omitempty"`
	Paused  bool                    `json:"paused,omitempty"`
	OOMs    uint64                  `json:"ooms,omitempty"`
	Limited bool                    `json:"limited,omitempty"`
	Exit    *runtime.Exit           `json:"exit,omitempty"`
	Done    map[string]runtime.Exit `json:"done,omitempty"`
	Init    *processState           `json:"init,omitempty"`
	Execs   []processState          `json:"execs,omitempty"`
	Loose   []attachmentState       `json:"loose,omitempty"` // attachments of their own, beside an engine's kept processes
	Removal *removalState           `json:"removal,omitempty"`
}

type removalState struct {
	Began   int64    `json:"began"`
	Waiting []ticket `json:"waiting,omitempty"`
}

type processState struct {
	Exec     string            `json:"exec,omitempty"`
	Phase    phase             `json:"phase"`
	Pid      int               `json:"pid"`
	Began    uint64            `json:"began,omitempty"` // clock ticks from boot to its start: tells it from a later process of that number
	PidFD    int               `json:"pidfd"`
	Sync     int               `json:"sync"`
	Stdin    int               `json:"stdin"`
	Stdout   int               `json:"stdout"`
	Stderr   int               `json:"stderr"`
	Pipes    [3]uint64         `json:"pipes,omitempty"` // inodes of stdin, stdout and stderr, 0 for none
	Terminal bool              `json:"terminal,omitempty"`
	TTY      bool              `json:"tty,omitempty"`
	Hung     bool              `json:"hung,omitempty"`
	Once     bool              `json:"once,omitempty"`
	Pending  []byte            `json:"pending,omitempty"` // of stdin
	Ending   bool              `json:"ending,omitempty"`
	Log      *logState         `json:"log,omitempty"`
	Attached []attachmentState `json:"attached,omitempty"`
	Failure  *wire.Error       `json:"failure,omitempty"`
	Size     unix.Winsize      `json:"size"`
}

type attachmentState struct {
	Number  uint64 `json:"number"`
	Exec    string `json:"exec,omitempty"`
	Conn    int    `json:"conn"` // -1: of one that is gone
	FD      int    `json:"fd"`
	In      bool   `json:"in,omitempty"`
	Out     bool   `json:"out,omitempty"`
	Err     bool   `json:"err,omitempty"`
	Raw     bool   `json:"raw,omitempty"`
	Gone    bool   `json:"gone,omitempty"`
	Limbo   bool   `json:"limbo,omitempty"`
	Pending []byte `json:"pending,omitempty"`
}

type logState struct {
	Config runtime.Log `json:"config"`
	Part   [2][]byte   `json:"part,omitempty"` // unfinished lines
}

// descriptors calls f for each descriptor of the estate; one that is not there is -1.
func (e *estate) descriptors(f func(*int)) {
	if e.Lock != 0 { // an upgrade's
		f(&e.Listener)
		f(&e.Lock)
	}
	for i := range e.Conns {
		c := &e.Conns[i]
		f(&c.FD)
		for j := range c.Received {
			f(&c.Received[j])
		}
		for j := range c.Queue {
			for k := range c.Queue[j].FDs {
				f(&c.Queue[j].FDs[k])
			}
		}
	}
	for i := range e.Lingering {
		f(&e.Lingering[i].FD)
	}
	for i := range e.Containers {
		c := &e.Containers[i]
		if c.Init != nil {
			c.Init.descriptors(f)
		}
		for j := range c.Execs {
			c.Execs[j].descriptors(f)
		}
		for j := range c.Loose {
			f(&c.Loose[j].FD)
		}
	}
}

func (p *processState) descriptors(f func(*int)) {
	for _, fd := range []*int{&p.PidFD, &p.Sync, &p.Stdin, &p.Stdout, &p.Stderr} {
		f(fd)
	}
	for i := range p.Attached {
		f(&p.Attached[i].FD)
	}
}

// split replaces the descriptors by their place in the list that it returns.
func (e *estate) split() (fds []int) {
	e.descriptors(func(fd *int) {
		if *fd >= 0 {
			fds = append(fds, *fd)
			*fd = len(fds) - 1
		}
	})
	return fds
}

// join is the opposite of split. What is not used of fds is the caller's to close.
func (e *estate) join(fds []int) (used []bool) {
	used = make([]bool, len(fds))
	e.descriptors(func(fd *int) {
		switch {
		case *fd < 0 || *fd >= len(fds) || used[*fd]:
			*fd = -1
		default:
			used[*fd] = true
			*fd = fds[*fd]
		}
	})
	return used
}

// estate describes the container; all: with its execs and what is not for an engine that keeps it.
func (c *container) estate(all bool) containerState {
	st := containerState{
		ID: c.id, Bundle: c.bundle, Cgroup: c.cgroup, Rootfs: c.rootfs, Foreign: c.foreign,
		Created: c.created, Started: c.started, OwnPids: c.ownPids, Paused: c.paused, OOMs: c.oomsTold, Limited: c.limited,
	}
	if !all {
		return st
	}
	st.Exit, st.Done = c.exit, c.done
	init := (heir{&c.init}).estate()
	st.Init = &init
	for _, p := range c.execs {
		st.Execs = append(st.Execs, (heir{p}).estate())
	}
	if m := c.removal; m != nil {
		st.Removal = &removalState{Began: m.began.UnixNano()}
		for _, r := range m.waiting {
			if r != nil {
				st.Removal.Waiting = append(st.Removal.Waiting, handover{c.s}.ticket(r))
			}
		}
	}
	return st
}

// estate describes the process; without its attachments.
func (p heir) estate() processState {
	st := processState{
		Exec: p.exec, Phase: p.phase, Pid: p.pid, PidFD: p.pidfd, Sync: p.sync,
		Stdin: p.stdin.fd, Stdout: p.out.fd, Stderr: p.err.fd, Pipes: p.pipes, Terminal: p.terminal, TTY: p.out.tty, Hung: p.out.hung,
		Once: p.once, Pending: p.stdin.pending, Ending: p.stdin.ending, Failure: p.failure, Size: p.size,
	}
	if p.phase == ended {
		st.PidFD, st.Sync, st.Stdin, st.Stdout, st.Stderr = -1, -1, -1, -1, -1
	}
	if p.log != nil {
		st.Log = p.log.state()
	}
	return st
}

func (a *attachment) estate(conns []*conn) attachmentState {
	return attachmentState{
		Number: a.number, Conn: slices.Index(conns, a.conn), FD: a.fd, In: a.in, Out: a.out, Err: a.err, Raw: a.raw, Gone: a.gone,
		Limbo: a.limbo, Pending: a.pending[a.head:],
	}
}

func (e *estate) marshal() []byte {
	data, err := json.Marshal(e)
	if err != nil {
		panic("estate of the wrong type: " + err.Error())
	}
	return data
}
