// Command tared is the engine: it serves Docker's Engine API for the containers,
// images, networks and volumes of one data root.
//
// The engine is the parent of no container and holder of no stream: it may be stopped,
// killed and replaced at any time, and containers go on. SIGTERM and SIGINT end it (with
// --shutdown they stop its containers first), SIGHUP reads the configuration file again.
//
// With TARE_TRACE=FILE in its environment the engine appends to FILE which box does what (package trace).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"tare/internal/base/trace"
	"tare/internal/server/config"
)

// version is set by the build.
var version = "dev"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	cfg, err := config.Parse(args, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "tared:", err)
		return 1
	case cfg.Version:
		fmt.Fprintf(stdout, "Tare engine version %s\n", version)
		return 0
	case cfg.Validate:
		fmt.Fprintln(stdout, "configuration OK")
		return 0
	}
	var level slog.LevelVar
	level.Set(logLevel(cfg))
	slog.SetDefault(slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: &level})))
	for _, w := range cfg.Warnings {
		slog.Warn(w)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	// A log reader that goes away is no reason to end. Caught, not ignored: what is ignored would be in containers too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := trace.ToFile(os.Getenv("TARE_TRACE")); err != nil {
		fmt.Fprintln(stderr, "tared:", err)
		return 1
	}
	if err := serve(ctx, cfg, args, reload, &level); err != nil {
		slog.Error("the engine ends", "error", err)
		fmt.Fprintln(stderr, "tared:", err)
		return 1
	}
	return 0
}

func logLevel(c *config.Config) slog.Level {
	if c.Debug {
		return slog.LevelDebug
	}
	switch c.LogLevel {
	case "warn":
		return slog.LevelWarn
	case "error", "fatal", "panic":
		return slog.LevelError
	}
	return slog.LevelInfo
}
