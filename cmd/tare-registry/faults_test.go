package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/test/images"
)

// writeConfig writes a configuration and returns its path.
func writeConfig(t *testing.T, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// kills is how often the registry is killed.
const kills = 100

// TestKilledAHundredTimes kills the registry at any moment of pushes, deletions and garbage collection. What was acknowledged is
// there afterwards, byte by byte; what was deleted stays deleted; and in the end nothing is left over.
func TestKilledAHundredTimes(t *testing.T) {
	root := t.TempDir()
	file := writeConfig(t, "root: "+root+"\nlisten: 127.0.0.1:0\nlog: {level: error}\ngc: {interval: 5ms, grace: 200ms, uploads: 300ms}\n")
	var pool []*images.Image
	for i := range 6 {
		img, err := images.Generate(images.Options{Layers: 2, FilesPerLayer: 3, FileSize: 20000, Seed: uint64(i % 4), Cmd: []string{fmt.Sprint(i)}})
		if err != nil {
			t.Fatal(err)
		}
		pool = append(pool, img)
	}
	var mu sync.Mutex
	acknowledged := map[string]*images.Image{} // by repository:tag
	deleted := map[string]bool{}
	client := &http.Client{Transport: &http.Transport{}}
	status := func(method, address string) (int, []byte) {
		rq, err := http.NewRequest(method, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := client.Do(rq)
		if err != nil {
			return 0, nil
		}
		defer rs.Body.Close()
		data, err := io.ReadAll(rs.Body)
		if err != nil {
			return 0, nil
		}
		return rs.StatusCode, data
	}
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	tags := 0
	for range kills {
		cmd, base := programWith(t, "--config", file)
		stop := make(chan struct{})
		var acks atomic.Int32
		var group sync.WaitGroup
		for w := range 3 {
			repository := fmt.Sprintf("r%d", w)
			mu.Lock()
			tags++
			first := tags
			mu.Unlock()
			group.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					img := pool[(first+i)%len(pool)]
					tag := fmt.Sprintf("t%d-%d", first, i)
					if img.Push(base, repository, tag) != nil {
						return
					}
					key := repository + ":" + tag
					mu.Lock()
					acknowledged[key] = img
					mu.Unlock()
					acks.Add(1)
					if i%2 != 1 {
						continue
					}
					mu.Lock()
					delete(acknowledged, key) // whatever comes of it
					mu.Unlock()
					if s, _ := status("DELETE", base+"/v2/"+repository+"/manifests/"+tag); s == 202 {
						mu.Lock()
						deleted[key] = true
						mu.Unlock()
					}
				}
			})
		}
		for target := rng.IntN(8); int(acks.Load()) < target; { // however slow the machine is
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(rng.IntN(5000)) * time.Microsecond) // a moment by chance is what the test is about
		cmd.Process.Kill()
		cmd.Wait()
		close(stop)
		group.Wait()
	}
	if len(acknowledged) < kills || len(deleted) < 10 {
		t.Errorf("only %d pushes and %d deletions in all", len(acknowledged), len(deleted))
	}
	_, base := programWith(t, "--config", file)
	seen := map[string]bool{}
	for key, img := range acknowledged {
		repository, tag, _ := strings.Cut(key, ":")
		if s, data := status("GET", base+"/v2/"+repository+"/manifests/"+tag); s != 200 || digest.FromBytes(data) != img.Manifest.Digest {
			t.Errorf("%s was acknowledged; now %d", key, s)
		}
		for _, l := range append(img.Layers, img.Config) {
			if id := repository + l.Digest.String(); !seen[id] {
				seen[id] = true
				if s, data := status("GET", base+"/v2/"+repository+"/blobs/"+l.Digest.String()); s != 200 || digest.FromBytes(data) != l.Digest {
					t.Errorf("blob %s of %s: %d", l.Digest, key, s)
				}
			}
		}
	}
	for key := range deleted {
		repository, tag, _ := strings.Cut(key, ":")
		if s, _ := status("GET", base+"/v2/"+repository+"/manifests/"+tag); s != 404 {
			t.Errorf("%s was deleted; now %d", key, s)
		}
	}
	// All of it is deleted: then nothing is left, of what was acknowledged or of what was cut short.
	for _, repository := range []string{"r0", "r1", "r2"} {
		for _, img := range pool {
			status("DELETE", base+"/v2/"+repository+"/manifests/"+img.Manifest.Digest.String())
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var left []string
		filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			name := strings.TrimPrefix(path, root)
			if err == nil && !e.IsDir() && (strings.HasPrefix(name, "/blobs/") || strings.HasPrefix(name, "/repositories/") || strings.HasPrefix(name, "/uploads/")) {
				left = append(left, name)
			}
			return nil
		})
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d files are left over: %v", len(left), left[:min(len(left), 8)])
		}
	}
}

func TestFullDisk(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("full", root, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	_, base := programWith(t, "--root", root, "--addr", "127.0.0.1:0", "--quiet")
	img, err := images.Generate(images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push(base, "a", "v1"); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16*8)
	for range 3 {
		rs, err := http.Post(base+"/v2/a/blobs/uploads/?digest="+digest.FromBytes(big).String(), "application/octet-stream", bytes.NewReader(big))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(rs.Body)
		rs.Body.Close()
		if rs.StatusCode != 507 || !strings.Contains(string(body), "no space left on the registry's disk") {
			t.Errorf("%s: %s", rs.Status, body)
		}
	}
	if rs, err := http.Get(base + "/v2/a/manifests/v1"); err != nil || rs.StatusCode != 200 {
		t.Errorf("what was there: %v %v", rs, err)
	}
	// The failed ones left nothing: there is room for what fits.
	small := big[:3<<20]
	if err := images.PushBlob(base, "a", small); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "uploads/*")); len(left) > 0 {
		t.Error("left", left)
	}
}

func TestConfigurationIsRefusedWithItsLine(t *testing.T) {
	file := writeConfig(t, "root: /nowhere\nlimits:\n  blobs: 5\n")
	cmd := exec.Command(os.Args[0], "--config", file)
	cmd.Env = append(os.Environ(), "TARE_REGISTRY_TEST=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), file+`:3: unknown key "blobs"`) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAccountsFromTheCommandLine(t *testing.T) {
	root := t.TempDir()
	file := writeConfig(t, "root: "+root+"\nlisten: 127.0.0.1:0\nlog: {level: error}\nauth: {scheme: basic}\nrights: [{repositories: ['**'], users: [ann], actions: [pull, push]}]\n")
	_, base := programWith(t, "--config", file)
	run := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(os.Args[0], append(args, "--config", file)...)
		cmd.Env = append(os.Environ(), "TARE_REGISTRY_TEST=1")
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
	get := func(path, name, password string) int {
		t.Helper()
		rq, _ := http.NewRequest("GET", base+path, nil)
		if name != "" {
			rq.SetBasicAuth(name, password)
		}
		rs, err := http.DefaultClient.Do(rq)
		if err != nil {
			t.Fatal(err)
		}
		rs.Body.Close()
		return rs.StatusCode
	}
	if s := get("/v2/", "ann", "secret"); s != 401 {
		t.Error("before:", s)
	}
	run("secret\n", "user", "add", "ann", "--group", "devs,ops")
	lines := strings.Fields(run("", "robot", "add", "ci", "--repository", "a/*", "--action", "pull,push", "--expires", "3"))
	if len(lines) != 2 || lines[0] != "robot$ci" {
		t.Fatal(lines)
	}
	if a, b, c := get("/v2/", "ann", "secret"), get("/v2/", "", ""), get("/v2/a/x/tags/list", lines[0], lines[1]); a != 200 || b != 401 || c != 404 {
		t.Error(a, b, c)
	}
	if s := get("/v2/b/tags/list", lines[0], lines[1]); s != 403 {
		t.Error("the robot elsewhere:", s)
	}
	if out := run("", "user", "list"); out != "ann\tgroups devs,ops\n" {
		t.Errorf("%q", out)
	}
	if out := run("", "robot", "list"); !strings.HasPrefix(out, "robot$ci\tpull,push in a/*\tuntil ") {
		t.Errorf("%q", out)
	}
	run("", "user", "remove", "ann")
	run("", "robot", "remove", "ci")
	if a, b := get("/v2/", "ann", "secret"), get("/v2/", lines[0], lines[1]); a != 401 || b != 401 {
		t.Error("after:", a, b)
	}
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func (a *authority) make(name string, ca bool) (cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	c := &x509.Certificate{SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		a.key = k
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLSWithClientCertificates(t *testing.T) {
	a := &authority{t: t, dir: t.TempDir()}
	ca, _ := a.make("ca", true)
	cert, key := a.make("server", false)
	mine, myKey := a.make("client", false)
	file := writeConfig(t, fmt.Sprintf("root: %s\nlisten: 127.0.0.1:0\nlog: {level: error}\nadmin: 127.0.0.1:0\ntls: {cert: %s, key: %s, clientCA: %s}\n", t.TempDir(), cert, key, ca))
	_, base := programWith(t, "--config", file)
	base = strings.Replace(base, "http:", "https:", 1)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	serial := func(pairs ...tls.Certificate) (int64, error) {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: pairs}}}
		defer c.CloseIdleConnections()
		rs, err := c.Get(base + "/v2/")
		if err != nil {
			return 0, err
		}
		rs.Body.Close()
		if rs.StatusCode != 200 {
			return 0, fmt.Errorf("status %s", rs.Status)
		}
		return rs.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
	}
	if _, err := serial(); err == nil {
		t.Error("a client without a certificate was let in")
	}
	pair, err := tls.LoadX509KeyPair(mine, myKey)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := serial(pair); err != nil || n != 2 {
		t.Error(n, err)
	}
	// A new certificate is taken up without a restart.
	a.make("server", false)
	later := time.Now().Add(time.Minute)
	os.Chtimes(cert, later, later)
	if n, err := serial(pair); err != nil || n != 4 {
		t.Error("after the renewal:", n, err)
	}
}
