// Package contextstore is Docker's store of contexts, which both command lines share:
// named engines with their addresses and TLS files.
//
// A context NAME is the folder ID = sha256(NAME) in hex twice: meta/ID/meta.json says
// what it is, tls/ID/ENDPOINT/ has its TLS files. What other programs keep in meta.json stays there.
package contextstore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"tare/internal/base/files"
)

// Docker is the endpoint that contexts name engines by.
const Docker = "docker"

// Names of the TLS files of an endpoint.
const (
	CA   = "ca.pem"
	Cert = "cert.pem"
	Key  = "key.pem"
)

// Context is one context as meta.json has it.
type Context struct {
	Name      string
	Metadata  map[string]any
	Endpoints map[string]map[string]any
}

// New is a context for an engine at host.
func New(name, description, host string, skipVerify bool) Context {
	c := Context{Name: name, Metadata: map[string]any{}, Endpoints: map[string]map[string]any{}}
	c.Describe(description)
	c.SetHost(host, skipVerify)
	return c
}

// Describe sets the description; "" removes it.
func (c *Context) Describe(text string) {
	if text == "" {
		delete(c.Metadata, "Description")
		return
	}
	c.Metadata["Description"] = text
}

// Description is what a person said of the context.
func (c *Context) Description() string {
	s, _ := c.Metadata["Description"].(string)
	return s
}

// SetHost sets the engine's address.
func (c *Context) SetHost(host string, skipVerify bool) {
	c.Endpoints[Docker] = map[string]any{"Host": host, "SkipTLSVerify": skipVerify}
}

// Host is the engine's address, "" if the context names none.
func (c *Context) Host() string {
	s, _ := c.Endpoints[Docker]["Host"].(string)
	return s
}

// SkipVerify tells that the engine's certificate is not checked.
func (c *Context) SkipVerify() bool {
	b, _ := c.Endpoints[Docker]["SkipTLSVerify"].(bool)
	return b
}

// TLS is the content of TLS files: endpoint → file name → PEM.
type TLS map[string]map[string][]byte

// Files are the names of an endpoint's files.
func (t TLS) Files(endpoint string) []string { return slices.Sorted(maps.Keys(t[endpoint])) }

// Store is the folder of all contexts, "contexts" in the folder of config.json.
type Store struct{ dir string }

// Open returns the store in dir, which need not exist.
func Open(dir string) Store { return Store{dir} }

var validName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`) })

// CheckName refuses what Docker refuses as a context's name.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("context name cannot be empty")
	case name == "default":
		return errors.New(`"default" is a reserved context name`)
	case !validName().MatchString(name):
		return fmt.Errorf("context name %q is invalid, names are validated against regexp %q", name, validName())
	}
	return nil
}

func id(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// MetaDir and TLSDir are where a context's files are.
func (s Store) MetaDir(name string) string { return filepath.Join(s.dir, "meta", id(name)) }
func (s Store) TLSDir(name string) string  { return filepath.Join(s.dir, "tls", id(name)) }

func (s Store) meta(name string) string { return filepath.Join(s.MetaDir(name), "meta.json") }

// Has tells whether there is a context of that name.
func (s Store) Has(name string) bool {
	_, err := os.Stat(s.meta(name))
	return err == nil
}

// Get reads a context. The error is fs.ErrNotExist when there is none.
func (s Store) Get(name string) (Context, error) {
	c, err := read(s.meta(name))
	if err != nil {
		return c, fmt.Errorf("context %q: %w", name, notFound(err))
	}
	return c, nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("context not found: %w", err)
	}
	return err
}

func read(path string) (Context, error) {
	var c Context
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if c.Metadata == nil {
		c.Metadata = map[string]any{}
	}
	if c.Endpoints == nil {
		c.Endpoints = map[string]map[string]any{}
	}
	return c, nil
}

// List is all contexts by name. One that can't be read is an error.
func (s Store) List() ([]Context, error) {
	found, err := os.ReadDir(filepath.Join(s.dir, "meta"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []Context
	for _, e := range found {
		c, err := read(filepath.Join(s.dir, "meta", e.Name(), "meta.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile, or made by a program that was killed
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Put writes a context. TLS files of the endpoints that tls names are replaced by its own; nil leaves all as they are.
func (s Store) Put(c Context, tls TLS) error {
	for endpoint, contents := range tls {
		dir := filepath.Join(s.TLSDir(c.Name), endpoint)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if len(contents) == 0 {
			_ = os.Remove(s.TLSDir(c.Name)) // unless there are other endpoints
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		for name, pem := range contents {
			if err := os.WriteFile(filepath.Join(dir, name), pem, 0o600); err != nil {
				return err
			}
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.MetaDir(c.Name), 0o755); err != nil {
		return err
	}
	return files.Write(s.meta(c.Name), data, 0o644, files.Synced)
}

// TLS reads a context's TLS files.
func (s Store) TLS(name string) (TLS, error) {
	out := TLS{}
	root := s.TLSDir(name)
	endpoints, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		found, err := os.ReadDir(filepath.Join(root, e.Name()))
		if err != nil {
			return nil, err
		}
		out[e.Name()] = map[string][]byte{}
		for _, f := range found {
			if out[e.Name()][f.Name()], err = os.ReadFile(filepath.Join(root, e.Name(), f.Name())); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Remove removes a context and its TLS files.
func (s Store) Remove(name string) error {
	return errors.Join(os.RemoveAll(s.MetaDir(name)), os.RemoveAll(s.TLSDir(name)))
}
