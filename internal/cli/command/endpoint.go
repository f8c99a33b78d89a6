package command

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tare/internal/cli/contextstore"
)

// DefaultContext is the name of the engine that no context names.
const DefaultContext = "default"

// Endpoint is an engine's address.
type Endpoint struct {
	Host string
	// Default tells that nobody named an engine: it may be started.
	Default bool
	// Context is the name of the context that names it, DefaultContext if none does.
	Context string

	// TLS files of the context, "" where it has none.
	ca, cert, key string
	skipVerify    bool
}

// Contexts is the store of contexts.
func (e *Env) Contexts() contextstore.Store {
	return contextstore.Open(filepath.Join(e.Folder(), "contexts"))
}

// hostInEnvironment is TARE_HOST or DOCKER_HOST.
func hostInEnvironment() string { return cmp.Or(os.Getenv("TARE_HOST"), os.Getenv("DOCKER_HOST")) }

// CurrentContext is the context in use: --context, or the one that `tare context use` or `docker context use` chose, or DefaultContext,
// which it also is when --host or an environment variable names an engine.
func (e *Env) CurrentContext() (string, error) {
	switch {
	case e.Context != "":
		if e.Host != "" {
			return "", errors.New("conflicting options: cannot specify both --host and --context")
		}
		return e.Context, nil
	case e.Host != "" || hostInEnvironment() != "":
		return DefaultContext, nil
	}
	if name := cmp.Or(os.Getenv("TARE_CONTEXT"), os.Getenv("DOCKER_CONTEXT")); name != "" {
		return name, nil
	}
	config, err := e.Config()
	if err != nil {
		return "", err
	}
	return cmp.Or(config.CurrentContext, DefaultContext), nil
}

// DefaultEndpoint is the engine that no context names: --host, then TARE_HOST, then DOCKER_HOST, then DefaultHost.
func (e *Env) DefaultEndpoint() Endpoint {
	host := cmp.Or(e.Host, hostInEnvironment())
	return Endpoint{Host: cmp.Or(host, DefaultHost), Default: host == "", Context: DefaultContext}
}

// Endpoint is the engine that commands talk to.
func (e *Env) Endpoint() (Endpoint, error) {
	name, err := e.CurrentContext()
	if err != nil {
		return Endpoint{}, err
	}
	if name == DefaultContext {
		return e.DefaultEndpoint(), nil
	}
	return e.contextEndpoint(name)
}

func (e *Env) contextEndpoint(name string) (Endpoint, error) {
	store := e.Contexts()
	c, err := store.Get(name)
	if err != nil {
		return Endpoint{}, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err)
	}
	if c.Host() == "" {
		return Endpoint{}, fmt.Errorf("context %q names no engine: it has no docker endpoint with a Host", name)
	}
	out := Endpoint{Host: c.Host(), Context: name, skipVerify: c.SkipVerify()}
	for file, to := range map[string]*string{contextstore.CA: &out.ca, contextstore.Cert: &out.cert, contextstore.Key: &out.key} {
		path := filepath.Join(store.TLSDir(name), contextstore.Docker, file)
		if _, err := os.Stat(path); err == nil {
			*to = path
		} else if !errors.Is(err, fs.ErrNotExist) {
			return Endpoint{}, err
		}
	}
	return out, nil
}

// CheckHost refuses what is no address of an engine.
func CheckHost(host string) error {
	if host == "" {
		return nil
	}
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok || rest == "" {
		return fmt.Errorf("unable to parse docker host `%s`", host)
	}
	if !slices.Contains([]string{"unix", "tcp", "http", "https", "ssh"}, scheme) {
		return fmt.Errorf("engine address %s: %s is none of unix, tcp, ssh", host, scheme)
	}
	return nil
}
