package oci

import (
	"encoding/json"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/netdevice"
)

// follow does what the child waits for on its way: hooks, network devices, a seccomp listener. It is back when
// the child is created, or started; its failures are errors.
func (g *global) follow(child *launch.Process, pidfd int, s *specs.Spec, r *record, status specs.ContainerState) (launch.Message, error) {
	for {
		m, err := child.Next()
		if err == nil {
			err = m.Err
		}
		if err == nil {
			switch {
			case m.Runtime:
				err = g.prepareRuntime(s, r)
			case m.Notify != 0:
				err = sendListener(pidfd, m.Notify, s.Linux.Seccomp, r.state(status))
			default:
				return m, nil
			}
		}
		if err == nil {
			err = child.On()
		}
		if err != nil {
			return m, err
		}
	}
}

// prepareRuntime is the runtime's own part while the container is there and its root is not yet "/".
func (g *global) prepareRuntime(s *specs.Spec, r *record) error {
	if len(s.Linux.NetDevices) != 0 {
		if err := netdevice.Move(r.Pid, s.Linux.NetDevices); err != nil {
			return err
		}
	}
	if s.Hooks == nil {
		return nil
	}
	state := r.state(specs.StateCreating)
	if err := g.runHooks("prestart", s.Hooks.Prestart, state); err != nil { //nolint:staticcheck // deprecated, still in the spec
		return err
	}
	return g.runHooks("createRuntime", s.Hooks.CreateRuntime, state)
}

// runHooks runs them in order, in the runtime's namespaces, up to the first that fails.
func (g *global) runHooks(kind string, hooks []specs.Hook, state specs.State) error {
	if len(hooks) == 0 {
		return nil
	}
	b, err := json.Marshal(state)
	if err != nil {
		return fault.Internal("the state of container %s: %w", state.ID, err)
	}
	for i, h := range hooks {
		var timeout time.Duration
		if h.Timeout != nil {
			timeout = time.Duration(*h.Timeout) * time.Second
		}
		if err := launch.RunHook(h.Path, h.Args, h.Env, timeout, b); err != nil {
			return fault.Internal("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

// sendListener gives the seccomp listener of a process to whoever the profile names (config-linux.md, "The Container Process State").
func sendListener(pidfd, fd int, profile *specs.LinuxSeccomp, state specs.State) error {
	listener, err := launch.Listener(pidfd, fd)
	if err != nil {
		return err
	}
	defer listener.Close()
	text, err := json.Marshal(specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: state.Pid,
		Metadata: profile.ListenerMetadata, State: state})
	if err != nil {
		return err
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(sock)
		err = unix.Connect(sock, &unix.SockaddrUnix{Name: profile.ListenerPath})
	}
	rights := unix.UnixRights(int(listener.Fd()))
	for err == nil && len(text) > 0 {
		var n int
		n, err = unix.SendmsgN(sock, text, rights, nil, unix.MSG_NOSIGNAL)
		text, rights = text[max(n, 0):], nil
	}
	if err != nil {
		return fault.Invalid("cannot send the seccomp listener to %s: %w", profile.ListenerPath, err)
	}
	return nil
}
