package cgroup

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// holder is a process that does nothing but be in a group: systemd takes a scope only with
// a process, and ends it when the last is gone. It ends when its pipe does, so with whoever made it.
type holder struct{ pid, pipe int }

func hold() (*holder, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fault.Internal("cannot make a pipe: %w", err)
	}
	defer unix.Close(p[0])
	// No signal may reach the handlers of Go's runtime in a child that has only one thread of it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var buffer byte
	var all, was unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &was); err != nil {
		unix.Close(p[1])
		return nil, fault.Internal("cannot block signals: %w", err)
	}
	pid, errno := forkHolder(uintptr(p[0]), uintptr(unsafe.Pointer(&buffer)))
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &was, nil)
	if errno != 0 {
		unix.Close(p[1])
		return nil, fault.Internal("cannot start a process to hold a cgroup: %w", errno)
	}
	return &holder{pid: int(pid), pipe: p[1]}, nil
}

// forkHolder forks this process without an exec. As in the fork of package syscall, the child may
// only make system calls: no allocation, no lock, no stack growth. It has no exit
// signal, so that nobody's SIGCHLD handler is woken for it.
//
//go:norace
//go:noinline
func forkHolder(pipe, holdBuffer uintptr) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	syscall.RawSyscall(unix.SYS_DUP3, pipe, 0, 0)
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 1, ^uintptr(0)>>32, 0)
	syscall.RawSyscall(syscall.SYS_READ, 0, holdBuffer, 1)
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

func (h *holder) release() {
	unix.Close(h.pipe)
	for {
		if _, err := unix.Wait4(h.pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}
