// Package faults breaks things under a running engine: it kills the engine and its clients at any moment, fills disks, cuts
// connections, sends what nobody should send, and lets clients race. After each fault
// the engine has to tell clearly what happened, go on, and leave nothing behind.
//
//	footprint   all that an engine has on the host: mounts, cgroups, links, firewall elements, processes, files
//	moment      one kill of the engine in the middle of an operation
//
// Random moments come from a seed, which every failure prints; -faults.seed repeats them, -faults.moments makes them more.
package faults

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"tare/internal/test/harness"
)

var (
	seed    = flag.Uint64("faults.seed", 0, "seed of the random moments; 0 takes one from the clock")
	moments = flag.Int("faults.moments", 30, "how many random moments the engine is killed at")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	os.Exit(m.Run())
}

// dice are seeded; the seed is told.
func dice(t *testing.T) *rand.Rand {
	t.Logf("-faults.seed=%d", *seed)
	return rand.New(rand.NewPCG(*seed, 1))
}

// start starts an engine that clients reach without a proxy in between: killing it is no deviation from the API.
func start(t *testing.T, args ...string) *harness.Engine {
	t.Helper()
	e := harness.Start(t, args...)
	e.Client.Close()
	e.Proxy.Close()
	e.Proxy, e.Socket = nil, e.Direct
	connect(e)
	t.Cleanup(func() { e.Client.Close() })
	return e
}

// connect makes a new client, without connections to an engine that is gone.
func connect(e *harness.Engine) {
	e.T.Helper()
	c, err := client.New(client.WithHost("unix://" + e.Direct))
	if err != nil {
		e.T.Fatal(err)
	}
	if e.Client != nil {
		e.Client.Close()
	}
	e.Client = c
}

// relaunch starts a killed engine again.
func relaunch(e *harness.Engine) {
	e.T.Helper()
	e.Launch()
	connect(e)
}

// limited is a context that ends before the test's patience does.
func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// answer is what the API said.
type answer struct {
	status int
	body   string
}

// ask sends one request to the engine, without any client's help.
func ask(e *harness.Engine, method, path, contentType string, body io.Reader) (answer, error) {
	c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.Socket)
	}}}
	req, err := http.NewRequest(method, "http://tare"+path, body)
	if err != nil {
		return answer{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, strings.TrimSpace(string(data))}, err
}

// must is ask where no answer at all is a failure.
func must(e *harness.Engine, method, path, contentType string, body io.Reader) answer {
	e.T.Helper()
	a, err := ask(e, method, path, contentType, body)
	if err != nil {
		e.T.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// alive fails the test if the engine is another process than before, or does not run containers.
func alive(e *harness.Engine, image string) {
	e.T.Helper()
	if a := must(e, "GET", "/_ping", "", nil); a.status != 200 || a.body != "OK" {
		e.T.Fatalf("the engine does not answer: %+v", a)
	}
	if image == "" {
		return
	}
	if r := e.Try(nil, "run", "--rm", image, "echo", "alive"); r.Stdout != "alive\n" || r.Code != 0 {
		e.T.Fatalf("the engine runs no containers: %+v", r)
	}
}

// command is a command line client under way.
type command struct {
	*exec.Cmd
	out, err bytes.Buffer // to be read after its end
}

// begin starts a docker command line client, which the test may kill.
func begin(e *harness.Engine, stdin io.Reader, args ...string) *command {
	e.T.Helper()
	c := &command{Cmd: exec.Command("docker", args...)}
	c.Stdin, c.Stdout, c.Stderr, c.Env = stdin, &c.out, &c.err, e.Env()
	if err := c.Start(); err != nil {
		e.T.Fatal(err)
	}
	e.T.Cleanup(func() { c.Process.Kill() })
	return c
}

// purge removes everything that clients can remove, but images with names.
func purge(ctx context.Context, e *harness.Engine) error {
	var errs []error
	list, err := e.Client.ContainerList(ctx, client.ContainerListOptions{All: true})
	errs = append(errs, err)
	for _, c := range list.Items {
		_, err := e.Client.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		errs = append(errs, err)
	}
	for _, path := range []string{"/build/prune?all=1", "/images/prune", "/volumes/prune?filters=" + `%7B%22all%22%3A%5B%22true%22%5D%7D`, "/networks/prune"} {
		a, err := ask(e, "POST", path, "", nil)
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%s: %+v", path, a)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
