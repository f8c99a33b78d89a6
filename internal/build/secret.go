package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/build/execute"
	"tare/internal/build/graph"
)

// memoryDirs are file systems in memory, where they usually are: a secret is written to no other.
var memoryDirs = []string{"/dev/shm", "/run", "/tmp"}

// secrets keeps the secrets of steps that run in memory.
type secrets struct {
	root string // DATA_ROOT/build, after which the folder is named
}

// dir is the data root's folder for secrets that are in use. Whatever a killed engine left there is gone after the next start.
func (s secrets) dir() (string, error) {
	sum := sha256.Sum256([]byte(s.root))
	for _, d := range memoryDirs {
		var st unix.Statfs_t
		if unix.Statfs(d, &st) == nil && st.Type == unix.TMPFS_MAGIC {
			return filepath.Join(d, "tare-secrets-"+hex.EncodeToString(sum[:8])), nil
		}
	}
	return "", fault.Unavailable("cannot keep a secret: none of %s is a file system in memory", strings.Join(memoryDirs, ", "))
}

// sweep removes what a killed engine left.
func (s secrets) sweep() error {
	dir, err := s.dir()
	if err != nil {
		return nil
	}
	return os.RemoveAll(dir)
}

// step makes a folder in memory for one step. end has to be called.
func (s secrets) step() (dir string, end func(), err error) {
	base, err := s.dir()
	if err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(base, 0o700); err != nil && !os.IsExist(err) {
		return "", nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(base, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Getuid()) || st.Mode&0o077 != 0 {
		return "", nil, fault.Internal("%s is not the engine's own folder", base)
	}
	if dir, err = os.MkdirTemp(base, "step-"); err != nil {
		return "", nil, err
	}
	return dir, func() {
		os.RemoveAll(dir)
		os.Remove(base) // the last step's does it
	}, nil
}

// secret gives a step a secret as a file or a variable. One that the client does not have is left out, unless it is required.
func (w *worker) secret(ctx context.Context, m graph.Mount, dir func() (string, error), p *execute.Process) error {
	var value []byte
	err := fault.NotFound("the client has no secrets")
	if w.req.Peer != nil {
		value, err = w.req.Peer.Secret(ctx, m.ID)
	}
	if errdefs.IsNotFound(err) && !m.Required {
		return nil
	}
	if err != nil {
		return fmt.Errorf("secret %s: %w", m.ID, err)
	}
	d, err := dir() // for the variable too: the process's description holds it
	if err != nil {
		return err
	}
	if m.Env != "" {
		p.Env = append(p.Env, m.Env+"="+string(value))
	}
	if m.Target == "" {
		return nil
	}
	f, err := os.CreateTemp(d, "secret-")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(value); err != nil {
		return err
	}
	if err := errors.Join(f.Chown(int(m.UID), int(m.GID)), f.Chmod(os.FileMode(m.Mode&0o777))); err != nil {
		return err
	}
	p.Mounts = append(p.Mounts, execute.Bind(f.Name(), m.Target, true))
	return nil
}

// agent gives a step a socket behind which is the client's SSH agent. end has to be called.
func (w *worker) agent(ctx context.Context, m graph.Mount, dir string, n int, p *execute.Process) (end func(), err error) {
	if w.req.Peer == nil {
		if m.Required {
			return nil, fault.Invalid("the client has no SSH agent %q", m.ID)
		}
		return func() {}, nil
	}
	c, err := w.req.Peer.SSH(ctx, m.ID)
	if err != nil {
		if errdefs.IsNotFound(err) && !m.Required {
			return func() {}, nil
		}
		return nil, fmt.Errorf("SSH agent %s: %w", m.ID, err)
	}
	c.Close() // it is there
	socket := filepath.Join(dir, fmt.Sprint("agent", n))
	// A socket's path has 107 bytes at most; the folder's own descriptor makes it short.
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/agent%d", d.Fd(), n))
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chown(socket, int(m.UID), int(m.GID)), os.Chmod(socket, os.FileMode(m.Mode&0o777))); err != nil {
		l.Close()
		return nil, err
	}
	target := m.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
	p.Mounts = append(p.Mounts, execute.Bind(socket, target, false))
	if n == 0 {
		p.Env = append(p.Env, "SSH_AUTH_SOCK="+target)
	}
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	open.Go(func() {
		for {
			inside, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { w.forward(ctx, inside, m.ID) })
		}
	})
	return func() {
		cancel()
		l.Close()
		open.Wait()
	}, nil
}

// forward joins a step's connection with the client's agent.
func (w *worker) forward(ctx context.Context, inside net.Conn, id string) {
	defer inside.Close()
	outside, err := w.req.Peer.SSH(ctx, id)
	if err != nil {
		return
	}
	defer outside.Close()
	stop := context.AfterFunc(ctx, func() { inside.Close(); outside.Close() })
	defer stop()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
		go func() {
			io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}
