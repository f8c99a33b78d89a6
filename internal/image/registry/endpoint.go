package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// endpoint is a base URL that serves a host.
type endpoint struct {
	base     string // "https://host[:port][/prefix]", no final slash
	mirror   bool   // may lack what the registry has; never gets credentials
	insecure bool   // certificates are not checked
}

// host is the endpoint's host[:port].
func (e endpoint) host() string {
	u, err := url.Parse(e.base)
	if err != nil {
		return ""
	}
	return u.Host
}

// mirrorEndpoints are the mirrors of a host, in the order of the configuration.
func (c *Client) mirrorEndpoints(ctx context.Context, host string) []endpoint {
	if host != dockerHub {
		return nil
	}
	var es []endpoint
	for _, m := range c.mirrors {
		e := endpoint{base: m, mirror: true}
		e.insecure = c.insecure(ctx, e.host())
		es = append(es, e)
	}
	return es
}

// upstream is the registry of a host itself. For a host that may be insecure it finds out which
// of HTTPS and HTTP answers, once.
func (c *Client) upstream(ctx context.Context, host string) (endpoint, error) {
	if host == dockerHub {
		return endpoint{base: "https://" + hubEndpoint}, nil
	}
	if !c.insecure(ctx, host) {
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
	var first error
	for _, scheme := range []string{"https", "http"} {
		rq, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
		if err != nil {
			return "", err
		}
		rq.Header.Set("User-Agent", c.config.UserAgent)
		rs, err := h.Do(rq)
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
