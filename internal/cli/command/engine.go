package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// engineStart is how long a new engine may take until it answers.
const engineStart = 15 * time.Second

// engineLog is where an engine that this program started writes its messages.
const engineLog = "/var/log/tared.log"

// NoEngine is what to say when nobody answers.
func NoEngine(e *Env) string {
	if e.startError != nil {
		return e.startError.Error()
	}
	to, err := e.Endpoint()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("Cannot connect to the Docker daemon at %s. Is the docker daemon running?\n"+
		"Start an engine there with `tared --host %s`, or name another with -H, TARE_HOST or DOCKER_HOST.", to.Host, to.Host)
}

// dialOrStart connects to the default socket. If nobody listens there and this user may, it starts `tared`
// first: no question is asked when an engine is running.
func (e *Env) dialOrStart(ctx context.Context, _, _ string) (net.Conn, error) {
	path := strings.TrimPrefix(DefaultHost, "unix://")
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	absent := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
	if !absent || os.Geteuid() != 0 || os.Getenv("TARE_NO_AUTOSTART") != "" {
		return conn, err
	}
	if e.startError = startEngine(ctx, path); e.startError != nil {
		return nil, e.startError
	}
	return d.DialContext(ctx, "unix", path)
}

// startEngine starts `tared` and waits until it answers on socket. Of several that try at once, one does it
// and the others wait.
func startEngine(ctx context.Context, socket string) error {
	program, err := engineProgram()
	if err != nil {
		return fmt.Errorf("no engine answers on unix://%s, and cannot start one: %w", socket, err)
	}
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return fmt.Errorf("cannot start the engine: %w", err)
	}
	lock, err := os.OpenFile(socket+".start", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot start the engine: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("cannot lock %s: %w", lock.Name(), err)
	}
	if answers(socket) { // another one was faster
		return nil
	}
	log, err := os.OpenFile(engineLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("cannot open the engine's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(program)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the engine %s: %w", program, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for !answers(socket) {
		select {
		case err := <-exited:
			if answers(socket) { // one that somebody started otherwise
				return nil
			}
			return fmt.Errorf("the engine %s ended at once (%w); %s says why", program, err, engineLog)
		case <-ctx.Done():
			return fmt.Errorf("the engine %s was started but does not answer on unix://%s; see %s", program, socket, engineLog)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func answers(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// engineProgram finds tared beside this program, then on PATH.
func engineProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "tared")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("tared")
	if err != nil {
		return "", errors.New("tared is neither beside tare nor on PATH")
	}
	return path, nil
}
