package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"

	"tare/internal/base/fault"
)

// endpoint is a base URL that serves a repository, and the path it has there.
type endpoint struct {
	base        string // "https://host[:port][/prefix]", no final slash
	path        string // of the repository, after rewriting
	foreign     bool   // not the host that the name says: never gets a client's credentials
	mirror      bool   // may lack what the registry has
	digestsOnly bool   // not to be asked for tags
	insecure    bool   // certificates are not checked
}

// host is the endpoint's host[:port].
func (e endpoint) host() string {
	u, err := url.Parse(e.base)
	if err != nil {
		return ""
	}
	return u.Host
}

// secure tells whether the endpoint is spoken to with TLS.
func (e endpoint) secure() bool { return strings.HasPrefix(e.base, "https://") }

// endpoints are whom to ask for a repository, in order. The last one is the registry itself, unless the rules say otherwise.
func (c *Client) endpoints(ctx context.Context, name reference.Named, access Access) ([]endpoint, error) {
	var all []endpoint
	places := c.rules.places(name, access == Push)
	for _, place := range places {
		host, path := reference.Domain(place), reference.Path(place)
		rule := c.rules.of(place.Name())
		if rule.Blocked || c.rules.host(host).Blocked {
			return nil, fault.Forbidden("registry %s is blocked for %s by %s", host, reference.FamiliarName(name), c.rules.file)
		}
		foreign := host != reference.Domain(name)
		if access == Pull {
			all = append(all, c.mirrorEndpoints(ctx, host, path, rule)...)
			if rule.Fallback != nil && !*rule.Fallback {
				continue
			}
		}
		e, err := c.upstream(ctx, host, rule)
		if err != nil {
			if len(places) > 1 && ctx.Err() == nil {
				continue // the next place may answer
			}
			return nil, err
		}
		e.path, e.foreign, e.mirror = rewritten(path, rule.Rewrite), foreign, len(places) > 1
		all = append(all, e)
	}
	if len(all) == 0 {
		return nil, fault.Unavailable("no registry that %s is looked for in can be reached", reference.FamiliarName(name))
	}
	return all, nil
}

// mirrorEndpoints are the mirrors of a repository: its rule's, and for docker.io the daemon's.
func (c *Client) mirrorEndpoints(ctx context.Context, host, path string, rule *Rule) []endpoint {
	var es []endpoint
	add := func(base, path string, digestsOnly bool) {
		e := endpoint{base: base, path: path, foreign: true, mirror: true, digestsOnly: digestsOnly}
		e.insecure = c.lax(ctx, e.host())
		es = append(es, e)
	}
	for _, m := range rule.Mirrors {
		add(m.URL, rewritten(path, m.rewrite), m.DigestsOnly)
	}
	if host == dockerHub {
		for _, m := range c.mirrors {
			add(m, path, false)
		}
	}
	return es
}

// lax tells whether certificates of a host are not checked.
func (c *Client) lax(ctx context.Context, host string) bool {
	rule := c.rules.host(host)
	return rule.SkipVerify || rule.CA == "" && c.insecure(ctx, host)
}

// upstream is the registry of a host itself. For a host that may be insecure it finds out which
// of HTTPS and HTTP answers, once.
func (c *Client) upstream(ctx context.Context, host string, rule *Rule) (endpoint, error) {
	byHost := c.rules.host(host)
	switch {
	case rule.Location != "":
		e := endpoint{base: rule.Location}
		e.insecure = c.lax(ctx, e.host())
		return e, nil
	case byHost.PlainHTTP:
		return endpoint{base: "http://" + host, insecure: true}, nil
	case byHost.SkipVerify:
		return endpoint{base: "https://" + host, insecure: true}, nil
	case host == dockerHub:
		return endpoint{base: "https://" + hubEndpoint}, nil
	case byHost.CA != "" || !c.insecure(ctx, host):
		return endpoint{base: "https://" + host}, nil
	}
	c.mu.Lock()
	scheme := c.schemes[host]
	c.mu.Unlock()
	if scheme == "" {
		var err error
		if scheme, err = c.probe(ctx, host); err != nil {
			return endpoint{}, err
		}
		c.mu.Lock()
		c.schemes[host] = scheme
		c.mu.Unlock()
	}
	return endpoint{base: scheme + "://" + host, insecure: true}, nil
}

// own are the credentials that the rules have for an endpoint's host, nil for none.
func (c *Client) own(e endpoint) (*registrytypes.AuthConfig, error) {
	rule := c.rules.host(e.host())
	if rule.Username == "" {
		return nil, nil
	}
	secret, err := os.ReadFile(rule.PasswordFile)
	if err != nil {
		return nil, fault.Internal("cannot read the password for %s: %w", e.host(), err)
	}
	return &registrytypes.AuthConfig{Username: rule.Username, Password: strings.TrimRight(string(secret), "\r\n")}, nil
}

// forget drops what is known of a host's scheme, after it stopped answering.
func (c *Client) forget(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.schemes, host)
}

// probe asks an insecure host for /v2/ with HTTPS, then with HTTP. Any answer counts.
func (c *Client) probe(ctx context.Context, host string) (string, error) {
	h, err := c.httpClient(host, true)
	if err != nil {
		return "", err
	}
	probing := *h
	probing.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	var first error
	for _, scheme := range []string{"https", "http"} {
		rq, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
		if err != nil {
			return "", err
		}
		rq.Header.Set("User-Agent", c.config.UserAgent)
		rs, err := probing.Do(rq)
		if err == nil {
			io.Copy(io.Discard, io.LimitReader(rs.Body, 64<<10))
			rs.Body.Close()
			return scheme, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		// A host that speaks no TLS is best described by what its HTTP port said.
		if first == nil || !isDial(err) {
			first = err
		}
	}
	return "", connectionError(first)
}

// insecure applies Docker's rule: a host that is configured by name, or whose address lies in a
// configured network or on the loopback.
func (c *Client) insecure(ctx context.Context, host string) bool {
	if c.insecureHosts[host] {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if c.insecureHosts[name] {
		return true
	}
	name = strings.Trim(name, "[]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	var addresses []netip.Addr
	if a, err := netip.ParseAddr(name); err == nil {
		addresses = []netip.Addr{a}
	} else {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		addresses, _ = net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}
	for _, a := range addresses {
		for _, p := range c.insecureNets {
			if p.Contains(a.Unmap()) {
				return true
			}
		}
	}
	return false
}

// isDial tells that no connection came about.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
