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
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		data, _ := os.ReadFile(path)
		return nil, fmt.Errorf("another engine (pid %s) uses the data root %s: stop it, or give this one its own --data-root and --exec-root", strings.TrimSpace(string(data)), dataRoot)
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

// PidFile writes this process's pid to path. A file of a living process is refused.
func PidFile(path string) error {
	if data, err := os.ReadFile(path); err == nil {
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err == nil && pid != os.Getpid() && isEngine(pid) {
			return fmt.Errorf("process with PID %d is still running: the pid file %s is its", pid, path)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return files.Write(path, []byte(strconv.Itoa(os.Getpid())), 0o644, files.Fast)
}

// isEngine tells whether a pid is a living tared, and not a later process that got its number.
func isEngine(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSpace(string(name)) == "tared"
}
