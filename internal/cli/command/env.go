// Package command is what every command of `tare` has in common: the
// environment it runs in (streams, engine connection, configuration), how it
// fails (exit codes), and how flags that several commands share are read.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	"golang.org/x/term"

	"tare/internal/cli/output"
)

// DefaultHost is where `tared` listens unless told otherwise.
const DefaultHost = "unix:///run/tare/tared.sock"

// APIVersion is the newest version of the Engine API that this program speaks. It is
// the stock client 28.2's: what `inspect` prints is the answer as it came, and newer versions leave out fields
// that scripts read, like .NetworkSettings.IPAddress.
const APIVersion = "1.50"

// Env is what a command runs in.
type Env struct {
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File

	// Host is the --host flag, "" if it was not given.
	Host string
	// Context is the --context flag, "" if it was not given.
	Context string
	// ConfigDir is the --config flag, "" if it was not given.
	ConfigDir string
	// TLS is the --tls flags.
	TLS TLS
	// Debug prints the requests that the engine gets.
	Debug bool
	// Version of this program.
	Version string

	// Interrupts is what ends the program: the signals that it got.
	Interrupts chan os.Signal

	client     *client.Client
	startError error // why no engine could be started
}

// TakeSignals says that from now on signals are not for this program but for a container.
func (e *Env) TakeSignals() {
	if e.Interrupts != nil {
		signal.Stop(e.Interrupts)
	}
}

// Out is where results go.
func (e *Env) Out() io.Writer { return e.Stdout }

// StdinTTY, StdoutTTY tell whether the stream is a terminal.
func (e *Env) StdinTTY() bool  { return term.IsTerminal(int(e.Stdin.Fd())) }
func (e *Env) StdoutTTY() bool { return term.IsTerminal(int(e.Stdout.Fd())) }

// Warn prints a line for the person, never part of the result.
func (e *Env) Warn(format string, args ...any) {
	fmt.Fprintf(e.Stderr, "WARNING: "+format+"\n", args...)
}

// Client returns the connection to the engine. If nobody named an engine and
// none answers on the default socket, it starts one.
func (e *Env) Client(ctx context.Context) (*client.Client, error) {
	if e.client != nil {
		return e.client, nil
	}
	to, err := e.Endpoint()
	if err != nil {
		return nil, err
	}
	opts, err := e.transport(to)
	if err != nil {
		return nil, err
	}
	opts = append(opts, client.WithUserAgent("tare/"+e.Version), client.WithAPIVersionFromEnv())
	if e.Debug {
		opts = append(opts, e.trace()...)
	}
	named := os.Getenv(client.EnvOverrideAPIVersion) != ""
	if !named {
		opts = append(opts, client.WithAPIVersion(APIVersion))
	}
	if to.Default {
		opts = append(opts, client.WithDialContext(e.dialOrStart))
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("cannot use engine address %s: %w", to.Host, err)
	}
	// Our own engine speaks APIVersion; another one is asked, on the connection that the work goes on with.
	if !to.Default && !named {
		if _, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true, ForceNegotiate: true}); err != nil {
			return nil, err
		}
	}
	e.client = c
	return c, nil
}

// transport is how an engine is reached.
func (e *Env) transport(to Endpoint) ([]client.Opt, error) {
	if strings.HasPrefix(to.Host, "ssh://") {
		return sshOptions(to.Host)
	}
	opts, err := e.TLS.options(e.Folder(), to)
	return append(opts, client.WithHost(to.Host)), err
}

// ExitError ends the program with a code. Its message, if any, is printed as it is.
type ExitError struct {
	Code    int
	Message string
}

func (e *ExitError) Error() string { return e.Message }

// ExitCode is the program's exit code for err: 0, the code that err carries, or 1.
func ExitCode(err error) int {
	var exit *ExitError
	var template *output.TemplateError
	var told *jsonstream.Error // of a build: the code of the RUN that failed
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	case errors.As(err, &template):
		return 64
	case errors.As(err, &told) && told.Code > 0 && told.Code < 256:
		return told.Code
	}
	return 1
}

// Each calls f for every name, prints what f prints, goes on after failures and
// returns them all in one error, one a line, as Docker does.
func Each(names []string, f func(name string) error) error {
	var errs []error
	for _, n := range names {
		if err := f(n); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Colour tells whether the standard output is for eyes that like colours (https://no-color.org).
func (e *Env) Colour() bool { return e.StdoutTTY() && os.Getenv("NO_COLOR") == "" }
