package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/hub"
	"tare/internal/test/images"
)

// client makes a Client that does not pause between tries.
func client(t *testing.T, c Config) *Client {
	t.Helper()
	if c.CertsDir == "" {
		c.CertsDir = t.TempDir()
	}
	cl, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	cl.pause = func(int) time.Duration { return time.Millisecond }
	return cl
}

func name(t *testing.T, s string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// serve starts a hub with a layer of handlers around it; host is its host:port.
func serve(t *testing.T, wrap func(http.Handler) http.Handler) (host string, srv *httptest.Server) {
	t.Helper()
	h, err := hub.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	var handler http.Handler = h
	if wrap != nil {
		handler = wrap(h)
	}
	srv = httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), srv
}

func pushed(t *testing.T, srv *httptest.Server, repo, tag string, o images.Options) *images.Image {
	t.Helper()
	img, err := images.Generate(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push(srv.URL, repo, tag); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestManifestAndBlobComeAsPushed(t *testing.T) {
	host, srv := serve(t, nil)
	img := pushed(t, srv, "a/b", "v1", images.Options{FilesPerLayer: 20})
	r := client(t, Config{}).Repository(name(t, host+"/a/b:v1"), nil, Pull)
	for _, ref := range []string{"v1", img.Manifest.Digest.String()} {
		data, d, err := r.Manifest(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if d.Digest != img.Manifest.Digest || d.MediaType != img.Manifest.MediaType || digest.FromBytes(data) != d.Digest {
			t.Errorf("%s: %+v", ref, d)
		}
	}
	body, err := r.Blob(t.Context(), img.Layers[0], 100)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, img.Blobs[img.Layers[0].Digest][100:]) {
		t.Errorf("blob from 100: %d bytes, %v", len(got), err)
	}
	info, err := client(t, Config{}).Inspect(t.Context(), name(t, host+"/a/b:v1"), nil)
	if err != nil || len(info.Platforms) != 1 || info.Platforms[0].OS != "linux" || info.Descriptor.Digest != img.Manifest.Digest {
		t.Errorf("inspect: %+v %v", info, err)
	}
}

func TestErrorsInDockersWords(t *testing.T) {
	host, srv := serve(t, nil)
	pushed(t, srv, "a", "v1", images.Options{})
	c := client(t, Config{})
	_, _, err := c.Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "none")
	if !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "manifest for "+host+"/a:none not found: manifest unknown: ") {
		t.Errorf("unknown manifest: %v", err)
	}
	_, _, err = c.Repository(name(t, host+"/none"), nil, Pull).Manifest(t.Context(), digest.FromString("x").String())
	if want := "pull access denied for " + host + "/none, repository does not exist or may require 'docker login': name unknown: "; !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("unknown repository: %v", err)
	}
	for _, m := range []string{"ftp://x", "x", "https://u:p@x"} {
		if _, err := New(Config{Mirrors: []string{m}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("mirror %s: %v", m, err)
		}
	}
}

func TestManifestsAreVerified(t *testing.T) {
	good := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{}}`)
	for what, serve := range map[string]func(w http.ResponseWriter){
		"other digest": func(w http.ResponseWriter) { w.Write(append(good, ' ')) },
		"schema 1": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", dockerSchema1JWS)
			w.Write([]byte(`{"schemaVersion":1}`))
		},
		"two types": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			w.Write(good)
		},
		"no JSON": func(w http.ResponseWriter) { w.Write([]byte("<html>")) },
		"endless": func(w http.ResponseWriter) { w.Write(bytes.Repeat([]byte(" "), maxManifest+10)) },
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w) }))
		r := client(t, Config{}).Repository(name(t, strings.TrimPrefix(srv.URL, "http://")+"/x"), nil, Pull)
		if _, _, err := r.Manifest(t.Context(), digest.FromBytes(good).String()); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", what, err)
		}
		srv.Close()
	}
}

// faults answers the first n matching requests with f.
func faults(n int, match func(*http.Request) bool, f http.HandlerFunc) (wrap func(http.Handler) http.Handler, seen *atomic.Int32) {
	seen = &atomic.Int32{}
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) && int(seen.Add(1)) <= n {
				f(w, r)
				return
			}
			h.ServeHTTP(w, r)
		})
	}, seen
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for _, h := range header {
			k, v, _ := strings.Cut(h, ": ")
			w.Header().Set(k, v)
		}
		w.WriteHeader(code)
	}
}

func cutOff(w http.ResponseWriter, r *http.Request) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

func isManifest(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/manifests/v1") && r.Method == "GET"
}

func TestPassingFailuresAreRetried(t *testing.T) {
	for what, f := range map[string]http.HandlerFunc{"500": status(500), "503": status(503), "429": status(429), "cut": cutOff} {
		wrap, seen := faults(3, isManifest, f)
		host, srv := serve(t, wrap)
		pushed(t, srv, "a", "v1", images.Options{})
		_, _, err := client(t, Config{}).Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "v1")
		if err != nil || seen.Load() != 4 {
			t.Errorf("%s: %v after %d tries", what, err, seen.Load())
		}
	}
	wrap, seen := faults(1000, isManifest, status(502))
	host, _ := serve(t, wrap)
	_, _, err := client(t, Config{}).Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "v1")
	if !errdefs.IsUnavailable(err) || seen.Load() != tries {
		t.Errorf("502 for ever: %v after %d tries", err, seen.Load())
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	wrap, _ := faults(1, isManifest, status(429, "Retry-After: 1"))
	host, srv := serve(t, wrap)
	pushed(t, srv, "a", "v1", images.Options{})
	began := time.Now()
	if _, _, err := client(t, Config{}).Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("asked again after %s", took)
	}
}

func TestCancelEndsAtOnce(t *testing.T) {
	for what, f := range map[string]http.HandlerFunc{
		"pause": status(429, "Retry-After: 30"),
		"hang":  func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		entered := make(chan struct{}, 100)
		wrap, _ := faults(1000, isManifest, func(w http.ResponseWriter, r *http.Request) { entered <- struct{}{}; f(w, r) })
		host, _ := serve(t, wrap)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-entered; cancel() }()
		began := time.Now()
		_, _, err := client(t, Config{}).Repository(name(t, host+"/a"), nil, Pull).Manifest(ctx, "v1")
		if !errors.Is(err, context.Canceled) || time.Since(began) > 2*time.Second {
			t.Errorf("%s: %v after %s", what, err, time.Since(began))
		}
	}
}

// limited cuts an answer after n bytes.
type limited struct {
	http.ResponseWriter
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		l.ResponseWriter.Write(p[:l.left])
		l.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	l.left -= len(p)
	return l.ResponseWriter.Write(p)
}

func TestABlobGoesOnWhereItBrokeOff(t *testing.T) {
	var moved atomic.Int64
	var cuts atomic.Int32
	host, srv := serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") && cuts.Add(1) <= 4 {
				moved.Add(100_000)
				h.ServeHTTP(&limited{w, 100_000}, r)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	img := pushed(t, srv, "a", "v1", images.Options{FilesPerLayer: 100, FileSize: 30000})
	l := img.Layers[0]
	r := client(t, Config{}).Repository(name(t, host+"/a"), nil, Pull)
	body, err := r.Blob(t.Context(), l, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err != nil || digest.FromBytes(got) != l.Digest {
		t.Fatalf("%d of %d bytes: %v", len(got), l.Size, err)
	}
	if cuts.Load() != 5 {
		t.Errorf("%d requests", cuts.Load())
	}
}

func TestARegistryWithoutRangesWorks(t *testing.T) {
	host, srv := serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); h.ServeHTTP(w, r) })
	})
	img := pushed(t, srv, "a", "v1", images.Options{FilesPerLayer: 20})
	body, err := client(t, Config{}).Repository(name(t, host+"/a"), nil, Pull).Blob(t.Context(), img.Layers[0], 50)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, img.Blobs[img.Layers[0].Digest][50:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func random(t *testing.T, n int) ([]byte, ocispec.Descriptor) {
	data := make([]byte, n)
	rand.Read(data)
	return data, ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(n)}
}

// broken reads some of a request's body and cuts the connection.
type brokenBody struct {
	io.ReadCloser
	left int
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func TestUploadGoesOnAfterACut(t *testing.T) {
	var arrived atomic.Int64
	var cuts atomic.Int32
	host, _ := serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if (r.Method == "PUT" || r.Method == "PATCH") && r.ContentLength > 0 {
				if cuts.Add(1) <= 2 {
					r.Body = &brokenBody{r.Body, 1 << 20}
					h.ServeHTTP(httptest.NewRecorder(), r)
					arrived.Add(1 << 20)
					cutOff(w, r)
					return
				}
				arrived.Add(r.ContentLength)
			}
			h.ServeHTTP(w, r)
		})
	})
	data, d := random(t, 4<<20)
	r := client(t, Config{}).Repository(name(t, host+"/a"), nil, Push)
	if err := r.Upload(t.Context(), d, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := r.HasBlob(t.Context(), d.Digest); !ok || err != nil {
		t.Errorf("not there: %v", err)
	}
	if arrived.Load() != 4<<20 {
		t.Errorf("%d bytes moved for %d", arrived.Load(), 4<<20)
	}
}

func TestUploadMountAndTags(t *testing.T) {
	host, srv := serve(t, nil)
	img := pushed(t, srv, "a", "v1", images.Options{})
	c := client(t, Config{})
	r := c.Repository(name(t, host+"/b"), nil, Push)
	if ok, err := r.Mount(t.Context(), img.Layers[0].Digest, name(t, host+"/a")); !ok || err != nil {
		t.Fatalf("mount: %v %v", ok, err)
	}
	if ok, err := r.Mount(t.Context(), img.Config.Digest, name(t, host+"/none")); ok || err != nil {
		t.Fatalf("mount from nowhere: %v %v", ok, err)
	}
	if err := r.Upload(t.Context(), img.Config, bytes.NewReader(img.Blobs[img.Config.Digest]), nil); err != nil {
		t.Fatal(err)
	}
	empty := ocispec.Descriptor{Digest: digest.FromBytes(nil)}
	if err := r.Upload(t.Context(), empty, bytes.NewReader(nil), nil); err != nil {
		t.Fatal(err)
	}
	m := img.Blobs[img.Manifest.Digest]
	for i := range 3 {
		if err := r.PutManifest(t.Context(), fmt.Sprintf("t%04d", i), img.Manifest.MediaType, m); err != nil {
			t.Fatal(err)
		}
	}
	tags, err := r.Tags(t.Context())
	if err != nil || strings.Join(tags, " ") != "t0000 t0001 t0002" {
		t.Errorf("tags: %v %v", tags, err)
	}
	if _, has, err := r.HasManifest(t.Context(), "t0001"); !has || err != nil {
		t.Errorf("has: %v", err)
	}
	if _, has, err := r.HasManifest(t.Context(), "none"); has || err != nil {
		t.Errorf("has none: %v", err)
	}
	if err := r.PutManifest(t.Context(), "bad", img.Manifest.MediaType, bytes.ReplaceAll(m, []byte(img.Config.Digest), []byte(digest.FromString("q")))); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "manifest blob unknown: ") {
		t.Errorf("incomplete manifest: %v", err)
	}
}

func TestTagsPages(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.URL.Query().Get("last"))
		if from < 3 {
			w.Header().Set("Link", fmt.Sprintf(`</v2/a/tags/list?last=%d&n=1>; rel="next"`, from+1))
		}
		json.NewEncoder(w).Encode(map[string]any{"name": "a", "tags": []string{fmt.Sprint("t", from)}})
	}))
	defer srv.Close()
	tags, err := client(t, Config{}).Repository(name(t, strings.TrimPrefix(srv.URL, "http://")+"/a"), nil, Pull).Tags(t.Context())
	if err != nil || strings.Join(tags, " ") != "t0 t1 t2 t3" {
		t.Errorf("%v %v", tags, err)
	}
}

// guarded wraps a registry in Basic or Bearer authentication for alice with secret.
func guarded(scheme string, asked *sync.Map) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				r.ParseForm()
				asked.Store("scope", strings.Join(r.Form["scope"], " "))
				asked.Store("grant", r.Form.Get("grant_type"))
				user, pass, _ := r.BasicAuth()
				good := user == "alice" && pass == "secret" || r.Form.Get("refresh_token") == "refresh-me"
				if !good && (user != "" || r.Form.Get("refresh_token") != "") {
					w.WriteHeader(401)
					io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`)
					return
				}
				reply := map[string]any{"token": "anonymous", "expires_in": 300}
				if good {
					reply["token"] = "for:" + strings.Join(r.Form["scope"], " ")
				}
				if r.Form.Get("offline_token") == "true" {
					reply["refresh_token"] = "refresh-me"
				}
				json.NewEncoder(w).Encode(reply)
				return
			}
			if rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"); ok {
				repo := strings.SplitN(rest, "/", 2)[0]
				v := r.Header.Get("Authorization")
				ok := v == "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:secret"))
				challenge := `Basic realm="x"`
				if scheme == "Bearer" {
					need := "pull"
					if r.Method != "GET" && r.Method != "HEAD" {
						need = "pull,push"
					}
					token := strings.TrimPrefix(v, "Bearer ")
					ok = token == "mine" || strings.HasPrefix(token, "for:") &&
						(rest == "" || strings.HasPrefix(token, "for:repository:"+repo+":pull") && (need == "pull" || strings.HasSuffix(token, "push")))
					challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="reg, istry",scope="repository:%s:%s"`, r.Host, repo, need)
				}
				if !ok {
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(401)
					io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
					return
				}
			}
			h.ServeHTTP(w, r)
		})
	}
}

func TestAuthentication(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			asked := &sync.Map{}
			host, _ := serve(t, guarded(scheme, asked))
			c := client(t, Config{})
			img, err := images.Generate(images.Options{})
			if err != nil {
				t.Fatal(err)
			}
			alice := &registrytypes.AuthConfig{Username: "alice", Password: "secret"}
			encoded := &registrytypes.AuthConfig{Auth: base64.StdEncoding.EncodeToString([]byte("alice:secret"))}
			push := c.Repository(name(t, host+"/a"), alice, Push)
			for _, d := range append(img.Layers, img.Config) {
				if err := push.Upload(t.Context(), d, bytes.NewReader(img.Blobs[d.Digest]), nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := push.PutManifest(t.Context(), "v1", img.Manifest.MediaType, img.Blobs[img.Manifest.Digest]); err != nil {
				t.Fatal(err)
			}
			if scope, _ := asked.Load("scope"); scheme == "Bearer" && scope != "repository:a:pull,push" {
				t.Errorf("asked for scope %v", scope)
			}
			if _, _, err := c.Repository(name(t, host+"/a"), encoded, Pull).Manifest(t.Context(), "v1"); err != nil {
				t.Errorf("pull with auth: %v", err)
			}
			if scheme == "Bearer" {
				for what, auth := range map[string]*registrytypes.AuthConfig{"identity": {IdentityToken: "refresh-me"}, "registry": {RegistryToken: "mine"}} {
					if _, _, err := c.Repository(name(t, host+"/a"), auth, Pull).Manifest(t.Context(), "v1"); err != nil {
						t.Errorf("pull with %s token: %v", what, err)
					}
				}
			}
			_, _, err = c.Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "v1")
			if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "pull access denied for "+host+"/a, repository does not exist or may require 'docker login': unauthorized: ") {
				t.Errorf("anonymous pull: %v", err)
			}
			err = c.Repository(name(t, host+"/a"), nil, Push).Upload(t.Context(), img.Config, bytes.NewReader(img.Blobs[img.Config.Digest]), nil)
			if !errdefs.IsUnauthorized(err) || err.Error() != "unauthorized: authentication required" {
				t.Errorf("anonymous push: %v", err)
			}
			reply, err := c.Login(t.Context(), registrytypes.AuthConfig{Username: "alice", Password: "secret", ServerAddress: host})
			if err != nil || reply.Status != "Login Succeeded" || (reply.IdentityToken != "") != (scheme == "Bearer") {
				t.Errorf("login: %+v %v", reply, err)
			}
			_, err = c.Login(t.Context(), registrytypes.AuthConfig{Username: "alice", Password: "wrong", ServerAddress: "http://" + host + "/v1/"})
			if !errdefs.IsUnauthorized(err) || !strings.HasPrefix(err.Error(), `Get "http://`+host+`/v2/": unauthorized: `) {
				t.Errorf("wrong password: %v", err)
			}
		})
	}
}

func TestMirrorsAreAskedFirstAndMayFail(t *testing.T) {
	var upstreamAsked, brokenAsked atomic.Int32
	host, srv := serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			upstreamAsked.Add(1)
			if r.Header.Get("Authorization") != "" {
				t.Error("the mirror got credentials")
			}
			h.ServeHTTP(w, r)
		})
	})
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { brokenAsked.Add(1); w.WriteHeader(500) }))
	defer broken.Close()
	img := pushed(t, srv, "library/x", "v1", images.Options{})
	c := client(t, Config{Mirrors: []string{broken.URL, "http://" + host + "/"}})
	r := c.Repository(name(t, "x"), &registrytypes.AuthConfig{Username: "u", Password: "p"}, Pull)
	if _, d, err := r.Manifest(t.Context(), "v1"); err != nil || d.Digest != img.Manifest.Digest {
		t.Fatal(err)
	}
	if brokenAsked.Load() != 1 || upstreamAsked.Load() == 0 {
		t.Errorf("%d and %d requests", brokenAsked.Load(), upstreamAsked.Load())
	}
	es, err := r.locate(t.Context(), request{})
	if err != nil || len(es) != 2 || es[1].base != "https://registry-1.docker.io" {
		t.Errorf("endpoints %+v, %v", es, err)
	}
}

func TestInsecureRules(t *testing.T) {
	c := client(t, Config{InsecureRegistries: []string{"10.1.0.0/16", "reg.example:5000", "plain.example"}})
	for host, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.8.8.8": true, "localhost": true, "localhost:5000": true, "[::1]:5000": true,
		"10.1.2.3:443": true, "10.2.2.3": false, "reg.example:5000": true, "reg.example:5001": false,
		"plain.example:77": true, "192.0.2.1:5000": false,
	} {
		if got := c.insecure(t.Context(), host); got != want {
			t.Errorf("%s: insecure %v, want %v", host, got, want)
		}
	}
	for _, bad := range []string{"http://x", "", "10.1.0.0/99"} {
		if _, err := New(Config{InsecureRegistries: []string{bad}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// hostAddress finds an address of this machine that is not the loopback.
func hostAddress(t *testing.T) string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("only a loopback here")
	return ""
}

func TestTLS(t *testing.T) {
	h, err := hub.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	l, err := net.Listen("tcp", hostAddress(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Listener = l
	srv.StartTLS()
	defer srv.Close()
	host := l.Addr().String()
	ask := func(c *Client) error {
		_, _, err := c.Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "v1")
		return err
	}
	if err := ask(client(t, Config{})); err == nil || errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "x509: ") {
		t.Errorf("self-signed: %v", err)
	}
	if err := ask(client(t, Config{InsecureRegistries: []string{host}})); !errdefs.IsNotFound(err) {
		t.Errorf("insecure: %v", err)
	}
	// The test certificate is for example.com and 127.0.0.1: with its authority the name is what is wrong.
	certs := t.TempDir()
	os.MkdirAll(filepath.Join(certs, host), 0o755)
	pemBytes := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	os.WriteFile(filepath.Join(certs, host, "ca.crt"), pemBytes, 0o644)
	if err := ask(client(t, Config{CertsDir: certs})); err == nil || !strings.Contains(err.Error(), "x509: certificate is valid for") {
		t.Errorf("with authority: %v", err)
	}
	plain, err := net.Listen("tcp", hostAddress(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	psrv := &http.Server{Handler: h}
	go psrv.Serve(plain)
	defer psrv.Close()
	host = plain.Addr().String()
	if err := ask(client(t, Config{})); err == nil || !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") || !strings.Contains(err.Error(), "insecure-registries") {
		t.Errorf("plain HTTP: %v", err)
	}
	ip, _, _ := net.SplitHostPort(host)
	if err := ask(client(t, Config{InsecureRegistries: []string{ip + "/32"}})); !errdefs.IsNotFound(err) {
		t.Errorf("plain HTTP in an insecure network: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	began := time.Now()
	_, _, err = client(t, Config{}).Repository(name(t, host+"/a"), nil, Pull).Manifest(t.Context(), "v1")
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "connection refused") || time.Since(began) > 3*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestChallenges(t *testing.T) {
	h := http.Header{"Www-Authenticate": {`Basic realm="a b", Bearer realm="https://x/t",service="s,\"q\"", scope=plain`, `Negotiate`}}
	got := fmt.Sprint(challenges(h))
	if want := `[{basic map[realm:a b]} {bearer map[realm:https://x/t scope:plain service:s,"q"]} {negotiate map[]}]`; got != want {
		t.Errorf("got %s", got)
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://x/t",service="s"`)
	f.Add(`, =,"`)
	f.Fuzz(func(t *testing.T, s string) { challenges(http.Header{"Www-Authenticate": {s}}) })
}

func FuzzNextPage(f *testing.F) {
	f.Add(`</v2/a/tags/list?last=1>; rel="next"`)
	base, _ := url.Parse("http://h/v2/a/tags/list")
	f.Fuzz(func(t *testing.T, s string) {
		if next := nextPage(http.Header{"Link": {s}}, base); next != "" && next[0] != '/' {
			t.Errorf("%q leads to %q", s, next)
		}
	})
}

// FuzzHeaders parses what a registry may put into headers and manifests.
func FuzzHeaders(f *testing.F) {
	f.Add("0-1023", "120", `<https://x/y?n=1>; rel="next"`, "application/json; charset=utf-8", []byte(`{"schemaVersion":2}`))
	f.Add("bytes=0-", "Wed, 21 Oct 2015 07:28:00 GMT", `<`, ";", []byte(`{"errors":[{"code":"X","message":"y"}]}`))
	f.Fuzz(func(t *testing.T, span, after, link, kind string, body []byte) {
		if n := rangeEnd(span); n < 0 {
			t.Errorf("%q ends at %d", span, n)
		}
		if d := retryAfter(http.Header{"Retry-After": {after}}); d < 0 || d > longestPause {
			t.Errorf("%q waits %s", after, d)
		}
		base := &url.URL{Scheme: "https", Host: "a.b"}
		if next := nextPage(http.Header{"Link": {link}}, base); strings.Contains(next, "://") && !strings.HasPrefix(next, "/") {
			t.Errorf("%q leads to %q", link, next)
		}
		if d, err := describe(body, kind); err == nil && d.Digest != digest.FromBytes(body) {
			t.Error("another digest")
		}
		c := &Client{patience: time.Minute}
		e := c.readError(&http.Response{StatusCode: 400, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))})
		if len(e.Error()) > 1<<17 {
			t.Error("a long error")
		}
	})
}
