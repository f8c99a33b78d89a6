package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tare/internal/server/config"
)

func serve(t *testing.T, c *config.Config) (net.Listener, []string) {
	t.Helper()
	ls, warnings, err := All(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "OK") }), ErrorLog: nil}
	for _, l := range ls {
		go srv.Serve(l)
	}
	t.Cleanup(func() { srv.Close() })
	return ls[0], warnings
}

func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "s")
	c := &config.Config{Hosts: []string{"unix://" + path}}
	serve(t, c)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v %v", st.Mode(), err)
	}
	if _, _, err := All(c); err == nil || !strings.Contains(err.Error(), "another engine answers there") {
		t.Errorf("a second listener: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, []byte("precious"), 0o600)
	if _, _, err := All(&config.Config{Hosts: []string{"unix://" + file}}); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	// What a killed engine left is replaced.
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ls, _, err := All(&config.Config{Hosts: []string{"unix://" + stale}})
	if err != nil {
		t.Fatal(err)
	}
	ls[0].Close()
}

func TestTCPWarns(t *testing.T) {
	_, warnings := serve(t, &config.Config{Hosts: []string{"tcp://127.0.0.1:0"}})
	if len(warnings) != 1 || !strings.Contains(warnings[0], "without encryption") {
		t.Errorf("warnings: %q", warnings)
	}
}

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", true)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) issue(name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := a.cert, a.key
	if ca {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	os.WriteFile(a.path(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	os.WriteFile(a.path(name+"-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	a.issue("server", false)
	a.issue("client", false)
	l, warnings := serve(t, &config.Config{
		Hosts: []string{"tcp://127.0.0.1:0"}, TLS: true, TLSVerify: true,
		TLSCACert: a.path("ca.pem"), TLSCert: a.path("server.pem"), TLSKey: a.path("server-key.pem"),
	})
	if len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
	get := func(certs ...tls.Certificate) error {
		pool := x509.NewCertPool()
		pool.AddCert(a.cert)
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get("https://" + l.Addr().String())
		if err == nil {
			if res.ProtoMajor != 1 {
				t.Errorf("the server speaks %s, which can't hijack", res.Proto)
			}
			res.Body.Close()
		}
		return err
	}
	if err := get(); err == nil {
		t.Error("a client without a certificate got an answer")
	}
	pair, err := tls.LoadX509KeyPair(a.path("client.pem"), a.path("client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := get(pair); err != nil {
		t.Errorf("a client with a certificate: %v", err)
	}
}

// helperEnv makes the test program a service that systemd started.
const helperEnv = "TARE_LISTEN_TEST"

func TestActivation(t *testing.T) {
	if hosts := os.Getenv(helperEnv); hosts != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		ls, _, err := All(&config.Config{Hosts: strings.Fields(hosts)})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(0)
		}
		for _, l := range ls {
			fmt.Println(l.Addr())
		}
		os.Exit(0)
	}
	dir := t.TempDir()
	var files []*os.File
	for _, name := range []string{"a", "b"} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	for hosts, want := range map[string]string{
		"fd://":                          dir + "/a\n" + dir + "/b\n",
		"fd://second":                    dir + "/b\n",
		"fd://3":                         dir + "/a\n",
		"fd://second fd://first":         dir + "/b\n" + dir + "/a\n",
		"fd://nope":                      "error: cannot listen on fd://nope: the service manager gave this program no such socket",
		"fd:// unix://" + dir + "/third": dir + "/a\n" + dir + "/b\n" + dir + "/third\n",
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestActivation")
		cmd.Env = append(os.Environ(), helperEnv+"="+hosts, "LISTEN_FDS=2", "LISTEN_FDNAMES=first:second")
		cmd.ExtraFiles = files
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: %s %v, want %s", hosts, out, err, want)
		}
	}
}
