package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Watch tells of something in a group by a descriptor that poll(2) and epoll(7) can wait for. One use, in an event loop:
//
//	w, err := g.WatchOOM()
//	epoll_ctl(…, EPOLL_CTL_ADD, w.FD(), w.Events())
//	… when it is ready …
//	n, gone := w.Take()   // n kills since the last Take; gone: the group was removed, Close
//
// The descriptor stays ready until Take. Its other methods are not for several goroutines.
type Watch struct {
	fd     int
	events uint32
	take   func() (n uint64, gone bool)
}

// FD is the descriptor; it belongs to the watch.
func (w *Watch) FD() int { return w.fd }

// Events is what to wait for: EPOLLIN or EPOLLPRI, which are POLLIN and POLLPRI too.
func (w *Watch) Events() uint32 { return w.events }

// Take returns how often it has happened since the last Take, 0 for a false alarm,
// and whether the group is gone, after which nothing comes any more.
func (w *Watch) Take() (n uint64, gone bool) { return w.take() }

// Wait blocks until the descriptor is ready, or for a time; negative is for ever.
func (w *Watch) Wait(limit time.Duration) (ready bool, err error) {
	ms := -1
	if limit >= 0 {
		ms = int(limit.Milliseconds())
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: int16(w.events)}}, ms)
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return n > 0, err
}

// Close ends the watch.
func (w *Watch) Close() error { return unix.Close(w.fd) }

// WatchOOM tells of processes of the group, or of groups below, that the kernel kills for want of
// memory: by memory.events under v2, by an eventfd on memory.oom_control under v1.
// Kills before it are not told of; OOMKills has the sum.
func (g *Group) WatchOOM() (*Watch, error) {
	dir, v2 := g.on("memory")
	if dir == "" {
		return nil, fault.Unsupported("this machine has no memory cgroup controller: it cannot tell of kills for want of memory")
	}
	var w *Watch
	var err error
	if v2 {
		w, err = watchFile(path.Join(dir, "memory.events"))
	} else {
		w, err = eventFD(dir, "memory.oom_control", "")
	}
	if err != nil {
		return nil, g.watchError("kills for want of memory", err)
	}
	last, drain := g.OOMKills(), w.take
	w.take = func() (uint64, bool) {
		_, gone := drain()
		now := g.OOMKills()
		n := now - min(now, last)
		last = max(last, now)
		return n, gone
	}
	return w, nil
}

// Pressure is how much waiting for a resource is told of (Documentation/accounting/psi.rst): Stall within
// any Window. Full counts time in which all processes of the group waited, else some.
type Pressure struct {
	Resource string // "memory", "cpu", "io"
	Full     bool
	Stall    time.Duration
	// Window is from 500 ms to 10 s; without CAP_SYS_RESOURCE it must be a multiple of 2 s.
	Window time.Duration
}

// MemoryPressure is what tells of a group that begins to suffer from its limit of memory.
var MemoryPressure = Pressure{Resource: "memory", Stall: 150 * time.Millisecond, Window: 2 * time.Second}

// WatchPressure tells each time the group is under that pressure, at most once a window. It takes a v2 tree, which hybrid
// machines have too. Under plain v1 there is memory's alone, whose levels are "medium" for some and "critical" for full.
func (g *Group) WatchPressure(p Pressure) (*Watch, error) {
	what := p.Resource + " pressure"
	switch p.Resource {
	case "memory", "cpu", "io":
	default:
		return nil, fault.Invalid("there is no %s: it is of memory, cpu or io", what)
	}
	kind, level := "some", "medium"
	if p.Full {
		kind, level = "full", "critical"
	}
	if dir := g.v2(); dir != "" {
		w, err := watchFile(path.Join(dir, p.Resource+".pressure"))
		if err == nil {
			trigger := fmt.Sprintf("%s %d %d\x00", kind, p.Stall.Microseconds(), p.Window.Microseconds())
			if _, err = unix.Write(w.fd, []byte(trigger)); err == nil {
				w.take = func() (uint64, bool) { // a poll resets the trigger, so one that was waited for has happened
					return 1, !g.exists()
				}
				return w, nil
			}
			w.Close()
		}
		if g.host.V2 || p.Resource != "memory" {
			return nil, g.watchError(what, err)
		}
	}
	dir := g.dir("memory")
	if dir == "" || p.Resource != "memory" {
		return nil, fault.Unsupported("this machine cannot tell of %s: it has cgroup v1", what)
	}
	w, err := eventFD(dir, "memory.pressure_level", level)
	if err != nil {
		return nil, g.watchError(what, err)
	}
	return w, nil
}

func (g *place) watchError(what string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && !g.exists() {
		return fault.NotFound("cgroup %s does not exist", g.path)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return fault.Unsupported("this kernel cannot tell of %s in cgroup %s: %w", what, g.path, err)
	}
	return fault.Internal("cannot watch the %s of cgroup %s: %w", what, g.path, err)
}

// watchFile waits for changes of a control file that notifies: POLLPRI until it is read again.
func watchFile(file string) (*Watch, error) {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	drain := func() (uint64, bool) {
		var buf [512]byte
		_, err := unix.Pread(fd, buf[:], 0)
		return 1, err == unix.ENODEV
	}
	drain() // the first poll compares with this
	return &Watch{fd: fd, events: unix.EPOLLPRI, take: drain}, nil
}

// eventFD registers with v1's cgroup.event_control (Documentation/admin-guide/cgroup-v1/memcg_test.rst). The
// kernel signals such an eventfd once more when the group is removed.
func eventFD(dir, file, arg string) (*Watch, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path.Join(dir, file))
	if err == nil {
		line := strconv.Itoa(fd) + " " + strconv.Itoa(int(f.Fd()))
		if arg != "" {
			line += " " + arg
		}
		err = write(dir, "cgroup.event_control", line)
		f.Close()
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Watch{fd: fd, events: unix.EPOLLIN, take: func() (uint64, bool) {
		var buf [8]byte
		n := uint64(0)
		if got, err := unix.Read(fd, buf[:]); err == nil && got == 8 {
			n = binary.NativeEndian.Uint64(buf[:])
		}
		_, err := os.Stat(path.Join(dir, file))
		return n, errors.Is(err, fs.ErrNotExist)
	}}, nil
}
