package supervise

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A note is a file in EXEC_ROOT/running for each container that runs, with what a successor cannot find out in any other way, should
// supervisor and engine be killed together. The pipes themselves survive that: a container's init has its stdout and stderr
// open for reading too, so that they never break under it, and who finds the pipe in /proc gets a new end to read from. What a
// terminal, or an attached client, had is gone then.

// noteDir is the folder of notes in the exec root.
const noteDir = "running"

func (s recovery) notePath(id string) string { return filepath.Join(s.root, noteDir, id) }

// note writes the container's file.
func (c *container) note() {
	e := (heir{&c.init}).will()
	init := e.Containers[0].Init
	init.Began = beginning(c.init.pid)
	e.descriptors(func(fd *int) { *fd = -1 })
	if err := os.WriteFile(recovery{c.s}.notePath(c.id), e.marshal(), 0o600); err != nil {
		complain("container %s: it would not survive the end of supervisor and engine: %v", c.id, err)
	}
}

// readNote returns a container's file; nil if there is none, or only a part of one.
func (s recovery) readNote(id string) *containerState {
	data, err := os.ReadFile(s.notePath(id))
	if err != nil {
		return nil
	}
	var e estate
	if json.Unmarshal(data, &e) != nil || e.Format != estateFormat || len(e.Containers) != 1 || e.Containers[0].Init == nil {
		return nil
	}
	return &e.Containers[0]
}

// readNotes takes over the containers that run, have a note, and were not given back by an engine.
func (s recovery) readNotes() {
	entries, _ := os.ReadDir(filepath.Join(s.root, noteDir))
	for _, f := range entries {
		id := f.Name()
		if s.containers[id] != nil {
			continue
		}
		st := s.readNote(id)
		if st == nil || st.ID != id || !s.stillRuns(st) {
			os.Remove(s.notePath(id))
			continue
		}
		c, err := s.restore(st)
		if err != nil {
			complain("cannot take over container %s: %v", id, err)
			continue
		}
		c.paused = c.group.Frozen()
		c.findPipes()
		complain("container %s, which nobody kept, was found again", id)
	}
}

// stillRuns opens the pidfd of a note's process, if that still runs.
func (s recovery) stillRuns(st *containerState) bool {
	init := st.Init
	fd, err := unix.PidfdOpen(init.Pid, 0)
	if err != nil {
		return false
	}
	// The number was looked at after the descriptor was opened: both are of the same process, or this one has ended.
	if init.Began == 0 || beginning(init.Pid) != init.Began || hasEnded(fd) {
		unix.Close(fd)
		return false
	}
	init.PidFD, init.Phase = fd, running
	return true
}

// findPipes opens the pipes of a container's init anew, wherever in the container one has them open.
func (c *container) findPipes() {
	p := &c.init
	if p.terminal {
		return
	}
	ends := [3]*int{&p.stdin.fd, &p.out.fd, &p.err.fd}
	flags := [3]int{unix.O_WRONLY, unix.O_RDONLY, unix.O_RDONLY}
	want := map[string]int{}
	for i, inode := range p.pipes {
		if inode != 0 {
			want["pipe:["+utoa(inode)+"]"] = i
		}
	}
	pids, err := c.group.Pids()
	if err != nil {
		pids = []int{p.pid}
	}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, f := range entries {
			name, err := os.Readlink(dir + f.Name())
			if err != nil || !strings.HasPrefix(name, "pipe:[") {
				continue
			}
			if i, ok := want[name]; ok && *ends[i] < 0 {
				*ends[i] = openPipe(dir+f.Name(), p.pipes[i], flags[i])
			}
			if len(want) == 0 {
				return
			}
		}
	}
}

// openPipe opens one end of a pipe through a process's descriptor; -1 if that has become something else.
func openPipe(path string, inode uint64, flags int) int {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || st.Ino != inode {
		return -1
	}
	end, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return end
}

// inodeOf returns the number of an open pipe.
func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }
