// Package harness starts real engines for tests: tared with roots, bridge, address
// range and supervisor of its own, behind a proxy that holds every answer against the API's description.
//
//	e := harness.Start(t)
//	image := e.Tools()                       // an image of test commands, pulled from a registry in this process
//	out := e.Docker("run", "--rm", image, "echo", "hi")
//	e.Client.ContainerList(ctx, …)           // the Go client
//
// What an engine leaves is removed when its test ends, also when it failed: containers,
// networks, supervisor, bridge, firewall table, folders. Deviations from the description fail the test.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"tare/internal/test/swagger"
)

// Engine is a running tared.
type Engine struct {
	T        testing.TB
	Dir      string // of all that follows
	DataRoot string
	ExecRoot string
	Direct   string // the engine's own unix socket
	Socket   string // the proxy's: what clients should use
	Client   *client.Client
	Proxy    *swagger.Proxy
	LogFile  string // what tared logs
	Bin      string // folder of the programs
	Host     Host

	args     []string
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd has ended
	registry string        // host:port, "" until Registry
}

// Start starts an engine with further flags and waits until it answers.
func Start(t testing.TB, args ...string) *Engine {
	t.Helper()
	bin := Programs(t)
	dir, err := os.MkdirTemp("", "tare-h-")
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{
		T: t, Dir: dir, DataRoot: filepath.Join(dir, "data"), ExecRoot: filepath.Join(dir, "exec"),
		Direct: filepath.Join(dir, "tared.sock"), Socket: filepath.Join(dir, "api.sock"),
		LogFile: filepath.Join(dir, "tared.log"), Bin: bin, args: args,
	}
	e.Host = newHost(dir, e.DataRoot, e.ExecRoot)
	t.Cleanup(e.cleanup)
	e.Launch()
	if e.Proxy, err = swagger.NewProxy(e.Socket, e.Direct); err != nil {
		t.Fatal(err)
	}
	if e.Client, err = client.New(client.WithHost("unix://" + e.Socket)); err != nil {
		t.Fatal(err)
	}
	return e
}

// Launch starts tared again after Kill or Stop.
func (e *Engine) Launch() {
	e.T.Helper()
	log, err := os.OpenFile(e.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		e.T.Fatal(err)
	}
	defer log.Close()
	args := append([]string{
		"--data-root", e.DataRoot, "--exec-root", e.ExecRoot, "--host", "unix://" + e.Direct, "--pidfile", filepath.Join(e.Dir, "tared.pid"),
		"--config-file", filepath.Join(e.Dir, "daemon.json"), "--debug", "--group", "",
	}, e.args...)
	if _, err := os.Stat(filepath.Join(e.Dir, "daemon.json")); errors.Is(err, os.ErrNotExist) {
		os.WriteFile(filepath.Join(e.Dir, "daemon.json"), []byte("{}"), 0o600)
	}
	e.cmd = exec.Command(filepath.Join(e.Bin, "tared"), args...)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	// A session of its own, so that a Ctrl-C at the tests ends the tests, which then clean up.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := e.cmd.Start(); err != nil {
		e.T.Fatal(err)
	}
	cmd, ended := e.cmd, make(chan struct{})
	e.ended = ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
	if err := e.awaitPing(30 * time.Second); err != nil {
		e.T.Fatalf("the engine does not answer: %v\n%s", err, e.Log())
	}
}

// awaitPing asks until the engine answers or ends.
func (e *Engine) awaitPing(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	c := e.http()
	defer c.CloseIdleConnections()
	for {
		res, err := c.Get("http://tare/_ping")
		if err == nil {
			res.Body.Close()
			return nil
		}
		select {
		case <-e.ended:
			return errors.New("tared ended")
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

func (e *Engine) http() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.Direct)
	}}}
}

// Pid is tared's.
func (e *Engine) Pid() int { return e.cmd.Process.Pid }

// Kill ends tared with SIGKILL.
func (e *Engine) Kill() {
	e.cmd.Process.Kill()
	<-e.ended
}

// Stop ends tared with SIGTERM and waits.
func (e *Engine) Stop() {
	e.T.Helper()
	e.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.ended:
	case <-time.After(30 * time.Second):
		e.T.Errorf("tared does not end after SIGTERM\n%s", e.Log())
		e.Kill()
	}
}

// Restart is Kill or Stop, then Launch.
func (e *Engine) Restart(kill bool) {
	e.T.Helper()
	if kill {
		e.Kill()
	} else {
		e.Stop()
	}
	e.Launch()
}

// Log is the end of what tared logged.
func (e *Engine) Log() string {
	data, err := os.ReadFile(e.LogFile)
	if err != nil {
		return err.Error()
	}
	if len(data) > 16<<10 {
		data = data[len(data)-16<<10:]
	}
	return string(data)
}

// Result is what a command line client did.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Try runs the docker command line against the engine.
func (e *Engine) Try(stdin io.Reader, args ...string) Result {
	e.T.Helper()
	return e.run(exec.Command("docker", args...), stdin)
}

// Tare runs the tare command line against the engine.
func (e *Engine) Tare(stdin io.Reader, args ...string) Result {
	e.T.Helper()
	return e.run(exec.Command(filepath.Join(e.Bin, "tare"), args...), stdin)
}

func (e *Engine) run(cmd *exec.Cmd, stdin io.Reader) Result {
	e.T.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	cmd.Env = e.Env()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.T.Fatalf("%v: %v", cmd.Args, err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// Env is the environment for command line clients.
func (e *Engine) Env() []string {
	return append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "TARE_HOST=unix://"+e.Socket, "DOCKER_CONFIG="+filepath.Join(e.Dir, "client"), "DOCKER_BUILDKIT=0")
}

// Docker runs the docker command line, which must succeed, and returns its output without the last newline.
func (e *Engine) Docker(args ...string) string {
	e.T.Helper()
	r := e.Try(nil, args...)
	if r.Code != 0 {
		e.T.Fatalf("docker %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Until polls a condition for at most 15 seconds.
func (e *Engine) Until(what string, cond func() bool) {
	e.T.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			e.T.Fatalf("%s did not come to pass", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Report fails the test for every deviation from the API's description so far.
func (e *Engine) Report() {
	e.T.Helper()
	problems := e.Proxy.Checker.Problems()
	slices.Sort(problems)
	e.T.Logf("operations seen: %v", e.Proxy.Checker.Seen())
	for _, p := range problems {
		e.T.Errorf("deviation from the API's description: %s", p)
	}
}

func (e *Engine) cleanup() {
	if e.Proxy != nil {
		e.Report()
		e.Client.Close()
		e.Proxy.Close()
	}
	if e.cmd == nil || e.cmd.Process == nil {
		os.RemoveAll(e.Dir)
		return
	}
	if e.T.Failed() {
		e.T.Logf("--- tared's log ---\n%s", e.Log())
	}
	defer func() { // also of an engine that can't be started again
		e.Host.killAll()
		if err := e.Host.sweep(); err != nil {
			e.T.Errorf("cannot clean the host: %v", err)
		}
		if err := os.RemoveAll(e.Dir); err != nil {
			e.T.Errorf("cannot remove the engine's folders: %v", err)
		}
	}()
	select {
	case <-e.ended:
		e.Launch() // a dead engine can't remove its containers
	default:
	}
	if err := e.removeAll(); err != nil {
		e.T.Errorf("cannot remove what the test left: %v", err)
	}
	e.Stop()
}

// removeAll removes containers and networks through the engine.
func (e *Engine) removeAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.WithHost("unix://" + e.Direct))
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return err
	}
	var errs []error
	for _, x := range list.Items {
		if _, err := c.ContainerRemove(ctx, x.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !strings.Contains(err.Error(), "No such container") {
			errs = append(errs, err)
		}
	}
	networks, err := c.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, n := range networks.Items {
		if n.Name == "bridge" || n.Name == "host" || n.Name == "none" {
			continue
		}
		if _, err := c.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.Name, err))
		}
	}
	return errors.Join(errs...)
}
