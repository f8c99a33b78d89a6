// tare-registry serves the OCI distribution API from one folder.
//
//	tare-registry --root D --addr 127.0.0.1:5000 [--tls-cert F --tls-key F]
//
// SIGTERM and SIGINT let the running requests end, for at most 30 seconds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tare/internal/hub"
)

func main() {
	root := flag.String("root", "", "folder of the registry (required)")
	addr := flag.String("addr", "127.0.0.1:5000", "address to listen on; port 0 takes a free one")
	cert := flag.String("tls-cert", "", "certificate file (PEM); serve HTTPS")
	key := flag.String("tls-key", "", "key file of the certificate (PEM)")
	quiet := flag.Bool("quiet", false, "log failures only, not every request")
	flag.Parse()
	if *root == "" || flag.NArg() > 0 || (*cert == "") != (*key == "") {
		fmt.Fprintln(os.Stderr, "Usage: tare-registry --root DIR [--addr HOST:PORT] [--tls-cert FILE --tls-key FILE] [--quiet]")
		os.Exit(2)
	}
	if err := serve(*root, *addr, *cert, *key, *quiet); err != nil {
		fmt.Fprintln(os.Stderr, "tare-registry:", err)
		os.Exit(1)
	}
}

// serve runs until a signal or a failure.
func serve(root, addr, cert, key string, quiet bool) error {
	level := slog.LevelInfo
	if quiet {
		level = slog.LevelWarn
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	h, err := hub.Open(root, log)
	if err != nil {
		return err
	}
	defer h.Close()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	// The one line on stdout is for programs that asked for port 0.
	fmt.Printf("listening on %s\n", listener.Addr())
	server := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		if cert != "" {
			done <- server.ServeTLS(listener, cert, key)
			return
		}
		done <- server.Serve(listener)
	}()
	select {
	case err := <-done:
		return err
	case <-stop.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	} else if err != nil {
		return err
	}
	return nil
}
