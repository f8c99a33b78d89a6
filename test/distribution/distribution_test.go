// Package distribution holds what the OCI distribution-spec 1.1 asks of a registry, one clause each, named by the document's
// endpoint (end-1 … end-13) or section, in its four workflows; and what clients of version 1.0 and Docker's rely on beyond it.
//
// A clause gets a registry's address and a repository of its own. It knows no registry: TestClauses runs all clauses with
// tare-registry, or the registry of -registry; TestPeers with Debian's docker-registry, too, and docs/distribution-conformance.md is
// the table of both.
//
//	go test ./test/distribution -run 'TestClauses/push'
//	go test ./test/distribution -run TestPeers -update
//	go test ./test/distribution -run TestClauses -registry http://127.0.0.1:5000
package distribution

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/hub"
)

var (
	registryFlag = flag.String("registry", "", "base address of the registry to check; ours without")
	update       = flag.Bool("update", false, "write docs/distribution-conformance.md")
)

const table = "../../docs/distribution-conformance.md"

// clause is one sentence of the specification.
type clause struct {
	workflow string // pull, push, discovery, management, errors, before 1.1
	where    string // endpoint or section
	level    string // MUST, SHOULD, or who relies on it
	says     string
	check    func(p *probe)
}

// probe is one clause's view of a registry.
type probe struct {
	base string
	repo string
}

// failed is what a clause panics with.
type failed string

func (p *probe) fail(format string, args ...any) { panic(failed(fmt.Sprintf(format, args...))) }

var number atomic.Int64

// try runs a clause; "" is success.
func try(base string, c clause) (failure string) {
	defer func() {
		if f, ok := recover().(failed); ok {
			failure = string(f)
		}
	}()
	c.check(&probe{base: base, repo: fmt.Sprintf("conformance/r%d-%d", time.Now().UnixNano(), number.Add(1))})
	return ""
}

type answer struct {
	*http.Response
	body []byte
}

// client follows no redirects: a registry's answer is what counts.
var client = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// do makes a request; target is a path, or an address that the registry gave. headers are "Name: value".
func (p *probe) do(method, target string, body []byte, headers ...string) answer {
	if strings.HasPrefix(target, "/") {
		target = p.base + target
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	rq, err := http.NewRequest(method, target, r)
	if err != nil {
		p.fail("%v", err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		rq.Header.Set(k, v)
	}
	rs, err := client.Do(rq)
	if err != nil {
		p.fail("%s %s: %v", method, target, err)
	}
	defer rs.Body.Close()
	data, err := io.ReadAll(rs.Body)
	if err != nil {
		p.fail("%s %s: %v", method, target, err)
	}
	return answer{rs, data}
}

// want checks the status.
func (p *probe) want(a answer, statuses ...int) answer {
	if !slices.Contains(statuses, a.StatusCode) {
		p.fail("%s %s: status %d, want %v: %.200s", a.Request.Method, a.Request.URL.RequestURI(), a.StatusCode, statuses, a.body)
	}
	return a
}

func (p *probe) header(a answer, name, want string) {
	if got := a.Header.Get(name); got != want {
		p.fail("%s %s: %s is %q, want %q", a.Request.Method, a.Request.URL.Path, name, got, want)
	}
}

func (p *probe) path(parts ...string) string { return "/v2/" + p.repo + "/" + strings.Join(parts, "/") }

// location is the address that an answer leads to.
func (p *probe) location(a answer) string {
	v := a.Header.Get("Location")
	if v == "" {
		p.fail("%s %s: no Location", a.Request.Method, a.Request.URL.Path)
	}
	u, err := a.Request.URL.Parse(v)
	if err != nil {
		p.fail("Location %q: %v", v, err)
	}
	return u.String()
}

func with(address, key, value string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// begin starts an upload.
func (p *probe) begin() string {
	return p.location(p.want(p.do("POST", p.path("blobs/uploads/"), nil, "Content-Length: 0"), 202))
}

// blob pushes content and returns its descriptor.
func (p *probe) blob(content string) ocispec.Descriptor {
	d := digest.FromString(content)
	p.want(p.do("PUT", with(p.begin(), "digest", d.String()), []byte(content), "Content-Type: application/octet-stream"), 201)
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(content))}
}

// made is a manifest.
type made struct {
	desc ocispec.Descriptor
	data []byte
}

// image makes a manifest whose blobs are pushed; change alters its JSON.
func (p *probe) image(change func(m map[string]any)) made {
	config := p.blob(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	config.MediaType = ocispec.MediaTypeImageConfig
	layer := p.blob("a layer of " + p.repo)
	layer.MediaType = ocispec.MediaTypeImageLayerGzip
	m := map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": config, "layers": []ocispec.Descriptor{layer}}
	if change != nil {
		change(m)
	}
	return encode(m)
}

func encode(m map[string]any) made {
	data, err := json.MarshalIndent(m, "", "   ")
	if err != nil {
		panic(err)
	}
	mt, _ := m["mediaType"].(string)
	return made{ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}
}

// put pushes a manifest under a tag or digest.
func (p *probe) put(ref string, m made) answer {
	return p.want(p.do("PUT", p.path("manifests", ref), m.data, "Content-Type: "+m.desc.MediaType), 201)
}

// pushed makes and pushes an image with a tag.
func (p *probe) pushed(tag string) made {
	m := p.image(nil)
	p.put(tag, m)
	return m
}

// errorBody checks the form of an error's body and its code.
func (p *probe) errorBody(a answer, codes ...string) {
	var body struct {
		Errors []struct {
			Code    string
			Message string
		}
	}
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.Errors) == 0 {
		p.fail("%s %s: %d with the body %.200q", a.Request.Method, a.Request.URL.RequestURI(), a.StatusCode, a.body)
	}
	if !slices.Contains(codes, body.Errors[0].Code) {
		p.fail("%s %s: code %s, want %v", a.Request.Method, a.Request.URL.RequestURI(), body.Errors[0].Code, codes)
	}
}

func ours(t *testing.T) string {
	h, err := hub.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		client.CloseIdleConnections()
		s.Close()
		h.Close()
	})
	return s.URL
}

// dockerRegistry is Debian's.
func dockerRegistry(t *testing.T) (base, version string) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatal("this test needs docker-registry: test/deps.sh installs it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n",
		filepath.Join(dir, "data"), host), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", host)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	out, _ := exec.Command(program, "--version").Output()
	fields := strings.Fields(string(out))
	if len(fields) > 0 {
		version = strings.TrimPrefix(fields[len(fields)-1], "v")
	}
	return "http://" + host, version
}

func TestClauses(t *testing.T) {
	base := *registryFlag
	if base == "" {
		base = ours(t)
	}
	for _, c := range clauses {
		t.Run(strings.ReplaceAll(c.workflow+"/"+c.where+" "+c.says, " ", "_"), func(t *testing.T) {
			if f := try(base, c); f != "" {
				t.Errorf("%s, %s: %s\n%s", c.level, c.where, c.says, f)
			}
		})
	}
}

// TestPeers compares, and keeps the table true.
func TestPeers(t *testing.T) {
	us := ours(t)
	peer, version := dockerRegistry(t)
	var b strings.Builder
	fmt.Fprintf(&b, "# Conformance with the OCI distribution specification 1.1\n\nEvery MUST and SHOULD that concerns a registry, and what clients of version 1.0 and Docker's rely on, as the tests of `test/distribution`; Debian's docker-registry %s beside tare-registry. ", version)
	fmt.Fprintf(&b, "Written by `go test ./test/distribution -run TestPeers -update`; `make test` fails when it is no longer true. The public conformance suite runs in `make e2e` (test/e2e/11-distribution-conformance.sh).\n")
	workflow := ""
	var passed [2]int
	var rows strings.Builder
	for _, c := range clauses {
		if c.workflow != workflow {
			workflow = c.workflow
			fmt.Fprintf(&rows, "\n## %s\n\n| where | level | what | tare-registry | docker-registry |\n|---|---|---|---|---|\n", strings.ToUpper(workflow[:1])+workflow[1:])
		}
		var marks [2]string
		for i, base := range []string{us, peer} {
			marks[i] = "no"
			if f := try(base, c); f == "" {
				marks[i] = "yes"
				passed[i]++
			}
		}
		fmt.Fprintf(&rows, "| %s | %s | %s | %s | %s |\n", c.where, c.level, strings.ReplaceAll(c.says, "|", `\|`), marks[0], marks[1])
	}
	fmt.Fprintf(&b, "\ntare-registry meets %d of %d clauses, docker-registry %d.\n", passed[0], len(clauses), passed[1])
	b.WriteString(rows.String())
	if *update {
		if err := os.WriteFile(table, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != b.String() {
		old, now := strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")
		for i := range now {
			if i >= len(old) || old[i] != now[i] {
				t.Errorf("%s is no longer true; run with -update. From line %d:\n%s", table, i+1, now[i])
				return
			}
		}
		t.Errorf("%s has more lines than are true", table)
	}
}
