// Package config reads the one file that configures tare-registry: YAML, every key of
// which stands in docs/registry.md. A key that is not known, or a value that can't be meant, is refused with
// file and line; nothing is ignored.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"tare/internal/base/fault"
)

// Config is the whole file. The zero value, with a root, is a registry that is open to everybody.
type Config struct {
	Root      string      `yaml:"root"`   // folder of the registry
	Listen    string      `yaml:"listen"` // host:port
	Admin     string      `yaml:"admin"`  // host:port of metrics and health alone; "" serves neither there
	URL       string      `yaml:"url"`    // how clients reach it: realm of tokens, webhooks
	TLS       TLS         `yaml:"tls"`
	Log       Log         `yaml:"log"`
	Auth      Auth        `yaml:"auth"`
	Rights    []Right     `yaml:"rights"`
	Audit     Audit       `yaml:"audit"`
	Limits    Limits      `yaml:"limits"`
	Immutable []Immutable `yaml:"immutable"`
	Retention []Retention `yaml:"retention"`
	Caches    []Cache     `yaml:"caches"`
	Webhooks  []Webhook   `yaml:"webhooks"`
	GC        GC          `yaml:"gc"`
}

// TLS makes it HTTPS. The files are read again when they change.
type TLS struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"clientCA"` // authorities of client certificates, which are then required
}

// Log is the log on standard error.
type Log struct {
	Level  string `yaml:"level"`  // info (every request), warn, error
	Format string `yaml:"format"` // text, json
}

// Auth says who clients are and how they prove it.
type Auth struct {
	Scheme   string   `yaml:"scheme"`   // none, token, basic
	Htpasswd string   `yaml:"htpasswd"` // file of users, bcrypt only, beside the registry's own accounts
	Service  string   `yaml:"service"`  // name of the registry in tokens
	Lifetime Duration `yaml:"lifetime"` // of a token
	Refresh  Duration `yaml:"refresh"`  // of an identity token that docker login keeps
}

// Right lets somebody do something in some repositories. Whatever no right allows is refused.
type Right struct {
	Repositories []string `yaml:"repositories"` // patterns; ${user} is the name of who asks
	Anonymous    bool     `yaml:"anonymous"`    // everybody, with or without a name
	Users        []string `yaml:"users"`        // names; "*" is everybody with a name
	Groups       []string `yaml:"groups"`       // of the registry's own accounts
	Actions      []string `yaml:"actions"`      // pull, push, delete, admin
}

// Audit is the record of who did what, as JSON lines.
type Audit struct {
	File string `yaml:"file"` // reopened at SIGHUP
}

// Limits are upper bounds; 0 is none, save for Manifest.
type Limits struct {
	Manifest         Size    `yaml:"manifest"`         // longest manifest
	Blob             Size    `yaml:"blob"`             // longest blob
	Uploads          int     `yaml:"uploads"`          // requests with blobs at once
	UploadsPerClient int     `yaml:"uploadsPerClient"` // the same, of one user or address
	Rate             float64 `yaml:"rate"`             // requests a second of one user or address
	Burst            int     `yaml:"burst"`            // how many may come at once
	Free             Size    `yaml:"free"`             // pushes are refused when less is free on the disk
}

// Immutable are tags that never move once they are set.
type Immutable struct {
	Repositories []string `yaml:"repositories"`
	Tags         []string `yaml:"tags"`
	Except       []string `yaml:"except"` // tags that may move all the same
}

// Retention says what goes by itself.
type Retention struct {
	Repositories []string `yaml:"repositories"`
	Tags         []string `yaml:"tags"`     // which the rule is about
	Except       []string `yaml:"except"`   // tags it never takes
	Keep         int      `yaml:"keep"`     // the newest so many stay
	For          Duration `yaml:"for"`      // younger ones stay
	Untagged     Duration `yaml:"untagged"` // manifests without a tag go after this time; 0 is never
	Unused       Duration `yaml:"unused"`   // what nobody pulled for this long goes, tagged or not; 0 is never
}

// Cache is a part of the registry that is filled by another registry.
type Cache struct {
	Prefix       string   `yaml:"prefix"`   // repositories PREFIX/x are x upstream; "" is all of the registry
	Upstream     string   `yaml:"upstream"` // https://registry-1.docker.io
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"passwordFile"`
	Fresh        Duration `yaml:"fresh"`   // a tag is served that long without asking upstream
	Timeout      Duration `yaml:"timeout"` // how long upstream may take for a tag that is here
	Certs        string   `yaml:"certs"`   // folder of certificates by host, as /etc/docker/certs.d
	Insecure     bool     `yaml:"insecure"`
}

// Webhook is told what happens.
type Webhook struct {
	Name         string            `yaml:"name"`
	URL          string            `yaml:"url"`
	Headers      map[string]string `yaml:"headers"`
	SecretFile   string            `yaml:"secretFile"` // signs each delivery
	Events       []string          `yaml:"events"`     // push, pull, delete, mount
	Repositories []string          `yaml:"repositories"`
	Timeout      Duration          `yaml:"timeout"`
	GiveUp       Duration          `yaml:"giveUp"` // after this time an event is dropped
}

// GC is the removal of what nothing refers to, while the registry serves.
type GC struct {
	Interval Duration `yaml:"interval"` // between two runs; negative is never
	Grace    Duration `yaml:"grace"`    // how long a blob waits for its manifest
	Uploads  Duration `yaml:"uploads"`  // how long an upload waits for its next chunk
}

// Default values, where a zero would not do.
const (
	DefaultListen   = "127.0.0.1:5000"
	DefaultManifest = Size(4 << 20)
	DefaultGrace    = Duration(time.Hour)
	DefaultInterval = Duration(30 * time.Second)
	DefaultUploads  = Duration(7 * 24 * time.Hour)
)

// Read reads, completes and checks a file.
func Read(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	return Parse(path, data)
}

var unknownKey = regexp.MustCompile(`^line (\d+): field (\S+) not found in type .*$`)

// Parse is Read for what was read; path is for messages.
func Parse(path string, data []byte) (*Config, error) {
	c := &Config{}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	err := d.Decode(c)
	if errors.Is(err, io.EOF) {
		err = nil // an empty file
	}
	if err == nil {
		if extra := d.Decode(new(yaml.Node)); !errors.Is(extra, io.EOF) {
			return nil, fault.Invalid("%s: one document is allowed", path)
		}
	}
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		var all []string
		for _, e := range typed.Errors {
			if m := unknownKey.FindStringSubmatch(e); m != nil {
				e = fmt.Sprintf("line %s: unknown key %q", m[1], m[2])
			}
			all = append(all, atLine(path, e))
		}
		return nil, fault.Invalid("%s", strings.Join(all, "\n"))
	}
	if err != nil {
		return nil, fault.Invalid("%s", atLine(path, strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	c.Complete()
	if err := c.check(); err != nil {
		return nil, fault.Invalid("%s: %w", path, err)
	}
	return c, nil
}

var lineNumber = regexp.MustCompile(`^line (\d+): `)

func atLine(path, message string) string {
	if m := lineNumber.FindStringSubmatch(message); m != nil {
		return path + ":" + m[1] + ": " + message[len(m[0]):]
	}
	return path + ": " + message
}

// Complete sets defaults.
func (c *Config) Complete() {
	set(&c.Listen, DefaultListen)
	set(&c.Log.Level, "info")
	set(&c.Log.Format, "text")
	set(&c.Auth.Scheme, "none")
	set(&c.Auth.Service, "tare-registry")
	set(&c.Auth.Lifetime, Duration(5*time.Minute))
	set(&c.Auth.Refresh, Duration(30*24*time.Hour))
	set(&c.Limits.Manifest, DefaultManifest)
	set(&c.GC.Interval, DefaultInterval)
	set(&c.GC.Grace, DefaultGrace)
	set(&c.GC.Uploads, DefaultUploads)
	if c.Limits.Rate > 0 {
		set(&c.Limits.Burst, int(c.Limits.Rate)+1)
	}
	for i := range c.Caches {
		set(&c.Caches[i].Fresh, Duration(time.Minute))
		set(&c.Caches[i].Timeout, Duration(5*time.Second))
	}
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		set(&w.Timeout, Duration(10*time.Second))
		set(&w.GiveUp, Duration(24*time.Hour))
		if w.Events == nil {
			w.Events = []string{"push", "delete", "mount"}
		}
		if w.Repositories == nil {
			w.Repositories = []string{"**"}
		}
	}
	for i := range c.Retention {
		if c.Retention[i].Tags == nil {
			c.Retention[i].Tags = []string{"*"}
		}
	}
	for i := range c.Immutable {
		if c.Immutable[i].Tags == nil {
			c.Immutable[i].Tags = []string{"*"}
		}
	}
}

func set[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func (c *Config) check() error {
	if c.Root == "" {
		return errors.New("root, the folder of the registry, is missing")
	}
	if err := address("listen", c.Listen); err != nil {
		return err
	}
	if c.Admin != "" {
		if err := address("admin", c.Admin); err != nil {
			return err
		}
	}
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
			return fmt.Errorf("url: %q is not https://host[:port]", c.URL)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") || c.TLS.ClientCA != "" && c.TLS.Cert == "" {
		return errors.New("tls: cert and key belong together, and clientCA needs both")
	}
	if err := oneOf("log.level", c.Log.Level, "info", "warn", "error"); err != nil {
		return err
	}
	if err := oneOf("log.format", c.Log.Format, "text", "json"); err != nil {
		return err
	}
	if err := oneOf("auth.scheme", c.Auth.Scheme, "none", "token", "basic"); err != nil {
		return err
	}
	if c.Auth.Scheme == "none" && (len(c.Rights) > 0 || c.Auth.Htpasswd != "") {
		return errors.New("auth.scheme is none, so everybody may do everything: rights and htpasswd need scheme token or basic")
	}
	if c.Auth.Lifetime < Duration(time.Minute) {
		return errors.New("auth.lifetime: clients take tokens to live 60s at least")
	}
	if c.Limits.Manifest < 4096 {
		return fmt.Errorf("limits.manifest: %d bytes are too few for any manifest", c.Limits.Manifest)
	}
	for _, n := range []int64{int64(c.Limits.Blob), int64(c.Limits.Uploads), int64(c.Limits.UploadsPerClient), int64(c.Limits.Rate), int64(c.Limits.Burst), int64(c.Limits.Free)} {
		if n < 0 {
			return errors.New("limits: a limit can't be negative; 0 is none")
		}
	}
	return c.checkLists()
}

func (c *Config) checkLists() error {
	for i, r := range c.Rights {
		where := fmt.Sprintf("rights[%d]", i)
		if len(r.Repositories) == 0 || len(r.Actions) == 0 {
			return fmt.Errorf("%s: repositories and actions are missing", where)
		}
		if !r.Anonymous && len(r.Users) == 0 && len(r.Groups) == 0 {
			return fmt.Errorf("%s: it needs users, groups or anonymous", where)
		}
		if r.Anonymous && c.Auth.Scheme == "basic" && slices.Contains(r.Actions, "pull") {
			return fmt.Errorf("%s: clients can't pull without a name where the scheme is basic; use auth.scheme token", where)
		}
		for _, a := range r.Actions {
			if err := oneOf(where+".actions", a, "pull", "push", "delete", "admin"); err != nil {
				return err
			}
		}
	}
	for i, r := range c.Immutable {
		if len(r.Repositories) == 0 {
			return fmt.Errorf("immutable[%d]: repositories are missing", i)
		}
	}
	for i, r := range c.Retention {
		if len(r.Repositories) == 0 {
			return fmt.Errorf("retention[%d]: repositories are missing", i)
		}
		if r.Keep == 0 && r.For == 0 && r.Untagged == 0 && r.Unused == 0 {
			return fmt.Errorf("retention[%d]: keep, for, untagged or unused is missing; all tags would go", i)
		}
	}
	prefixes := map[string]bool{}
	for i, k := range c.Caches {
		u, err := url.Parse(k.Upstream)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.User != nil {
			return fmt.Errorf("caches[%d]: upstream %q is not https://host[:port]", i, k.Upstream)
		}
		if u.Scheme == "http" && !k.Insecure {
			return fmt.Errorf("caches[%d]: upstream %s is not encrypted; set insecure if that is meant", i, k.Upstream)
		}
		if prefixes[k.Prefix] {
			return fmt.Errorf("caches[%d]: two caches have the prefix %q", i, k.Prefix)
		}
		prefixes[k.Prefix] = true
		if (k.Username == "") != (k.PasswordFile == "") {
			return fmt.Errorf("caches[%d]: username and passwordFile belong together", i)
		}
	}
	names := map[string]bool{}
	for i, w := range c.Webhooks {
		if u, err := url.Parse(w.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("webhooks[%d]: url %q is not an http or https address", i, w.URL)
		}
		if !hookName.MatchString(w.Name) || names[w.Name] {
			return fmt.Errorf("webhooks[%d]: name %q is not a word of its own (a-z, 0-9, -)", i, w.Name)
		}
		names[w.Name] = true
		for _, e := range w.Events {
			if err := oneOf(fmt.Sprintf("webhooks[%d].events", i), e, "push", "pull", "delete", "mount"); err != nil {
				return err
			}
		}
	}
	return nil
}

var hookName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func address(key, v string) error {
	if _, port, err := net.SplitHostPort(v); err != nil || port == "" {
		return fmt.Errorf("%s: %q is not host:port", key, v)
	}
	return nil
}

func oneOf(key, v string, words ...string) error {
	if slices.Contains(words, v) {
		return nil
	}
	return fmt.Errorf("%s: %q is none of %s", key, v, strings.Join(words, ", "))
}

// Size is a number of bytes: 1048576, 100MB, 1GiB.
type Size int64

// UnmarshalYAML reads a number with an optional unit.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	text := strings.TrimSpace(n.Value)
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	factor, ok := map[string]int64{"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	v, err := strconv.ParseInt(digits, 10, 64)
	if n.Kind != yaml.ScalarNode || !ok || err != nil || v < 0 || v > 1<<62/factor {
		return fmt.Errorf("line %d: %q is not a size such as 4MiB", n.Line, n.Value)
	}
	*s = Size(v * factor)
	return nil
}

// Duration is a time span: 30s, 10m, 12h, 30d.
type Duration time.Duration

// UnmarshalYAML reads Go's form, and days.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	text := n.Value
	if days, ok := strings.CutSuffix(text, "d"); ok {
		v, err := strconv.ParseInt(days, 10, 32)
		if err == nil && v >= 0 && v <= 36500 {
			*d = Duration(time.Duration(v) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(text)
	if err != nil || n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: %q is not a time span such as 30s, 10m, 12h or 30d", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// Std is d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }
