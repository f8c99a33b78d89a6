package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tare/internal/base/fault"
)

// tlsConfig reads what the rules and CertsDir have for a host. With neither, the system's authorities count.
func (c *Client) tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if rule := c.rules.host(host); rule.CA != "" || rule.Cert != "" {
		if rule.CA != "" {
			if err := trust(config, rule.CA); err != nil {
				return nil, fault.Invalid("registry %s: %w", host, err)
			}
		}
		if rule.Cert != "" {
			pair, err := tls.LoadX509KeyPair(rule.Cert, rule.Key)
			if err != nil {
				return nil, fault.Invalid("cannot use client certificate %s with %s: %w", rule.Cert, rule.Key, err)
			}
			config.Certificates = append(config.Certificates, pair)
		}
	}
	dir := filepath.Join(c.config.CertsDir, host)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return nil, fault.Internal("cannot read certificates for %s: %w", host, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".crt":
			if err := trust(config, path); err != nil {
				return nil, err
			}
		case ".cert":
			key := strings.TrimSuffix(path, ".cert") + ".key"
			pair, err := tls.LoadX509KeyPair(path, key)
			if err != nil {
				return nil, fault.Invalid("cannot use client certificate %s with %s: %w", path, key, err)
			}
			config.Certificates = append(config.Certificates, pair)
		}
	}
	return config, nil
}

// trust adds the authorities in a file to those of the system.
func trust(config *tls.Config, path string) error {
	pem, err := os.ReadFile(path)
	if err != nil {
		return fault.Internal("cannot read certificates: %w", err)
	}
	if config.RootCAs == nil {
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
	}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return fault.Invalid("%s has no certificate in PEM form", path)
	}
	return nil
}
