package launch

import (
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// runHookStep runs a hook in the container, and tells it its state with the pid that the container knows.
func runHookStep(st *plan.Step) error {
	state := `{"pid":` + strconv.Itoa(unix.Getpid()) + st.Data
	return RunHook(st.Path, st.List, st.Env, time.Duration(st.Num[0])*time.Second, []byte(state))
}

// maxHookOutput is how much of a failed hook's output an error quotes.
const maxHookOutput = 1024

// RunHook runs a hook to its end, with the state on its stdin. Without a timeout it may take for ever. The
// error of one that fails has what it wrote.
func RunHook(path string, args, env []string, timeout time.Duration, state []byte) error {
	if len(args) == 0 {
		args = []string{path}
	}
	in, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return because(err, "hook")
	}
	defer unix.Close(in)
	if _, err := unix.Pwrite(in, state, 0); err != nil {
		return because(err, "hook")
	}
	out, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return because(err, "hook")
	}
	defer unix.Close(out)
	pidfd := -1
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{uintptr(in), uintptr(out), uintptr(out)}, Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}}
	if attr.Env == nil {
		attr.Env = []string{}
	}
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		return because(errnoOfSyscall(err), "hook "+path)
	}
	defer unix.Close(pidfd)
	late := false
	if timeout > 0 {
		late = !ends(pidfd, timeout)
		if late {
			_ = unix.Kill(-pid, unix.SIGKILL)
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		}
	}
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	switch {
	case err != nil:
		return because(err, "hook "+path)
	case late:
		return &failure{errno: unix.ETIMEDOUT, detail: "hook " + path + " did not end within " + timeout.String() + said(out)}
	case ws.Signaled():
		return &failure{errno: unix.ECANCELED, detail: "hook " + path + " was killed by signal " + strconv.Itoa(int(ws.Signal())) + said(out)}
	case ws.ExitStatus() != 0:
		return &failure{errno: unix.ECANCELED, detail: "hook " + path + " exited with " + strconv.Itoa(ws.ExitStatus()) + said(out)}
	}
	return nil
}

// ends waits for a process until it is too late.
func ends(pidfd int, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for {
		left := time.Until(deadline)
		if left < 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 || err != nil && err != unix.EINTR {
			return true
		}
	}
}

// said is the end of what a hook wrote.
func said(out int) string {
	var st unix.Stat_t
	if unix.Fstat(out, &st) != nil || st.Size == 0 {
		return ""
	}
	b := make([]byte, maxHookOutput)
	n, err := unix.Pread(out, b, max(0, st.Size-maxHookOutput))
	if err != nil {
		return ""
	}
	return ": " + strings.TrimSpace(string(b[:n]))
}

func errnoOfSyscall(err error) error {
	if e, ok := err.(syscall.Errno); ok {
		return unix.Errno(e)
	}
	return err
}
