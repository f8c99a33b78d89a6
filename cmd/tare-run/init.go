package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName is how the engine's --init mounts this program into a container, as Docker does with its own.
const initName = "docker-init"

// asInit reports whether this process is pid 1 of a container with --init, called as "docker-init -- program args…".
func asInit() bool {
	return filepath.Base(os.Args[0]) == initName && len(os.Args) > 2 && os.Args[1] == "--"
}

// runInit runs the program, passes signals on to it, reaps everything that ends, and returns the program's exit code.
func runInit(args []string) int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "exec: %q: executable file not found in $PATH\n", args[0])
		return 127
	}
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if _, err := term(0); err == nil { // with a terminal the program gets it
		attr.Sys.Foreground, attr.Sys.Ctty = true, 0
	}
	child, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "exec: %q: %s\n", args[0], err)
		if errors.Is(err, syscall.ENOENT) {
			return 127
		}
		return 126
	}
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		case syscall.SIGURG, syscall.SIGTTIN, syscall.SIGTTOU: // the Go runtime's own, and job control's
		default:
			syscall.Kill(child, s.(syscall.Signal))
		}
	}
	return 0
}

// reap collects all that ended; ended is true when child did.
func reap(child int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == child {
			ended = true
			if code = status.ExitStatus(); status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}

// term returns the foreground process group of a terminal, an error where fd is none.
func term(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCGPGRP) }
