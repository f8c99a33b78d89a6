package command

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"tare/internal/base/files"
)

// hubServer is Docker Hub's key in config.json.
const hubServer = "https://index.docker.io/v1/"

// ConfigFile is Docker's config.json: both command lines share it. Keys that
// Tare does not use are kept when it is written.
type ConfigFile struct {
	path string
	all  map[string]json.RawMessage

	Auths       map[string]authEntry
	CredsStore  string
	CredHelpers map[string]string
	// CurrentContext is the context that commands use, "" for the default one.
	CurrentContext string
}

type authEntry struct {
	Auth          string `json:"auth,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

// Folder is the folder of config.json: --config, TARE_CONFIG, DOCKER_CONFIG, ~/.docker.
func (e *Env) Folder() string {
	if dir := cmp.Or(e.ConfigDir, os.Getenv("TARE_CONFIG"), os.Getenv("DOCKER_CONFIG")); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	return filepath.Join(home, ".docker")
}

// Config reads config.json; a missing one is empty.
func (e *Env) Config() (*ConfigFile, error) {
	dir := e.Folder()
	c := &ConfigFile{path: filepath.Join(dir, "config.json"), all: map[string]json.RawMessage{}, Auths: map[string]authEntry{}}
	data, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.all); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", c.path, err)
	}
	for key, to := range map[string]any{"auths": &c.Auths, "credsStore": &c.CredsStore, "credHelpers": &c.CredHelpers, "currentContext": &c.CurrentContext} {
		if raw, ok := c.all[key]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return nil, fmt.Errorf("cannot read %s: %s: %w", c.path, key, err)
			}
		}
	}
	return c, nil
}

// ServerOf is a registry's key in config.json for an image name.
func ServerOf(name reference.Named) string {
	if d := reference.Domain(name); d != "docker.io" {
		return d
	}
	return hubServer
}

// Server is the key for what a person typed at login: "" is Docker Hub.
func Server(host string) string {
	host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://"), "/")
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io", "index.docker.io/v1":
		return hubServer
	}
	return host
}

// Credentials of a registry; empty ones if there are none.
func (c *ConfigFile) Credentials(server string) (registry.AuthConfig, error) {
	out := registry.AuthConfig{ServerAddress: server}
	if helper := c.helper(server); helper != "" {
		data, err := credentialHelper(helper, "get", server)
		if err != nil {
			if strings.Contains(err.Error(), "credentials not found") {
				return out, nil
			}
			return out, err
		}
		var got struct{ Username, Secret string }
		if err := json.Unmarshal(data, &got); err != nil {
			return out, fmt.Errorf("docker-credential-%s: %w", helper, err)
		}
		if got.Username == "<token>" {
			out.IdentityToken = got.Secret
		} else {
			out.Username, out.Password = got.Username, got.Secret
		}
		return out, nil
	}
	entry, ok := c.Auths[server]
	if !ok {
		for key, e := range c.Auths {
			if Server(key) == server {
				entry = e
			}
		}
	}
	out.IdentityToken = entry.IdentityToken
	if entry.Auth != "" {
		plain, err := base64.StdEncoding.DecodeString(entry.Auth)
		if err != nil {
			return out, fmt.Errorf("%s: auths: %s: auth is no base64: %w", c.path, server, err)
		}
		out.Username, out.Password, _ = strings.Cut(string(plain), ":")
	}
	return out, nil
}

// Store keeps credentials, with the helper that is configured or in config.json, whose path is
// returned then: what is in it is not encrypted.
func (c *ConfigFile) Store(a registry.AuthConfig) (plain string, err error) {
	if helper := c.helper(a.ServerAddress); helper != "" {
		user, secret := a.Username, a.Password
		if a.IdentityToken != "" {
			user, secret = "<token>", a.IdentityToken
		}
		in, err := json.Marshal(struct{ ServerURL, Username, Secret string }{a.ServerAddress, user, secret})
		if err != nil {
			return "", err
		}
		_, err = credentialHelper(helper, "store", string(in))
		return "", err
	}
	c.Auths[a.ServerAddress] = authEntry{
		Auth: base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password)), IdentityToken: a.IdentityToken,
	}
	return c.path, c.write()
}

// Erase forgets the credentials of a registry; known tells whether there were any.
func (c *ConfigFile) Erase(server string) (known bool, err error) {
	if helper := c.helper(server); helper != "" {
		_, err := credentialHelper(helper, "erase", server)
		return err == nil, err
	}
	if _, known = c.Auths[server]; !known {
		return false, nil
	}
	delete(c.Auths, server)
	return true, c.write()
}

// UseContext makes a context the current one; "" is the default one.
func (c *ConfigFile) UseContext(name string) error {
	c.CurrentContext = name
	return c.write()
}

func (c *ConfigFile) helper(server string) string {
	if h := c.CredHelpers[server]; h != "" {
		return h
	}
	return c.CredsStore
}

func (c *ConfigFile) write() error {
	raw, err := json.Marshal(c.Auths)
	if err != nil {
		return err
	}
	c.all["auths"] = raw
	if delete(c.all, "currentContext"); c.CurrentContext != "" {
		if c.all["currentContext"], err = json.Marshal(c.CurrentContext); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	if raw, err = json.MarshalIndent(c.all, "", "\t"); err != nil {
		return err
	}
	path := c.path
	if target, err := filepath.EvalSymlinks(path); err == nil { // a link stays one
		path = target
	}
	return files.Write(path, raw, 0o600, files.Synced)
}

func credentialHelper(name, verb, input string) ([]byte, error) {
	if strings.ContainsAny(name, "/\\") {
		return nil, fmt.Errorf("credential helper %q: a name, not a path", name)
	}
	cmd := exec.Command("docker-credential-"+name, verb)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("docker-credential-%s %s: %w: %s%s", name, verb, err, out, stderr.String())
	}
	return out, nil
}

// RegistryAuth is the X-Registry-Auth header for an image name.
func (e *Env) RegistryAuth(name reference.Named) (string, error) {
	c, err := e.Config()
	if err != nil {
		return "", err
	}
	a, err := c.Credentials(ServerOf(name))
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	return base64.URLEncoding.EncodeToString(data), nil
}

// AllAuth is every known credential, for builds that pull from anywhere.
func (e *Env) AllAuth() (map[string]registry.AuthConfig, error) {
	c, err := e.Config()
	if err != nil {
		return nil, err
	}
	servers := map[string]bool{}
	for s := range c.Auths {
		servers[s] = true
	}
	for s := range c.CredHelpers {
		servers[s] = true
	}
	out := map[string]registry.AuthConfig{}
	for s := range servers {
		a, err := c.Credentials(s)
		if err != nil {
			e.Warn("no credentials for %s: %v", s, err)
			continue
		}
		out[s] = a
	}
	return out, nil
}
