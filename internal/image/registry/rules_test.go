package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	registrytypes "github.com/moby/moby/api/types/registry"

	"tare/internal/hub"
	"tare/internal/test/faulty"
	"tare/internal/test/images"
)

// ruled is a client with a registries file.
func ruled(t *testing.T, file string) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := LoadRules(path)
	if err != nil {
		t.Fatal(err)
	}
	return client(t, Config{Rules: r})
}

func TestRules(t *testing.T) {
	c := ruled(t, `
short-names:
  search: [reg.corp, docker.io, quay.io/mirror]
  aliases: {nginx: reg.corp/base/nginx}
registries:
  docker.io:
    mirrors: [https://mirror.corp:5000/hub/, {url: "http://slow.corp", digests-only: true}]
    rewrite: [{from: "^library/(.*)", to: "official/$1"}]
  docker.io/secret: {location: "https://vault.corp/x"}
  quay.io: {mirrors: [https://only.corp], fallback: false}
  evil.example: {blocked: true}
  good.example/bad: {blocked: true}
  "*.plain.corp": {plain-http: true}
  lax.corp: {skip-verify: true}
`)
	for _, x := range []struct {
		name   string
		access Access
		want   string
	}{
		{"docker.io/library/a", Pull, "https://reg.corp/v2/a https://mirror.corp:5000/hub/v2/official/a http://slow.corp/v2/official/a https://registry-1.docker.io/v2/official/a https://only.corp/v2/mirror/a"},
		{"docker.io/library/a", Push, "https://registry-1.docker.io/v2/official/a"},
		{"nginx", Pull, "https://reg.corp/v2/base/nginx"},
		{"nginx", Push, "https://reg.corp/v2/base/nginx"},
		{"docker.io/me/a", Pull, "https://mirror.corp:5000/hub/v2/me/a http://slow.corp/v2/me/a https://registry-1.docker.io/v2/me/a"},
		{"docker.io/secret/a", Pull, "https://vault.corp/x/v2/secret/a"},
		{"quay.io/a", Pull, "https://only.corp/v2/a"},
		{"quay.io/a", Push, "https://quay.io/v2/a"},
		{"evil.example/a", Pull, "registry evil.example is blocked for evil.example/a by "},
		{"evil.example/a", Push, "registry evil.example is blocked for evil.example/a by "},
		{"good.example/a", Pull, "https://good.example/v2/a"},
		{"good.example/bad/a", Pull, "registry good.example is blocked for good.example/bad/a by "},
		{"good.example/badly", Pull, "https://good.example/v2/badly"},
		{"x.y.plain.corp:80/a", Pull, "http://x.y.plain.corp:80/v2/a"},
		{"plain.corp/a", Pull, "https://plain.corp/v2/a"},
		{"lax.corp/a", Pull, "https://lax.corp/v2/a"},
	} {
		es, err := c.endpoints(t.Context(), name(t, x.name), x.access)
		var got []string
		for _, e := range es {
			got = append(got, e.base+"/v2/"+e.path)
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if s := strings.Join(got, " "); s != x.want && (err == nil || !strings.HasPrefix(s, x.want)) {
			t.Errorf("%s of %s:\n%s\nwant\n%s", x.access, x.name, s, x.want)
		}
		if err != nil && !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: class of %v", x.name, err)
		}
	}
}

func TestRulesThatMakeNoSense(t *testing.T) {
	for file, want := range map[string]string{
		"registry: {}":                                       "field registry not found",
		"registries: {a.b: {block: true}}":                   "field block not found",
		"registries: {a.b: {mirrors: [{ur: x}]}}":            "field ur not found",
		"registries: {a.b: {mirrors: [ftp://x]}}":            "use https://host[:port]",
		"registries: {a.b: {mirrors: ['https://u:p@x']}}":    "user, query or fragment",
		"registries: {'https://a.b': {}}":                    "want HOST",
		"registries: {'a.*': {}}":                            "want HOST",
		"registries: {a.b/c: {ca: /x}}":                      "of a host, not of a path",
		"registries: {a.b: {ca: x}}":                         "not an absolute path",
		"registries: {a.b: {cert: /x}}":                      "cert and key go together",
		"registries: {a.b: {username: x}}":                   "go together",
		"registries: {a.b: {plain-http: true, ca: /x}}":      "no use for",
		"registries: {a.b: {fallback: false}}":               "leaves nobody to ask",
		"registries: {a.b: {rewrite: [{from: '(', to: x}]}}": "no regular expression",
		"registries: {a.b: {proxy: ':'}}":                    "neither a URL",
		"short-names: {aliases: {a: 'UPPER'}}":               "no name of a repository",
		"short-names: {aliases: {'a:1': b}}":                 "no short name",
		"short-names: {search: ['https://x']}":               "neither HOST",
		"[":                                                  "yaml",
	} {
		if _, err := ParseRules([]byte(file)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
	if r, err := LoadRules(filepath.Join(t.TempDir(), "none")); err != nil || r.of("x").Blocked {
		t.Error(err)
	}
}

// TestRulesAtWork pulls through a mirror with credentials of its own and a rewrite, without ever asking the registry.
func TestRulesAtWork(t *testing.T) {
	asked := &sync.Map{}
	host, srv := serve(t, func(h http.Handler) http.Handler {
		g := guarded("Basic", asked)(h)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("direct") != "" || r.Method != "GET" && r.Method != "HEAD" {
				h.ServeHTTP(w, r)
				return
			}
			if u, _, _ := r.BasicAuth(); u == "me" {
				t.Error("the mirror got the client's credentials")
			}
			g.ServeHTTP(w, r)
		})
	})
	img := pushed(t, srv, "cache/lib/x", "v1", images.Options{})
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("secret\n"), 0o600)
	c := ruled(t, fmt.Sprintf(`
registries:
  away.example:
    mirrors: ["http://%s"]
    fallback: false
    rewrite: [{from: "^", to: "cache/"}]
  %s: {plain-http: true, username: alice, password-file: %s}
`, host, host, secret))
	r := c.Repository(name(t, "away.example/lib/x"), &registrytypes.AuthConfig{Username: "me", Password: "mine"}, Pull)
	if _, d, err := r.Manifest(t.Context(), "v1"); err != nil || d.Digest != img.Manifest.Digest {
		t.Fatal(err)
	}
	if has, err := r.HasBlob(t.Context(), img.Config.Digest); err != nil || !has {
		t.Error(has, err)
	}
}

// TestDigestsOnlyMirror is asked for digests only.
func TestDigestsOnlyMirror(t *testing.T) {
	host, srv := serve(t, nil)
	img := pushed(t, srv, "x", "v1", images.Options{})
	old, oldURL := faulty.Serve(t, srv.URL)
	c := ruled(t, fmt.Sprintf(`registries: {%q: {mirrors: [{url: %q, digests-only: true}]}}`, host, oldURL))
	r := c.Repository(name(t, host+"/x"), nil, Pull)
	if _, _, err := r.Manifest(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if n := old.Asked(); len(n) != 0 {
		t.Errorf("asked for a tag: %v", n)
	}
	if _, _, err := r.Manifest(t.Context(), img.Manifest.Digest.String()); err != nil {
		t.Fatal(err)
	}
	if n := old.Asked(); len(n) != 1 {
		t.Errorf("asked for a digest: %v", n)
	}
}

// TestCredentialsStayAtTheRegistry: a hostile registry sends its clients elsewhere, by redirects, by Location, by realms; nobody else sees
// credentials.
func TestCredentialsStayAtTheRegistry(t *testing.T) {
	var caught atomic.Value
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Authorization", "Cookie"} {
			if v := r.Header.Get(h); v != "" {
				caught.Store(r.Method + " " + r.URL.Path + " " + h + ": " + v)
			}
		}
		r.ParseForm()
		if r.Form.Get("refresh_token") != "" {
			caught.Store("refresh token")
		}
		// And asks for more.
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic realm="x", Bearer realm="http://%s/token"`, r.Host))
		w.WriteHeader(401)
	}))
	defer thief.Close()
	auth := &registrytypes.AuthConfig{Username: "alice", Password: "secret"}
	for what, handler := range map[string]func(w http.ResponseWriter, r *http.Request){
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
		},
		"location": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", thief.URL+"/upload")
			w.WriteHeader(http.StatusAccepted)
		},
	} {
		t.Run(what, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(401)
					return
				}
				handler(w, r)
			}))
			defer srv.Close()
			host := strings.TrimPrefix(srv.URL, "http://")
			c := client(t, Config{})
			if _, _, err := c.Repository(name(t, host+"/a"), auth, Pull).Manifest(t.Context(), "v1"); err == nil {
				t.Error("the thief's answer was taken")
			}
			img, _ := images.Generate(images.Options{})
			if err := c.Repository(name(t, host+"/a"), auth, Push).Upload(t.Context(), img.Config, strings.NewReader(string(img.Blobs[img.Config.Digest])), nil); err == nil {
				t.Error("the thief's upload was taken")
			}
			if v := caught.Load(); v != nil {
				t.Errorf("the thief got %v", v)
			}
		})
	}
	// From HTTPS to HTTP nothing goes: no redirect, and no credentials to a token server.
	for what, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"redirects from HTTPS": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL+r.URL.Path, 307) },
		"wants credentials": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, thief.URL))
			w.WriteHeader(401)
		},
	} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(answer))
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS()
		defer srv.Close()
		host := strings.TrimPrefix(srv.URL, "https://")
		_, _, err := client(t, Config{}).Repository(name(t, host+"/a"), auth, Pull).Manifest(t.Context(), "v1")
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if v := caught.Load(); v != nil {
		t.Errorf("the thief got %v", v)
	}
}

// authority makes certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.make(t, "ca", nil)
	return a
}

// make writes dir/NAME.pem and NAME.key.
func (a *authority) make(t *testing.T, who string, ips []net.IP) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: who}, IPAddresses: ips,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: a.cert == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	k, _ := x509.MarshalPKCS8PrivateKey(key)
	os.WriteFile(filepath.Join(a.dir, who+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	os.WriteFile(filepath.Join(a.dir, who+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), 0o600)
	return cert, key
}

// TestPrivateAuthorityAndClientCertificate: a registry with a certificate of a private authority that wants one of its clients, by the registries file and by
// Docker's certs.d.
func TestPrivateAuthorityAndClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	l, err := net.Listen("tcp", hostAddress(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	ca.make(t, "server", []net.IP{l.Addr().(*net.TCPAddr).IP})
	ca.make(t, "me", nil)
	h, err := hub.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	pair, err := tls.LoadX509KeyPair(filepath.Join(ca.dir, "server.pem"), filepath.Join(ca.dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Listener = l
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	srv.StartTLS()
	defer srv.Close()
	ask := func(c *Client) error {
		_, _, err := c.Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "v1")
		return err
	}
	file := func(name string) string { return filepath.Join(ca.dir, name) }
	if err := ask(ruled(t, fmt.Sprintf(`registries: {%q: {ca: %s}}`, host, file("ca.pem")))); err == nil || errdefs.IsNotFound(err) {
		t.Errorf("without a client certificate: %v", err)
	}
	if err := ask(ruled(t, fmt.Sprintf(`registries: {%q: {ca: %s, cert: %s, key: %s}}`, host, file("ca.pem"), file("me.pem"), file("me.key")))); !errdefs.IsNotFound(err) {
		t.Errorf("with all: %v", err)
	}
	if err := ask(ruled(t, fmt.Sprintf(`registries: {%q: {skip-verify: true, cert: %s, key: %s}}`, host, file("me.pem"), file("me.key")))); !errdefs.IsNotFound(err) {
		t.Errorf("without verification: %v", err)
	}
	certs := t.TempDir()
	os.MkdirAll(filepath.Join(certs, host), 0o755)
	for from, to := range map[string]string{"ca.pem": "ca.crt", "me.pem": "client.cert", "me.key": "client.key"} {
		data, _ := os.ReadFile(file(from))
		os.WriteFile(filepath.Join(certs, host, to), data, 0o600)
	}
	if err := ask(client(t, Config{CertsDir: certs})); !errdefs.IsNotFound(err) {
		t.Errorf("certs.d: %v", err)
	}
}

// TestProxies: requests go through the proxy that a rule names.
func TestProxies(t *testing.T) {
	var through atomic.Int32
	host, srv := serve(t, nil)
	pushed(t, srv, "a", "v1", images.Options{})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "far.example" {
			t.Errorf("proxied %s", r.URL)
		}
		through.Add(1)
		rs, err := http.Get("http://" + host + r.URL.RequestURI())
		if err != nil {
			t.Error(err)
			return
		}
		defer rs.Body.Close()
		for k, v := range rs.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(rs.StatusCode)
		io.Copy(w, rs.Body)
	}))
	defer proxy.Close()
	c := ruled(t, fmt.Sprintf(`registries: {far.example: {plain-http: true, proxy: %q}}`, proxy.URL))
	if _, _, err := c.Repository(name(t, "far.example/a"), nil, Pull).Manifest(t.Context(), "v1"); err != nil || through.Load() != 1 {
		t.Errorf("%v, %d requests", err, through.Load())
	}
}

// TestARegistryThatNeverEnds: headers, tokens, tags and errors without end are cut off.
func TestARegistryThatNeverEnds(t *testing.T) {
	drip := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write([]byte(" "))
			http.NewResponseController(w).Flush()
			select {
			case <-time.After(10 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
	}
	for what, handler := range map[string]http.HandlerFunc{
		"manifest": drip,
		"error":    func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404); drip(w, r) },
		"silence":  func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"token": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				drip(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, r.Host))
			w.WriteHeader(401)
		},
		"headers": func(w http.ResponseWriter, r *http.Request) {
			for i := range 5000 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
			}
		},
		"tags": func(w http.ResponseWriter, r *http.Request) {
			n := r.URL.Query().Get("last") + "x"
			w.Header().Set("Link", `<`+r.URL.Path+`?last=`+url.QueryEscape(n)+`>; rel="next"`)
			json.NewEncoder(w).Encode(map[string]any{"tags": make([]string, 100000)})
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" {
					return
				}
				handler(w, r)
			}))
			defer srv.Close()
			defer srv.CloseClientConnections()
			c := client(t, Config{Tries: 2})
			c.Hurry(time.Millisecond, 300*time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			r := c.Repository(name(t, strings.TrimPrefix(srv.URL, "http://")+"/a"), nil, Pull)
			var err error
			if what == "tags" {
				_, err = r.Tags(ctx)
			} else {
				_, _, err = r.Manifest(ctx, "v1")
			}
			if err == nil || ctx.Err() != nil {
				t.Errorf("%v, %v", err, ctx.Err())
			}
		})
	}
}

func FuzzRules(f *testing.F) {
	f.Add([]byte("registries: {docker.io: {mirrors: [https://m], rewrite: [{from: '^a', to: b}]}}"))
	f.Add([]byte("short-names: {search: [a.b], aliases: {x: y/z}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRules(data)
		if err != nil {
			return
		}
		for _, n := range []string{"docker.io/library/x", "a.b/c/d"} {
			rewritten(n, r.of(n).Rewrite)
			r.places(name(t, n), false)
		}
	})
}
