package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"

	"tare/internal/engine/spec"
	"tare/internal/runtime/cgroup/unit"
)

// finish fills in what follows from other values and checks what belongs together.
func (c *Config) finish() error {
	var err error
	for _, p := range []*string{&c.DataRoot, &c.ExecRoot} {
		if *p == "" {
			return fmt.Errorf("data-root and exec-root must not be empty")
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if c.PidFile == "" {
		c.PidFile = filepath.Join(c.ExecRoot, "tared.pid")
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{DefaultHost}
	}
	for i, h := range c.Hosts {
		if c.Hosts[i], err = parseHost(h); err != nil {
			return err
		}
	}
	if err := c.finishRuntimes(); err != nil {
		return err
	}
	for h, policy := range c.LimitedHosts {
		if !strings.HasPrefix(h, "unix:///") || !filepath.IsAbs(policy) {
			return fmt.Errorf("limited host %s=%s: want unix:///PATH=/POLICY/FILE", h, policy)
		}
	}
	if c.MetricsAddr != "" {
		if _, _, err := net.SplitHostPort(c.MetricsAddr); err != nil {
			return fmt.Errorf("invalid value for metrics-addr: %w", err)
		}
	}
	for _, l := range c.Labels {
		if k, _, ok := strings.Cut(l, "="); !ok || k == "" {
			return fmt.Errorf("bad attribute format: %s", l)
		}
	}
	for _, m := range c.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("invalid mirror: %q: want https://HOST[:PORT]", m)
		}
	}
	systemd := false
	for _, o := range c.ExecOptions {
		k, v, _ := strings.Cut(o, "=")
		switch {
		case k != "native.cgroupdriver":
			return fmt.Errorf("unknown option: %s: exec-opt knows native.cgroupdriver", k)
		case v != "cgroupfs" && v != "systemd":
			return fmt.Errorf("invalid value for native.cgroupdriver: %q", v)
		default:
			systemd = v == "systemd"
		}
	}
	switch slice := unit.IsSlice(c.CgroupParent); {
	case systemd && c.CgroupParent == "":
		c.CgroupParent = "system.slice"
	case systemd && !slice:
		return errors.New("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	case !systemd && slice:
		c.CgroupParent = "/" + c.CgroupParent // a path, whatever its name
	}
	if _, err := spec.Log(container.LogConfig{Type: c.LogDriver, Config: c.LogOptions}, ""); err != nil {
		return fmt.Errorf("failed to set log opts: %w", err)
	}
	if c.BridgeIP.IsValid() && c.Bridge != "" {
		return fmt.Errorf("you specified -b & --bip, mutually exclusive options. Please specify only one")
	}
	if c.TLSVerify {
		c.TLS = true
	}
	if c.TLS && (c.TLSCert == "" || c.TLSKey == "") {
		return fmt.Errorf("TLS needs --tlscert and --tlskey")
	}
	if c.TLSVerify && c.TLSCACert == "" {
		return fmt.Errorf("--tlsverify needs --tlscacert")
	}
	if c.LogLevel == "debug" || c.LogLevel == "trace" {
		c.Debug = true
	}
	return nil
}

// parseHost brings a host to unix://PATH or tcp://HOST:PORT.
func parseHost(h string) (string, error) {
	scheme, rest, ok := strings.Cut(h, "://")
	if !ok {
		scheme, rest = "tcp", h
		if strings.HasPrefix(h, "/") {
			scheme = "unix"
		}
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return DefaultHost, nil
		}
		return "unix://" + rest, nil
	case "tcp":
		if rest == "" {
			rest = ":"
		}
		host, port, err := net.SplitHostPort(strings.TrimSuffix(rest, "/"))
		if err != nil {
			return "", fmt.Errorf("invalid bind address (%s): %w", h, err)
		}
		if host == "" {
			host = "localhost"
		}
		if port == "" {
			port = "2375"
		}
		return "tcp://" + net.JoinHostPort(host, port), nil
	case "fd": // sockets that the service manager opened: all of them, or one by its number or name
		return "fd://" + strings.TrimPrefix(rest, "*"), nil
	}
	return "", fmt.Errorf("invalid bind address (%s): unsupported protocol %q", h, scheme)
}

// Instance names the engine's objects on this host (links, firewall table, cgroups), so that engines don't touch each other's: "tare"
// for the default roots, else eight hex digits of the data root's digest.
func (c *Config) Instance() string {
	d := Default()
	if c.DataRoot == d.DataRoot && c.ExecRoot == d.ExecRoot {
		return "tare"
	}
	sum := sha256.Sum256([]byte(c.DataRoot))
	return hex.EncodeToString(sum[:4])
}
