// Package registry is the client of the OCI distribution API (distribution-spec
// 1.1): endpoints and mirrors of a name, authentication, manifests, blobs, tags.
//
//	host        what stands before the first slash of a name: docker.io, 127.0.0.1:5000
//	endpoint    a base URL that serves a host: the registry itself, or a mirror of it
//	repository  one name at one host, as one user may see it
//
//	rules       the registries file: mirrors, rewrites, blocking, TLS of any host (rules.go)
//
// A pull of docker.io/library/nginx asks the mirrors in their order, then
// registry-1.docker.io; a push only ever goes to the registry itself, and credentials are sent to
// nobody else. A host that may be insecure is tried with HTTPS (any certificate), then HTTP.
//
// Requests that fail for a passing reason (cut connections, 408, 429, 5xx) are
// repeated with growing pauses; a blob that breaks off goes on where it stopped. Cancelling
// the context ends every call at once.
package registry

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tare/internal/base/fault"
)

// Config is the registry part of daemon.json.
type Config struct {
	Mirrors            []string // for docker.io, "https://host[:port]"
	InsecureRegistries []string // host[:port] or CIDR; 127.0.0.0/8 and ::1 always are
	// CertsDir has a folder per host[:port] with *.crt (authorities) and *.cert with *.key (client
	// certificates), as /etc/docker/certs.d. "" means that folder.
	CertsDir string
	// Rules are those of the registries file; nil for none.
	Rules *Rules
	// Tries is how often a request is made before its failure is reported; 0 is 6.
	Tries int
	// UserAgent identifies the program; "" is "tare/dev (linux/amd64)" with this machine's platform.
	UserAgent string
}

// Client speaks to registries. It is safe for concurrent use.
type Client struct {
	next          atomic.Pointer[Client] // what Reload put in this one's place
	config        Config
	rules         *Rules
	patience      time.Duration // for a small answer, or the next bytes of a blob
	mirrors       []string      // base URLs without a final slash
	insecureHosts map[string]bool
	insecureNets  []netip.Prefix
	pause         func(try int) time.Duration // before the try-th repetition; 1 is the first

	mu      sync.Mutex              // guards the two below
	schemes map[string]string       // of insecure hosts that answered: http or https
	clients map[string]*http.Client // by host, "insecure " before it where certificates are not checked
}

// dockerHub is the host of names without one; it is served at hubEndpoint (Docker's rule).
const (
	dockerHub   = "docker.io"
	hubEndpoint = "registry-1.docker.io"
)

// New makes a client; a mirror or network that can't be parsed is Invalid.
func New(c Config) (*Client, error) {
	if c.CertsDir == "" {
		c.CertsDir = "/etc/docker/certs.d"
	}
	if c.Tries == 0 {
		c.Tries = tries
	}
	if c.Rules == nil {
		c.Rules = &Rules{}
	}
	if c.UserAgent == "" {
		c.UserAgent = "tare/dev (" + runtime.GOOS + "/" + runtime.GOARCH + ")"
	}
	client := &Client{
		config:        c,
		rules:         c.Rules,
		patience:      patience,
		insecureHosts: map[string]bool{},
		insecureNets:  []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		pause:         backoff,
		schemes:       map[string]string{},
		clients:       map[string]*http.Client{},
	}
	for _, m := range c.Mirrors {
		base, err := baseURL(m)
		if err != nil {
			return nil, err
		}
		client.mirrors = append(client.mirrors, base)
	}
	for _, r := range c.InsecureRegistries {
		if p, err := netip.ParsePrefix(r); err == nil {
			client.insecureNets = append(client.insecureNets, p)
			continue
		}
		if strings.Contains(r, "://") {
			return nil, fault.Invalid("insecure registry %s should not contain '://'", r)
		}
		if r == "" || strings.Contains(r, "/") {
			return nil, fault.Invalid("insecure registry %q is neither host[:port] nor a CIDR", r)
		}
		client.insecureHosts[r] = true
	}
	return client, nil
}

// Reload lets what begins from now on go by another configuration; what is under way ends as it began.
func (c *Client) Reload(config Config) error {
	next, err := New(config)
	if err == nil {
		c.next.Store(next)
	}
	return err
}

func (c *Client) now() *Client {
	if next := c.next.Load(); next != nil {
		return next
	}
	return c
}

// InsecureNets lists the networks whose registries may be insecure, for `docker info`.
func (c *Client) InsecureNets() []netip.Prefix { return c.now().insecureNets }

// httpClient returns the client to use with a host. Connections are kept for all calls to it.
func (c *Client) httpClient(host string, insecure bool) (*http.Client, error) {
	key := host
	if insecure {
		key = "insecure " + host
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.clients[key]; h != nil {
		return h, nil
	}
	tlsConfig, err := c.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	tlsConfig.InsecureSkipVerify = insecure
	proxy := http.ProxyFromEnvironment
	if p := c.rules.host(host).Proxy; p == "none" {
		proxy = nil
	} else if u, err := url.Parse(p); err == nil && p != "" {
		proxy = http.ProxyURL(u)
	}
	h := &http.Client{CheckRedirect: redirect, Transport: &http.Transport{
		Proxy:       proxy,
		DialContext: (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		// Without HTTP/2: one connection per layer carries more than one connection for all.
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  2 * c.patience,
		ExpectContinueTimeout:  1 * time.Second,
		IdleConnTimeout:        60 * time.Second,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true, // a blob is the bytes that were pushed
		WriteBufferSize:        64 << 10,
	}}
	c.clients[key] = h
	return h, nil
}
