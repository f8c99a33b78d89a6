package rtnl

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Namespace is an open network namespace. It keeps the namespace alive until Close.
type Namespace struct{ fd int }

// NamespaceOf opens the namespace of a process.
func NamespaceOf(pid int) (*Namespace, error) {
	return namespaceAt("/proc/" + strconv.Itoa(pid) + "/ns/net")
}

// OwnNamespace opens the calling thread's.
func OwnNamespace() (*Namespace, error) { return namespaceAt("/proc/thread-self/ns/net") }

func namespaceAt(path string) (*Namespace, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open network namespace: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	return &Namespace{fd: fd}, nil
}

// FD is for requests that name the namespace; Close ends its life.
func (n *Namespace) FD() int { return n.fd }

// Same reports whether two are one namespace.
func (n *Namespace) Same(o *Namespace) bool {
	var a, b unix.Stat_t
	return unix.Fstat(n.fd, &a) == nil && unix.Fstat(o.fd, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return unix.Close(n.fd) }

// Do runs f on a thread inside the namespace; home is where the thread returns to. Sockets that f opens
// and files under /proc/sys/net that it writes belong to the namespace. A thread that can't return is thrown away.
func (n *Namespace) Do(home *Namespace, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("cannot enter network namespace: %w", err)
			return
		}
		err := f()
		if unix.Setns(home.fd, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// SetSysctl writes a setting of the calling thread's namespace; path is below /proc/sys/net.
func SetSysctl(path, value string) error {
	full := filepath.Join("/proc/sys/net", filepath.Clean("/"+path))
	fd, err := unix.Open(full, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: full, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: full, Err: err}
	}
	return nil
}
