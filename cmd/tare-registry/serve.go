package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"tare/internal/hub"
	"tare/internal/hub/config"
	"tare/internal/hub/upstream"
)

// grace is how long running requests may take after SIGTERM.
const grace = 30 * time.Second

func logger(c *config.Config) *slog.Logger {
	level := map[string]slog.Level{"info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[c.Log.Level]
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

// check opens what the configuration names, but serves nothing.
func check(c *config.Config) error {
	if _, err := tlsConfig(c.TLS); err != nil {
		return err
	}
	for _, k := range c.Caches {
		if _, err := upstream.Open(k); err != nil {
			return fmt.Errorf("cannot open cache %s: %w", k.Prefix, err)
		}
	}
	fmt.Println("the configuration is right")
	return nil
}

// serve runs until a signal or a failure.
func serve(c *config.Config) error {
	log := logger(c)
	secure, err := tlsConfig(c.TLS)
	if err != nil {
		return err
	}
	h, err := hub.New(c, log)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, k := range c.Caches {
		u, err := upstream.Open(k)
		if err != nil {
			return fmt.Errorf("cannot open cache %s: %w", k.Prefix, err)
		}
		h.Source(k.Prefix, u)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	done := make(chan error, 2)
	var servers []*http.Server
	start := func(addr, what string, handler http.Handler, secure *tls.Config) error {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		// The lines on stdout are for programs that asked for port 0.
		fmt.Printf("%s on %s\n", what, listener.Addr())
		s := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			TLSConfig: secure, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
		servers = append(servers, s)
		go func() {
			if secure != nil {
				done <- s.ServeTLS(listener, "", "")
				return
			}
			done <- s.Serve(listener)
		}()
		return nil
	}
	if err := start(c.Listen, "listening", h, secure); err != nil {
		return err
	}
	if c.Admin != "" {
		if err := start(c.Admin, "admin", h.Admin(), nil); err != nil {
			return err
		}
	}
	for running := true; running; {
		select {
		case err := <-done:
			return err
		case <-hup:
			if err := h.Reopen(); err != nil {
				log.Error("cannot reopen audit log", "error", err)
			}
		case <-stop.Done():
			running = false
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var failed error
	for _, s := range servers {
		if err := s.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
			s.Close()
		} else if err != nil {
			failed = err
		}
	}
	return failed
}

// tlsConfig is nil without a certificate. The certificate is read again when its file changes.
func tlsConfig(c config.TLS) (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	p := &pair{cert: c.Cert, key: c.Key}
	if _, err := p.get(nil); err != nil {
		return nil, fmt.Errorf("cannot use certificate: %w", err)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.get}
	if c.ClientCA != "" {
		pem, err := os.ReadFile(c.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("cannot read client authorities: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", c.ClientCA)
		}
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return t, nil
}

// pair is a certificate that may be replaced while it is used.
type pair struct {
	cert, key string

	mu    sync.Mutex // guards all below
	stamp time.Time
	last  *tls.Certificate
}

func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, err := os.Stat(p.cert)
	if err == nil && p.last != nil && info.ModTime().Equal(p.stamp) {
		return p.last, nil
	}
	if err == nil {
		var c tls.Certificate
		if c, err = tls.LoadX509KeyPair(p.cert, p.key); err == nil {
			p.last, p.stamp = &c, info.ModTime()
		}
	}
	if p.last != nil { // a certificate that is being replaced does not end the service
		return p.last, nil
	}
	return nil, err
}
