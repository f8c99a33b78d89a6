// Package listen opens the sockets that the engine serves: unix sockets for the
// host's users, TCP with or without TLS, and takes over those that systemd opened.
package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tare/internal/server/config"
)

// All opens the hosts of a configuration. Nothing is left open after an error. The warnings are
// for hosts that anybody on the network may use.
func All(c *config.Config) (listeners []net.Listener, warnings []string, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
		}
	}()
	var activated given
	defer activated.close()
	for _, h := range c.Hosts {
		if name, ok := strings.CutPrefix(h, "fd://"); ok {
			ls, err := activated.take(c, name)
			listeners = append(listeners, ls...)
			if err != nil {
				return listeners, nil, err
			}
			continue
		}
		l, warning, err := one(c, h)
		if err != nil {
			return listeners, nil, err
		}
		listeners = append(listeners, l)
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	return listeners, warnings, nil
}

func one(c *config.Config, host string) (net.Listener, string, error) {
	proto, address, _ := strings.Cut(host, "://")
	if proto == "unix" {
		l, err := unixSocket(address, c.Group)
		return l, "", err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", fmt.Errorf("cannot listen on %s: %w", host, err)
	}
	if !c.TLS {
		return l, fmt.Sprintf("WARNING: API is accessible on http://%s without encryption. Access to the remote API is equivalent to root access on the host: use --tlsverify", l.Addr()), nil
	}
	t, err := tlsConfig(c)
	if err != nil {
		l.Close()
		return nil, "", err
	}
	warning := ""
	if !c.TLSVerify {
		warning = fmt.Sprintf("WARNING: API is accessible on https://%s without TLS client verification. Access to the remote API is equivalent to root access on the host: use --tlsverify", l.Addr())
	}
	return tls.NewListener(l, t), warning, nil
}

// Limited opens a unix socket for a group; "": root only.
func Limited(path, group string) (net.Listener, error) {
	if group == "" {
		group = "0"
	}
	if _, ok := groupID(group); !ok {
		return nil, fmt.Errorf("cannot listen on unix://%s: the host has no group %s", path, group)
	}
	return unixSocket(path, group)
}

// unixSocket listens on a path. A socket that nobody listens on any more is replaced; anything else is
// left alone. Its mode is 0660, its group the one that is asked for if the host has it.
func unixSocket(path, group string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("cannot listen on unix://%s: the path exists and is no socket", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("cannot listen on unix://%s: another engine answers there", path)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	// Between bind and chmod nobody but root may connect.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on unix://%s: %w", path, err)
	}
	if gid, ok := groupID(group); ok {
		if err := os.Chown(path, 0, gid); err != nil {
			l.Close()
			return nil, err
		}
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func groupID(group string) (int, bool) {
	if group == "" {
		return 0, false
	}
	if gid, err := strconv.Atoi(group); err == nil {
		return gid, true
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(g.Gid)
	return gid, err == nil
}

func tlsConfig(c *config.Config) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("cannot use the TLS certificate %s with key %s: %w", c.TLSCert, c.TLSKey, err)
	}
	// HTTP/2 has no hijacking, which attach and exec need.
	t := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if !c.TLSVerify {
		return t, nil
	}
	pem, err := os.ReadFile(c.TLSCACert)
	if err != nil {
		return nil, fmt.Errorf("cannot read the TLS authority: %w", err)
	}
	t.ClientCAs = x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", c.TLSCACert)
	}
	t.ClientAuth = tls.RequireAndVerifyClientCert
	return t, nil
}
