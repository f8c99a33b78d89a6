package command

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/docker/go-connections/tlsconfig"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

// TLS is how a tcp:// engine is told who we are, and checked to be who it says.
type TLS struct {
	use, verify   bool
	ca, cert, key string
	fs            *pflag.FlagSet
}

// Register adds the --tls flags.
func (t *TLS) Register(fs *pflag.FlagSet) {
	t.fs = fs
	fs.BoolVar(&t.use, "tls", false, "Use TLS; implied by --tlsverify")
	fs.StringVar(&t.ca, "tlscacert", "", "Trust certs signed only by this CA (default: ca.pem in DOCKER_CERT_PATH or the config folder)")
	fs.StringVar(&t.cert, "tlscert", "", "Path to TLS certificate file (default: cert.pem beside it)")
	fs.StringVar(&t.key, "tlskey", "", "Path to TLS key file (default: key.pem beside it)")
	fs.BoolVar(&t.verify, "tlsverify", false, "Use TLS and verify the remote")
}

// options are the client's, none without TLS. A context brings its own files; the flags are for the engine that no context names.
func (t *TLS) options(configDir string, to Endpoint) ([]client.Opt, error) {
	if to.Context != DefaultContext {
		switch {
		case to.ca == "" && to.cert == "" && to.key == "" && !to.skipVerify:
			return nil, nil
		case to.skipVerify:
			return unverified(to.ca, to.cert, to.key)
		}
		return []client.Opt{client.WithTLSClientConfig(to.ca, to.cert, to.key)}, nil
	}
	verify := t.verify || os.Getenv("DOCKER_TLS_VERIFY") != "" && (t.fs == nil || !t.fs.Changed("tlsverify"))
	if !verify && !t.use && os.Getenv("DOCKER_TLS") == "" && t.ca == "" && t.cert == "" && t.key == "" {
		return nil, nil
	}
	dir := cmp.Or(os.Getenv("DOCKER_CERT_PATH"), configDir)
	file := func(flag, name string) string {
		if flag != "" {
			return flag
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return ""
		}
		return path
	}
	ca, cert, key := "", file(t.cert, "cert.pem"), file(t.key, "key.pem")
	if verify || t.ca != "" {
		ca = cmp.Or(t.ca, filepath.Join(dir, "ca.pem"))
	}
	if verify {
		return []client.Opt{client.WithTLSClientConfig(ca, cert, key)}, nil
	}
	return unverified(ca, cert, key)
}

// unverified is TLS with whoever answers.
func unverified(ca, cert, key string) ([]client.Opt, error) {
	config, err := tlsconfig.Client(tlsconfig.Options{CAFile: ca, CertFile: cert, KeyFile: key, ExclusiveRootPools: true, InsecureSkipVerify: true})
	if err != nil {
		return nil, fmt.Errorf("cannot use TLS: %w", err)
	}
	return []client.Opt{client.WithHTTPClient(&http.Client{Transport: &http.Transport{TLSClientConfig: config}, CheckRedirect: client.CheckRedirect})}, nil
}
