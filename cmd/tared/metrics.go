package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"tare/internal/server/metrics"
)

// serveMetrics serves /metrics until ctx ends.
func serveMetrics(ctx context.Context, address string, e *opened) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen on metrics-addr %s: %w", address, err)
	}
	info := e.services.Info()
	facts := metrics.Facts{
		Version: version, Commit: e.services.Version().GitCommit, Kernel: info.KernelVersion, OS: info.OperatingSystem,
		Graph: info.Driver, ID: info.ID, Memory: info.MemTotal,
	}
	srv := &http.Server{Handler: metrics.New(ctx, facts, e.engine.Containers, e.services.Events), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { srv.Close() })
	slog.Info("metrics listen on", "address", l.Addr().String())
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("metrics end", "error", err)
		}
	}()
	return nil
}
