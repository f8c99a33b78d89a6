package supervise

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// reapAll collects every child that ended: processes of containers, which their
// pidfds report too, and orphans that fell to us as their subreaper.
func (s *supervisor) reapAll() {
	for {
		pid := peekChild()
		if pid <= 0 {
			return
		}
		if p := s.byPid(pid); p != nil {
			if p.reap(); p.bearing() {
				return // its descriptor stays readable
			}
			continue
		}
		if s.bearing() { // it may be an exec that we are about to be told of: then it is its record that must not be lost
			return
		}
		var status unix.WaitStatus
		got, err := unix.Wait4(pid, &status, unix.WNOHANG|unix.WALL, nil)
		if err != nil && err != unix.EINTR {
			return
		}
		if err == nil && got == pid {
			runner{s}.reaped(pid, status)
		}
	}
}

// peekChild returns the pid of a child that ended and leaves it waitable; 0 for none.
func peekChild() int {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0
		}
		// siginfo_t on 64-bit Linux: three ints, padding, then si_pid.
		return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 16)))
	}
}

// byPid finds the process of a container.
func (s *supervisor) byPid(pid int) *process {
	for _, c := range s.containers {
		if c.init.pid == pid && c.init.phase != ended {
			return &c.init
		}
		for _, p := range c.execs {
			if p.pid == pid {
				return p
			}
		}
	}
	return nil
}

// bearing tells whether a process's pid is not that of its program yet; see launch.Process.
func (p *process) bearing() bool { return p.child != nil && p.child.Bearing() }

func (s *supervisor) bearing() bool {
	for _, c := range s.containers {
		for _, p := range c.execs {
			if p.bearing() {
				return true
			}
		}
	}
	return false
}
