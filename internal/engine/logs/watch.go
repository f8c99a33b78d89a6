package logs

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells when a log may have grown, by inotify(7); where the user's
// instances are used up, by the clock alone.
type watcher struct {
	in  *os.File // nil without inotify
	dir int      // watch descriptors
	cur int
	ino *file
	buf [4096]byte
}

func newWatcher(path string) *watcher {
	w := &watcher{dir: -1, cur: -1}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w
	}
	w.in = os.NewFile(uintptr(fd), "inotify")
	if w.dir, err = unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		w.dir = -1
	}
	return w
}

// watch has the file watched from now on, instead of the one before.
func (w *watcher) watch(f *file) {
	if w.in == nil || w.ino == f {
		return
	}
	w.ino = f
	conn, err := w.in.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(in uintptr) {
		if w.cur >= 0 {
			_, _ = unix.InotifyRmWatch(int(in), uint32(w.cur))
		}
		// By descriptor: the name may have moved on.
		raw, err := f.SyscallConn()
		if err != nil {
			return
		}
		_ = raw.Control(func(fd uintptr) {
			w.cur, err = unix.InotifyAddWatch(int(in), "/proc/self/fd/"+strconv.Itoa(int(fd)), unix.IN_MODIFY|unix.IN_MOVE_SELF)
			if err != nil {
				w.cur = -1
			}
		})
	})
}

// wait returns when something happened, or after a tick; ctx's error when it ended.
func (w *watcher) wait(ctx context.Context) error {
	if w.in == nil {
		t := time.NewTimer(tick)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	_ = w.in.SetReadDeadline(time.Now().Add(tick))
	stop := context.AfterFunc(ctx, func() { _ = w.in.SetReadDeadline(time.Unix(1, 0)) })
	_, err := w.in.Read(w.buf[:])
	stop()
	_ = err // a deadline; what there is to read shows in the files
	return ctx.Err()
}

func (w *watcher) close() {
	if w.in != nil {
		w.in.Close()
	}
}
