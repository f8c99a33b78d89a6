// Package single keeps a second engine away from a data root, and writes the pid file.
//
// The lock is flock(2) on DATA_ROOT/tared.lock: it ends with the process, however that ends.
package single

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/files"
)

// Lock takes the data root for this process; the folder is made if it isn't there. The lock holds until
// the returned file is closed.
func Lock(dataRoot string) (*os.File, error) {
	if err := os.MkdirAll(dataRoot, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make the data root: %w", err)
	}
	path := filepath.Join(dataRoot, "tared.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the data root: %w", err)
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("another engine (pid %d) uses the data root %s: stop it, or give this one its own --data-root and --exec-root", owner(path), dataRoot)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// flock locks f. An engine that was killed keeps its lock until the kernel has taken it apart; that is waited for, a second at most.
func flock(f *os.File) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || alive(owner(f.Name())) || time.Now().After(deadline) {
			return err
		}
	}
}

// owner is the pid in the lock's file, 0 if there is none.
func owner(path string) int {
	data, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// alive is false for a process that is gone, or has let go of its program on its way to be a zombie (proc(5)).
func alive(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return pid > 0 && err == nil
}

// PidFile writes this process's pid to path, for people and service managers. Whatever pid it has from before means nothing: the
// number may belong to a dead engine that nobody waited for yet, or to another process by now. The lock alone decides.
func PidFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return files.Write(path, []byte(strconv.Itoa(os.Getpid())), 0o644, files.Fast)
}

// RemovePidFile removes path if it is this process's.
func RemovePidFile(path string) {
	if data, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(data)) == strconv.Itoa(os.Getpid()) {
		os.Remove(path)
	}
}
