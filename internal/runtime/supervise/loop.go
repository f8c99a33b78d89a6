package supervise

import (
	"container/heap"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// handler is told when its descriptor is ready. A call may be spurious.
type handler interface{ ready(events uint32) }

// loop is the event loop: one epoll descriptor, a table from descriptor to
// handler, timers. Everything in the supervisor runs on the goroutine that
// calls run, so nothing below it needs a lock; other goroutines post.
type loop struct {
	epfd    int
	slots   []slot // by descriptor
	timers  timers
	stopped bool
	wake    int // eventfd

	mu     sync.Mutex // guards posted
	posted []func()
}

// slot is the registration of a descriptor. The generation tells a stale event,
// of a descriptor closed earlier in the same batch, from one of its successor.
type slot struct {
	h      handler
	events uint32
	gen    int32
}

func newLoop() (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fault.Internal("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fault.Internal("eventfd: %w", err)
	}
	l := &loop{epfd: epfd, wake: wake}
	l.watch(wake, (*wakeup)(l), unix.EPOLLIN)
	return l, nil
}

// post has f called by the loop. Any goroutine may call it.
func (l *loop) post(f func()) {
	l.mu.Lock()
	l.posted = append(l.posted, f)
	l.mu.Unlock()
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// wakeup is the loop as the handler of its eventfd.
type wakeup loop

func (w *wakeup) ready(uint32) {
	var count [8]byte
	_, _ = unix.Read(w.wake, count[:])
	w.mu.Lock()
	todo := w.posted
	w.posted = nil
	w.mu.Unlock()
	for _, f := range todo {
		guard(f)
	}
}

// watch sets what fd is watched for; 0 stops watching it (also for hang-ups and
// errors, which epoll reports unasked). A descriptor must be unwatched before it is closed.
func (l *loop) watch(fd int, h handler, events uint32) {
	for fd >= len(l.slots) {
		l.slots = append(l.slots, make([]slot, 16)...)
	}
	s := &l.slots[fd]
	if s.events == events && s.h == h {
		return
	}
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: s.gen}
	switch {
	case events == 0:
		_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, &ev)
		*s = slot{gen: s.gen + 1}
		return
	case s.events == 0:
		if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			complain("descriptor %d cannot be watched: %v", fd, err)
			return
		}
	default:
		if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
			complain("descriptor %d cannot be watched: %v", fd, err)
			return
		}
	}
	s.h, s.events = h, events
}

// close unwatches and closes *fd and sets it to -1; it may be -1 already.
func (l *loop) close(fd *int) {
	if *fd < 0 {
		return
	}
	l.watch(*fd, nil, 0)
	unix.Close(*fd)
	*fd = -1
}

// after calls f once, from the loop, when d has passed.
func (l *loop) after(d time.Duration, f func()) *timer {
	t := &timer{at: time.Now().Add(d), f: f}
	heap.Push(&l.timers, t)
	return t
}

// run dispatches events until stopped is set.
func (l *loop) run() error {
	var events [64]unix.EpollEvent
	for !l.stopped {
		n, err := unix.EpollWait(l.epfd, events[:], l.fire())
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fault.Internal("epoll_wait: %w", err)
		}
		for _, ev := range events[:n] {
			if s := &l.slots[ev.Fd]; s.h != nil && s.gen == ev.Pad {
				h := s.h
				guard(func() { h.ready(ev.Events) })
			}
		}
	}
	return nil
}

// fire runs the timers that are due and returns the milliseconds to the next, -1 for none.
func (l *loop) fire() int {
	for len(l.timers) > 0 {
		t := l.timers[0]
		if wait := time.Until(t.at); wait > 0 {
			return int((wait + time.Millisecond - 1) / time.Millisecond)
		}
		heap.Pop(&l.timers)
		if f := t.f; f != nil {
			t.f = nil
			guard(f)
		}
		if l.stopped {
			return 0
		}
	}
	return -1
}

// guard calls f. A mistake in this program costs one event, not every container.
func guard(f func()) {
	defer func() {
		if r := recover(); r != nil {
			complain("bug: %v\n%s", r, debug.Stack())
		}
	}()
	f()
}

// timer is one pending call; stop forgets it.
type timer struct {
	at time.Time
	f  func()
}

func (t *timer) stop() {
	if t != nil {
		t.f = nil
	}
}

type timers []*timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(*timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return last
}
