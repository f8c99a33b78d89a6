package supervise

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A supervisor that took over from a killed one is not the parent of what the other started: those fell to the next subreaper, or to
// the host's init. Their pidfds still tell of their end. How they ended is kept by the kernel from 6.15 on for as long as a pidfd is
// open (PIDFD_GET_INFO with PIDFD_INFO_EXIT), once their new parent has collected them; until then /proc shows it.

// exitTries is how often, and a pause in between how long, an exit status is looked for after the process ended.
const exitTries, exitPause = 50, 2 * time.Millisecond

// reapOrphan looks for the exit status of a process that is not our child and has ended.
func (p heir) reapOrphan(tries int) {
	if p.phase == ended {
		return
	}
	l := p.s().loop
	if !hasEnded(p.pidfd) {
		return
	}
	if status, ok := exitStatus(p.pidfd, p.pid); ok {
		p.endWith(status)
		return
	}
	if tries >= exitTries {
		(heir{p.process}).lost("its supervisor was killed before it ended, and this kernel does not keep exit codes")
		return
	}
	l.watch(p.pidfd, nil, 0) // it stays readable
	l.after(exitPause, func() { (heir{p.process}).reapOrphan(tries + 1) })
}

// lost ends a process of whose end nothing is known but that it came.
func (p heir) lost(reason string) {
	if p.phase == ended {
		return
	}
	complain("container %s: the exit status of process %d is lost: %s", p.c.id, p.pid, reason)
	p.reason = "how the container ended is not known: " + reason
	p.end(255)
}

// hasEnded tells whether the process of a pidfd is gone, or a zombie.
func hasEnded(pidfd int) bool {
	polled := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(polled, 0)
	return err == nil && n == 1
}

// exitStatus asks the kernel for the wait status of a process that has ended.
func exitStatus(pidfd, pid int) (unix.WaitStatus, bool) {
	if status, ok := keptStatus(pidfd); ok {
		return status, true
	}
	// A zombie: its new parent has not collected it yet, or never does.
	if f := statFields(pid); len(f) >= 50 && f[0] == "Z" {
		if n, err := strconv.ParseUint(f[49], 10, 32); err == nil && hasEnded(pidfd) {
			if status, ok := keptStatus(pidfd); ok { // collected just now: the number may be another's
				return status, true
			}
			return unix.WaitStatus(n), true
		}
	}
	return 0, false
}

func keptStatus(pidfd int) (unix.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(uint32(info.Exit_code)), true
}

// statFields are those of /proc/PID/stat from the state on, which is the third by proc_pid_stat(5); nil if there is no such process.
func statFields(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	_, rest, ok := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	if !ok {
		return nil
	}
	return strings.Fields(rest)
}

// beginning is when a process began, in clock ticks since the boot; 0 if there is no such process.
func beginning(pid int) uint64 {
	f := statFields(pid)
	if len(f) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(f[19], 10, 64)
	return n
}

func codeOf(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
