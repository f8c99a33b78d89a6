package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"gopkg.in/yaml.v3"

	"tare/internal/base/fault"
)

// Rules are the registries file, registries.yaml: how each registry is reached. The zero value changes nothing.
//
//	short-names:
//	  search: [registry.corp, docker.io]        # asked in turn for a name without a host
//	  aliases: {nginx: registry.corp/base/nginx} # or one name's own place
//	registries:
//	  docker.io:                     # a host, host/path, or *.domain; the longest that fits counts
//	    mirrors: [https://mirror.corp:5000/hub]
//	    fallback: false              # don't ask the registry itself
//	    rewrite: [{from: "^library/(.*)", to: "official/$1"}]
//	  mirror.corp:5000:              # how a host is spoken to, mirrors included
//	    ca: /etc/tare/corp.pem
//	    cert: /etc/tare/me.pem
//	    key: /etc/tare/me.key
//	  evil.example: {blocked: true}
//
// Docker's tools complete a name without a host to docker.io/library/NAME before the engine sees it, so that is what a short name is
// here. An image keeps the name it was asked for by, wherever its bytes come from.
type Rules struct {
	ShortNames ShortNames       `yaml:"short-names"`
	Registries map[string]*Rule `yaml:"registries"`

	file string // for messages
}

// ShortNames say where names without a host are looked for.
type ShortNames struct {
	// Search lists hosts (or host/path) to ask in turn. The name's last part is looked for there, below "library/" at docker.io. What is not listed
	// is not asked. Pushes go to docker.io.
	Search []string `yaml:"search"`
	// Aliases gives a short name its own place, for pulls and pushes.
	Aliases map[string]string `yaml:"aliases"`
}

// Rule is what holds for the names below one host, host/path or *.domain.
type Rule struct {
	Blocked  bool      `yaml:"blocked"`  // nothing is pulled or pushed
	Location string    `yaml:"location"` // a base URL to use instead of https://HOST
	Mirrors  []Mirror  `yaml:"mirrors"`  // asked first by pulls, in turn
	Fallback *bool     `yaml:"fallback"` // whether pulls ask the registry itself after the mirrors; nil is true
	Rewrite  []Rewrite `yaml:"rewrite"`  // the first that fits changes the repository's path

	// How the host is spoken to (not for host/path).
	PlainHTTP  bool   `yaml:"plain-http"`  // HTTP only
	SkipVerify bool   `yaml:"skip-verify"` // HTTPS, with any certificate
	CA         string `yaml:"ca"`          // a file of authorities in PEM form, beside the system's
	Cert       string `yaml:"cert"`        // a client certificate
	Key        string `yaml:"key"`         // and its key
	Proxy      string `yaml:"proxy"`       // a URL, or "none"; "" takes the environment's

	// Credentials that this engine has itself, for a mirror for example. What a client sends goes before them.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password-file"`
}

// Mirror is a base URL, written alone or as {url: …, digests-only: true}.
type Mirror struct {
	URL         string `yaml:"url"`
	DigestsOnly bool   `yaml:"digests-only"` // not asked for tags: it can't be trusted to know the newest

	rewrite []Rewrite
}

// UnmarshalYAML reads either form.
func (m *Mirror) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		m.URL = n.Value
		return nil
	}
	type plain Mirror
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i].Value; k != "url" && k != "digests-only" {
			return fmt.Errorf("line %d: field %s not found in a mirror", n.Content[i].Line, k)
		}
	}
	return n.Decode((*plain)(m))
}

// Rewrite replaces what From (a regular expression) finds in a repository's path by To, where $1 is its first group.
type Rewrite struct {
	From string `yaml:"from"`
	To   string `yaml:"to"`

	from *regexp.Regexp
}

// LoadRules reads the file at path. Without one nothing changes; an unknown key, or a value that makes no sense, is Invalid.
func LoadRules(path string) (*Rules, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Rules{}, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := ParseRules(data)
	if err != nil {
		return nil, fault.Invalid("registries file %s: %w", path, err)
	}
	r.file = path
	return r, nil
}

// ParseRules is LoadRules for the file's content.
func ParseRules(data []byte) (*Rules, error) {
	r := &Rules{file: "the registries file"}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(r); err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Invalid("%w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Registries)) {
		rule := r.Registries[key]
		if rule == nil {
			rule = &Rule{}
			r.Registries[key] = rule
		}
		if err := rule.check(key); err != nil {
			return nil, fault.Invalid("%s: %w", key, err)
		}
	}
	for short, full := range r.ShortNames.Aliases {
		named, err := reference.ParseNormalizedNamed(short)
		if err != nil || reference.FamiliarName(named) != short || !reference.IsNameOnly(named) {
			return nil, fault.Invalid("short-names: %q is no short name", short)
		}
		if to, err := reference.ParseNormalizedNamed(full); err != nil || !reference.IsNameOnly(to) {
			return nil, fault.Invalid("short-names: alias %s: %q is no name of a repository", short, full)
		}
	}
	for _, host := range r.ShortNames.Search {
		if _, err := reference.ParseNormalizedNamed(host + "/x"); err != nil || strings.Contains(host, "://") {
			return nil, fault.Invalid("short-names: %q is neither HOST nor HOST/PATH", host)
		}
	}
	return r, nil
}

func (r *Rule) check(key string) error {
	host, path, _ := strings.Cut(key, "/")
	if host == "" || strings.Contains(key, "://") || strings.Contains(strings.TrimPrefix(host, "*."), "*") {
		return errors.New("want HOST[:PORT], HOST/PATH or *.DOMAIN")
	}
	for i := range r.Rewrite {
		w := &r.Rewrite[i]
		var err error
		if w.from, err = regexp.Compile(w.From); err != nil || w.From == "" {
			return fmt.Errorf("rewrite from %q is no regular expression: %w", w.From, err)
		}
	}
	for i := range r.Mirrors {
		base, err := baseURL(r.Mirrors[i].URL)
		if err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
		r.Mirrors[i].URL, r.Mirrors[i].rewrite = base, r.Rewrite
	}
	if r.Location != "" {
		var err error
		if r.Location, err = baseURL(r.Location); err != nil {
			return fmt.Errorf("location: %w", err)
		}
	}
	transport := r.PlainHTTP || r.SkipVerify || r.CA != "" || r.Cert != "" || r.Key != "" || r.Proxy != "" || r.Username != "" || r.PasswordFile != ""
	switch {
	case path != "" && transport:
		return errors.New("plain-http, skip-verify, ca, cert, key, proxy and credentials are of a host, not of a path")
	case r.PlainHTTP && (r.SkipVerify || r.CA != "" || r.Cert != ""):
		return errors.New("plain-http has no use for skip-verify, ca and cert")
	case (r.Cert == "") != (r.Key == ""):
		return errors.New("cert and key go together")
	case (r.Username == "") != (r.PasswordFile == ""):
		return errors.New("username and password-file go together")
	case r.Fallback != nil && !*r.Fallback && len(r.Mirrors) == 0:
		return errors.New("fallback: false without mirrors leaves nobody to ask; to refuse the registry say blocked: true")
	}
	for _, f := range []string{r.CA, r.Cert, r.Key, r.PasswordFile} {
		if f != "" && !filepath.IsAbs(f) {
			return fmt.Errorf("%q is not an absolute path", f)
		}
	}
	if r.Proxy != "" && r.Proxy != "none" {
		if u, err := url.Parse(r.Proxy); err != nil || u.Host == "" {
			return fmt.Errorf("proxy %q is neither a URL nor none", r.Proxy)
		}
	}
	return nil
}

// baseURL checks a registry's address, without a final slash.
func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fault.Invalid("invalid mirror: %q is not a valid URI; use https://host[:port]", s)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", fault.Invalid("invalid mirror: user, query or fragment not allowed in %q", u.Redacted())
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// of is the rule for a repository: the longest key that fits. It is never nil.
func (r *Rules) of(name string) *Rule {
	if r == nil {
		return &Rule{}
	}
	for key := name; ; {
		if rule := r.Registries[key]; rule != nil {
			return rule
		}
		i := strings.LastIndexByte(key, '/')
		if i < 0 {
			return r.host(key)
		}
		key = key[:i]
	}
}

// host is the rule for a host. It is never nil.
func (r *Rules) host(host string) *Rule {
	if r == nil {
		return &Rule{}
	}
	if rule := r.Registries[host]; rule != nil {
		return rule
	}
	domain := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		domain = h
	}
	for {
		_, rest, ok := strings.Cut(domain, ".")
		if !ok {
			return &Rule{}
		}
		if rule := r.Registries["*."+rest]; rule != nil {
			return rule
		}
		domain = rest
	}
}

// rewritten is a repository's path after the first rewrite that fits.
func rewritten(path string, rules []Rewrite) string {
	for _, w := range rules {
		if w.from.MatchString(path) {
			return w.from.ReplaceAllString(path, w.To)
		}
	}
	return path
}

// places are the names to try for a repository: itself, or what short names stand for.
func (r *Rules) places(name reference.Named, push bool) []reference.Named {
	short, ok := strings.CutPrefix(name.Name(), dockerHub+"/library/")
	if r == nil || !ok {
		return []reference.Named{name}
	}
	if to, ok := r.ShortNames.Aliases[short]; ok {
		named, _ := reference.ParseNormalizedNamed(to)
		return []reference.Named{named}
	}
	if push || len(r.ShortNames.Search) == 0 {
		return []reference.Named{name}
	}
	var all []reference.Named
	for _, host := range r.ShortNames.Search {
		if named, err := reference.ParseNormalizedNamed(host + "/" + short); err == nil {
			all = append(all, named)
		}
	}
	return all
}
