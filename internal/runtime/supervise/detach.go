package supervise

import (
	"bufio"
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// detach makes the process independent of the engine that started it: orphans of
// containers come to it, and a service manager that stops the engine's unit
// does not find it there.
func detach() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fault.Internal("PR_SET_CHILD_SUBREAPER: %w", err)
	}
	_, _ = unix.Setsid() // fails if we lead a session already
	leaveUnit()
	return nil
}

// leaveUnit moves the process from a systemd unit's cgroup to the root, in the
// hierarchies by which systemd tracks processes: name=systemd under v1, else v2.
// Elsewhere, and where it may not, the process stays.
func leaveUnit() {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ":", 3)
		if len(f) != 3 || !strings.HasSuffix(f[2], ".service") && !strings.HasSuffix(f[2], ".scope") {
			continue
		}
		var roots []string
		switch f[1] {
		case "name=systemd":
			roots = []string{"/sys/fs/cgroup/systemd"}
		case "":
			roots = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
		}
		for _, root := range roots {
			if f, err := os.OpenFile(filepath.Join(root, "cgroup.procs"), os.O_WRONLY, 0); err == nil {
				_, _ = f.WriteString("0")
				f.Close()
				break
			}
		}
	}
}

// setTitle replaces what ps shows as the command line. The strings in os.Args are
// the kernel's own argument area: they must not be used afterwards.
func setTitle(title string) {
	if len(os.Args) == 0 || len(os.Args[0]) == 0 {
		return
	}
	size := 0
	for _, a := range os.Args {
		size += len(a) + 1
	}
	area := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.StringData(os.Args[0]))), size)
	if len(title) > size-2 {
		title = title[:size-2]
	}
	clear(area)
	copy(area, title)
	// A last byte that is not 0 tells the kernel (fs/proc/base.c, get_mm_cmdline)
	// that this is a title, which ends at the first 0.
	area[size-1] = '.'
	os.Args = []string{title}
}

// catchSignals makes signals events of the loop. SIGCHLD tells of orphans, SIGTERM
// ends a supervisor without containers. SIGHUP and SIGPIPE are caught only to
// have no effect: containers would inherit it if they were ignored.
func (s *supervisor) catchSignals() {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	go func() {
		for sig := range ch {
			switch sig {
			case unix.SIGCHLD:
				s.loop.post(s.reapAll)
			case unix.SIGTERM, unix.SIGINT:
				s.loop.post(s.askedToEnd)
			}
		}
	}()
}

func (s *supervisor) askedToEnd() {
	if n := len(s.containers); n > 0 {
		complain("asked to end, but %d containers are left: only the engine's word, once they are gone, or SIGKILL ends it", n)
		return
	}
	s.loop.stopped = true
}
