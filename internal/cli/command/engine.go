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
)

// engineStart is how long a new engine may take until it answers.
const engineStart = 15 * time.Second

// engineLog is where an engine that this program started writes its messages.
const engineLog = "/var/log/tared.log"

// NoEngine is what to say when nobody answers.
func NoEngine(e *Env) string {
	host, _ := e.Endpoint()
	return fmt.Sprintf("Cannot connect to the Docker daemon at %s. Is the docker daemon running?\n"+
		"Start an engine there with `tared --host %s`, or name another with -H, TARE_HOST or DOCKER_HOST.", host, host)
}

// ensureEngine starts `tared` if nothing listens on host and this user may.
func (e *Env) ensureEngine(ctx context.Context, host string) error {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok || answers(path) {
		return nil
	}
	if os.Geteuid() != 0 || os.Getenv("TARE_NO_AUTOSTART") != "" {
		return nil // the call itself says that nobody answers
	}
	program, err := engineProgram()
	if err != nil {
		return fmt.Errorf("no engine answers on %s, and cannot start one: %w", host, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
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
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	for !answers(path) {
		select {
		case err := <-exited:
			if answers(path) { // another one was faster
				return nil
			}
			return fmt.Errorf("the engine %s ended at once (%v); see %s", program, err, engineLog)
		case <-ctx.Done():
			return fmt.Errorf("the engine %s was started but does not answer on %s; see %s", program, host, engineLog)
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
