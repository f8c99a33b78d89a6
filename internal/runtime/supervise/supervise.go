// Package supervise is the supervisor: one process per engine, the parent of
// every container and exec. It owns what has to outlive the engine: their stdio
// pipes and terminals, their log files, and the records of their exits. The
// engine speaks to it as package wire describes, and may come and go.
//
//	container    what Create made: a cgroup, an init process, execs
//	process      an init or an exec, from its launch to its exit record
//	source       a process's stdout or stderr, or its terminal: read here, written to log and attachments
//	attachment   one client's stream to a process
//	conn         one engine's connection
//
// Everything runs on one goroutine, in a loop over epoll (see loop): pipes,
// sockets and pidfds are non-blocking, so there is no lock, and an idle
// container costs a few small structs and no goroutine or thread. Other goroutines
// only turn signals into events, and wait for a freezer.
//
// A process's life:
//
//	launching ─created─▶ created ─go─▶ going ─exec'ed─▶ running ─exit─▶ ended
//	    └──── fails: nothing is left       └─── exec fails: stopped, exit 127 or 126
//
// When a process ends, what its pipes still hold is read, then its log is
// finished, its attachments get EOF after their data, and only then the exit
// record is published. Other processes that still hold the pipes do not delay
// this: in a pid namespace of its own none is left by then, else the rest of the
// container's cgroup is killed.
//
// Log files are written with plain write(2): a disk that fails costs entries (see
// logFile), one that is slow makes all containers of the engine wait for it.
//
// # Replacing the supervisor
//
// What a successor must know is small and made to be handed over: per process the
// pidfd, the pipe or terminal descriptors, the offset of an unfinished line, and
// runtime.State. A re-exec keeps pid, children and descriptors, so it needs only a
// table of numbers in a memfd. Should the supervisor be killed, the engine can keep
// it going if it was sent duplicates of those descriptors (wire carries any
// number per message); children then fall to the next subreaper, and their exit codes come
// from PIDFD_GET_INFO.
package supervise

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	goruntime "runtime"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
	"tare/internal/runtime/wire"
)

// supervisor is the state of the process; only the loop's goroutine touches it.
type supervisor struct {
	loop       *loop
	host       plan.Host
	instance   string
	containers map[string]*container
	conns      map[*conn]struct{}
	seq        uint64 // of the last exit record
	buf        []byte // what is read goes here first: frameHeader bytes of room, then readSize
	specs      specCache
	idle       *timer
	root       string // exec root
	socket     string
	listener   int
	lock       int // the pid file's descriptor

	life        string // from the start to the end, over upgrades
	program     wire.Identity
	recovered   bool // what a predecessor left was taken over
	inherits    bool // while it is handed over by an upgrade
	upgrading   *upgrade
	lineUp      []*conn                  // by number, while handing over
	attachments uint64                   // number of the last
	lingering   map[*attachment]struct{} // of processes that ended: their clients have not read all
	errands     map[int]*errand          // by pid
	writer      writer
	pending     int                     // errands that leave a process behind
	unclaimed   map[int]unix.WaitStatus // of children that ended while there were such
}

// Main runs the supervisor until it is shut down and returns the exit code:
// `tare-run supervise --exec-root E --instance I [--ready FD]`. It writes one byte to
// the ready descriptor when the socket answers. Further uses: with --upgrade it has the supervisor of the exec root
// execute this program in its place; with --understands N it tells by its exit code whether it could take
// over from a supervisor that hands over format N; --compress and --in-root are children of the supervisor's own.
func Main(args []string) int {
	flags := flag.NewFlagSet("tare-run supervise", flag.ContinueOnError)
	execRoot := flags.String("exec-root", "", "folder of the socket")
	instance := flags.String("instance", "", "name of the engine that it works for")
	ready := flags.Int("ready", -1, "descriptor to write a byte to when the socket answers")
	handover := flags.Int("handover", -1, "descriptor with the state of the supervisor that executed this one")
	upgrade := flags.Bool("upgrade", false, "have the running supervisor execute this program in its place")
	understands := flags.Int("understands", 0, "tell by the exit code whether state of this format can be taken over")
	compress := flags.Bool("compress", false, "compress standard input to standard output")
	inside := flags.Bool("in-root", false, "mount the root that descriptor 3 tells of, then execute")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	switch {
	case *understands != 0:
		if *understands != estateFormat {
			return 1
		}
		return 0
	case *inside:
		return mountAndExecute()
	case *compress:
		return compressStdin()
	case *upgrade && *execRoot != "" && flags.NArg() == 0:
		return askForUpgrade(*execRoot)
	}
	if *execRoot == "" || *instance == "" || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: tare-run supervise --exec-root DIR --instance NAME [--ready FD]\n       tare-run supervise --exec-root DIR --upgrade")
		return 2
	}
	// The title is written over the arguments, so they have to be copied before.
	root, name := strings.Clone(*execRoot), strings.Clone(*instance)

	lock := -1
	if *handover < 0 {
		f, err := lockRoot(root)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return wire.ExitBusy
		}
		if err != nil {
			complain("%v", err)
			return 1
		}
		defer f.Close()
		lock = int(f.Fd())
	}

	// A container in the host's pid namespace that has no right to trace others can't read the supervisor's
	// memory and files either; and its children share that memory until they exec.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	goruntime.GOMAXPROCS(1)
	debug.SetGCPercent(25) // of a heap that is small in any case
	if err := detach(); err != nil {
		complain("%v", err)
		return 1
	}
	setTitle("tare-run supervise " + name)

	s, err := newSupervisor(root, name, lock, *handover)
	if err != nil {
		complain("%v", err)
		return 1
	}
	if *ready >= 0 {
		_, _ = unix.Write(*ready, []byte{1})
		unix.Close(*ready)
	}
	err = s.loop.run()
	// Still under the lock, so they are not a successor's.
	os.Remove(s.socket)
	if group, err := cgroup.Open("/tare/" + name); err == nil {
		group.RemoveEmpty() // the parent of its containers' groups
	}
	if err != nil {
		complain("%v", err)
		return 1
	}
	return 0
}

// lockRoot makes sure that the exec root has one supervisor; EWOULDBLOCK if it has another.
func lockRoot(root string) (*os.File, error) {
	if err := errors.Join(os.MkdirAll(root, 0o711), os.MkdirAll(filepath.Join(root, noteDir), 0o700)); err != nil {
		return nil, fault.Internal("cannot make exec root: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(root, wire.PidName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fault.Internal("cannot open pid file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	if err != nil {
		f.Close()
		return nil, fault.Internal("cannot write pid file: %w", err)
	}
	return f, nil
}

func newSupervisor(root, instance string, lock, memory int) (*supervisor, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	s := &supervisor{
		loop:       l,
		instance:   instance,
		containers: make(map[string]*container),
		conns:      make(map[*conn]struct{}),
		buf:        make([]byte, frameHeader+readSize),
		root:       root,
		socket:     filepath.Join(root, wire.SocketName),
		lock:       lock,
		lingering:  make(map[*attachment]struct{}),
		errands:    make(map[int]*errand),
	}
	s.writer.post = l.post
	if s.host, err = launch.Host(); err != nil {
		return nil, err
	}
	if s.program, err = wire.Identify("/proc/self/exe"); err != nil {
		return nil, err
	}
	s.catchSignals()
	if memory >= 0 {
		if err := (handover{s}).inherit(memory); err != nil {
			return nil, err
		}
		handover{s}.goOn()
		return s, nil
	}
	s.life = utoa(uint64(time.Now().UnixNano())) + "-" + strconv.Itoa(os.Getpid())
	if err := s.listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// complain writes one line to the supervisor's own log, its stderr.
func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s tare-run supervise: %s\n", time.Now().UTC().Format(time.RFC3339Nano), fmt.Sprintf(format, args...))
}

// kept returns the exit records that were not forgotten, oldest first.
func (s *supervisor) kept() []runtime.Exit {
	var all []runtime.Exit
	for _, c := range s.containers {
		all = c.appendKept(all)
	}
	sortExits(all)
	return all
}

// restLater gives memory back to the kernel once nothing was created, started or
// deleted for a second: the garbage of a start is larger than what stays.
func (s *supervisor) restLater() {
	s.idle.stop()
	s.idle = s.loop.after(time.Second, func() {
		s.idle = nil
		s.specs.drop()
		if len(s.containers) == 0 {
			if group, err := cgroup.Open("/tare/" + s.instance); err == nil {
				group.RemoveEmpty() // the parent of containers' groups is made again with the next
			}
		}
		debug.FreeOSMemory()
	})
}
