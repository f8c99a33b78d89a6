// Package engine joins the engine's services: containers, execs, volumes,
// health checks and commits over one data root, one supervisor and one event bus.
//
// Open is recovery: it connects to the supervisor (or starts it), takes over what runs there, and then opens the
// networks with the list of sandboxes that live. Close lets go of everything and ends nothing.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	mobycontainer "github.com/moby/moby/api/types/container"

	"tare/internal/base/event"
	"tare/internal/engine/commit"
	"tare/internal/engine/container"
	"tare/internal/engine/exec"
	"tare/internal/engine/heal"
	"tare/internal/engine/health"
	"tare/internal/engine/supervisor"
	"tare/internal/engine/volume"
	"tare/internal/image"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
)

// Config is what an Engine is made of.
type Config struct {
	DataRoot string
	ExecRoot string
	Instance string // names cgroups, links, the nft table and the supervisor's process
	Program  string // tare-run, which is the supervisor and --init's program
	LogFile  string // the supervisor's own messages
	Images   *image.Store
	Bus      *event.Bus
	// OpenNetworks is called once with the sandboxes that live (container id → pid).
	OpenNetworks func(ctx context.Context, live map[string]int) (container.Networks, error)
	Defaults     Defaults
}

// Defaults are for containers that don't say.
type Defaults struct {
	CgroupParent string
	Log          mobycontainer.LogConfig
	Ulimits      map[string]*mobycontainer.Ulimit
	ShmSize      int64
	IPC          mobycontainer.IpcMode
	CgroupNS     mobycontainer.CgroupnsMode
	Init         bool
	NoNewPrivs   bool

	Runtime  string                     // "": our own
	Runtimes map[string]runtime.Foreign // further OCI runtimes, by name
}

// Engine is the services of one data root.
type Engine struct {
	Containers *container.Service
	Execs      *exec.Service
	Volumes    *volume.Service
	Commits    *commit.Service

	health *health.Service
	heal   *heal.Service
	link   *supervisor.Link
}

// Open recovers an engine.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	volumes, err := volume.Open(filepath.Join(cfg.DataRoot, "volumes"), cfg.Bus)
	if err != nil {
		return nil, err
	}
	link, err := supervisor.Open(ctx, client.Options{Program: cfg.Program, ExecRoot: cfg.ExecRoot, Instance: cfg.Instance, LogFile: cfg.LogFile})
	if err != nil {
		return nil, err
	}
	d := cfg.Defaults
	containers, err := container.Open(ctx, container.Config{
		DataRoot: cfg.DataRoot, Instance: cfg.Instance, Images: cfg.Images, Runtime: link, Volumes: volumes, Bus: cfg.Bus, OpenNetworks: cfg.OpenNetworks,
		CgroupParent: d.CgroupParent, Log: d.Log, Ulimits: d.Ulimits, ShmSize: d.ShmSize, IPC: d.IPC, CgroupNS: d.CgroupNS,
		Init: d.Init, InitProgram: cfg.Program, NoNewPrivs: d.NoNewPrivs, DefaultRuntime: d.Runtime, Runtimes: d.Runtimes,
	})
	if err != nil {
		return nil, errors.Join(err, link.Close())
	}
	access := containers.Access()
	execs := exec.New(link, access)
	link.OnOOM(access.OOM)
	link.OnReconnect(func() {
		lost, err := access.Resync(context.Background())
		if err != nil {
			slog.Error("cannot compare containers with the new supervisor", "error", err)
		}
		execs.Lost(lost)
	})
	return &Engine{
		Containers: containers, Execs: execs, Volumes: volumes, Commits: commit.New(containers, access, cfg.Images),
		health: health.New(access, execs, cfg.Bus), heal: heal.New(containers, cfg.Bus), link: link,
	}, nil
}

// Runtime is the engine's lasting connection to the supervisor, for the builder's steps.
func (e *Engine) Runtime() *supervisor.Link { return e.link }

// Close ends the engine's own work. Containers, their supervisor and their networks go on.
func (e *Engine) Close() error {
	e.health.Close()
	e.heal.Close()
	err := e.link.Close()
	e.Execs.Close()
	e.Containers.Close()
	return err
}
