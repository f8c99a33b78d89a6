package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/event"
	"tare/internal/engine"
	enginecontainer "tare/internal/engine/container"
	imageregistry "tare/internal/image/registry"
	"tare/internal/runtime/client"
	"tare/internal/server/config"
	"tare/internal/server/listen"
	"tare/internal/server/single"
)

// grace is how long answers in progress may take when the engine ends.
const grace = 3 * time.Second

// serve runs the engine until ctx ends: lock → sockets → store → supervisor → recovery → answers. Clients
// that connect during recovery wait for its end.
func serve(ctx context.Context, cfg *config.Config, args []string, reload <-chan os.Signal, level *slog.LevelVar) (err error) {
	lock, err := single.Lock(cfg.DataRoot)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := single.PidFile(cfg.PidFile); err != nil {
		return err
	}
	defer single.RemovePidFile(cfg.PidFile)
	listeners, warnings, err := listen.All(cfg)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		slog.Warn(w)
	}
	journal, err := event.OpenJournal(filepath.Join(cfg.DataRoot, "events.json"))
	if err != nil {
		return err
	}
	defer journal.Close()
	doors := make([]door, len(listeners))
	for i, l := range listeners {
		doors[i] = door{listener: l}
	}
	limited, err := limitedDoors(cfg)
	doors = append(doors, limited...)
	if err != nil {
		closeDoors(doors)
		return err
	}
	bus := &event.Bus{}
	bus.Keep(journal)
	e, err := open(ctx, cfg, warnings, bus)
	if err != nil {
		closeDoors(doors)
		return err
	}
	base, endStreams := context.WithCancel(context.Background())
	defer endStreams()
	failed := make(chan error, len(doors))
	for i := range doors {
		doors[i].open(base, e.services, failed)
	}
	if cfg.MetricsAddr != "" {
		if err := serveMetrics(base, cfg.MetricsAddr, e); err != nil {
			slog.Error("the engine runs without metrics", "error", err)
		}
	}
	slog.Info("the engine is ready", "version", version, "data-root", cfg.DataRoot, "instance", cfg.Instance())
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case err = <-failed:
			running = false
		case <-reload:
			reloadConfig(args, cfg, e.registries, level, bus)
		}
	}
	slog.Info("the engine ends; containers go on", "stop containers", cfg.Shutdown)
	endStreams()
	deadline, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	for _, d := range doors {
		d.shut(deadline)
	}
	if cfg.Shutdown {
		stopAll(e.engine, cfg.ShutdownTimeout)
	}
	err = errors.Join(err, e.close())
	releaseSupervisor(cfg, e.program)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// stopAll stops all containers at once.
func stopAll(e *engine.Engine, timeout time.Duration) {
	ctx := context.Background()
	list, err := e.Containers.List(ctx, enginecontainer.ListOptions{})
	if err != nil {
		slog.Error("cannot list the containers to stop", "error", err)
		return
	}
	seconds := int(timeout / time.Second)
	var wg sync.WaitGroup
	for _, c := range list {
		wg.Add(1)
		go func(c container.Summary) {
			defer wg.Done()
			if err := e.Containers.Stop(ctx, c.ID, "", &seconds); err != nil {
				slog.Error("cannot stop container", "id", c.ID, "error", err)
			}
		}(c)
	}
	wg.Wait()
}

// releaseSupervisor ends the supervisor if it has no containers; else it goes on with them.
func releaseSupervisor(cfg *config.Config, program string) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	c, err := client.Ensure(ctx, client.Options{Program: program, ExecRoot: cfg.ExecRoot, Instance: cfg.Instance()})
	if err != nil {
		return
	}
	defer c.Close()
	if err := c.Shutdown(ctx); err != nil {
		slog.Debug("the supervisor goes on", "reason", err)
	}
}

// reloadConfig takes over what may change while the engine runs: log level, labels, and how registries are reached.
func reloadConfig(args []string, cfg *config.Config, registries *imageregistry.Client, level *slog.LevelVar, bus *event.Bus) {
	fresh, err := config.Parse(args, os.Stderr)
	if err != nil {
		slog.Error("the configuration is not reloaded", "error", err)
		return
	}
	rules, err := registriesOf(fresh)
	if err == nil {
		err = registries.Reload(rules)
	}
	if err != nil {
		slog.Error("the configuration is not reloaded", "error", err)
		return
	}
	level.Set(logLevel(fresh))
	cfg.Reload(fresh)
	slog.Info("the configuration is reloaded", "debug", fresh.Debug, "labels", fmt.Sprint(fresh.Labels))
	bus.Publish(event.Event{Type: "daemon", Action: "reload", ID: cfg.Instance(), Attributes: map[string]string{"name": cfg.Instance(), "debug": fmt.Sprint(fresh.Debug)}})
}
