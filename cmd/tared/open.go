package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"

	"tare/internal/base/event"
	"tare/internal/base/files"
	"tare/internal/build"
	"tare/internal/engine"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/image"
	imageregistry "tare/internal/image/registry"
	"tare/internal/image/transfer"
	"tare/internal/network"
	"tare/internal/server/config"
	"tare/internal/server/engineapi"
	"tare/internal/server/host"
)

// opened is a running engine and its door.
type opened struct {
	engine     *engine.Engine
	networks   *network.Manager
	registries *imageregistry.Client
	services   engineapi.Services
	program    string
}

func (o *opened) close() error { return errors.Join(o.engine.Close(), o.networks.Close()) }

// open makes the objects, from the store upwards, and joins them.
func open(ctx context.Context, cfg *config.Config, warnings []string, bus *event.Bus) (*opened, error) {
	program, err := runProgram(cfg.RunPath)
	if err != nil {
		return nil, err
	}
	id, err := engineID(cfg.DataRoot)
	if err != nil {
		return nil, err
	}
	setProxies(cfg)
	netConfig, err := networkConfig(cfg)
	if err != nil {
		return nil, err
	}
	store, err := image.Open(cfg.DataRoot, bus)
	if err != nil {
		return nil, fmt.Errorf("cannot open the images of %s: %w", cfg.DataRoot, err)
	}
	registryConfig, err := registriesOf(cfg)
	if err != nil {
		return nil, err
	}
	registries, err := imageregistry.New(registryConfig)
	if err != nil {
		return nil, err
	}
	o := &opened{program: program, registries: registries}
	o.engine, err = engine.Open(ctx, engine.Config{
		DataRoot: cfg.DataRoot, ExecRoot: cfg.ExecRoot, Instance: cfg.Instance(), Program: program,
		LogFile: filepath.Join(cfg.ExecRoot, "supervisor.log"), Images: store, Bus: bus,
		OpenNetworks: func(ctx context.Context, live map[string]int) (enginecontainer.Networks, error) {
			var err error
			o.networks, err = network.Open(ctx, netConfig, live, bus)
			return o.networks, err
		},
		Defaults: engine.Defaults{
			CgroupParent: cfg.CgroupParent, Log: logConfig(cfg), Ulimits: cfg.Ulimits, ShmSize: cfg.ShmSize,
			IPC: container.IpcMode(cfg.IPCMode), CgroupNS: container.CgroupnsMode(cfg.CgroupnsMode),
			Init: cfg.Init, NoNewPrivs: cfg.NoNewPrivileges, Runtime: cfg.DefaultRuntime, Runtimes: cfg.Runtimes,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot recover the engine of %s: %w", cfg.DataRoot, err)
	}
	transfers := transfer.New(store, registries, bus, transfer.Limits{Downloads: cfg.MaxDownloads, Uploads: cfg.MaxUploads})
	builds, err := build.Open(ctx, build.Config{
		DataRoot: cfg.DataRoot, CgroupParent: cgroupParent(cfg), Images: store, Layers: store.Layers, Puller: transfers,
		Runtime: o.engine.Runtime(), Networks: o.networks, Bus: bus, ShmSize: cfg.ShmSize,
	})
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	if bytes, err := store.Sweep(ctx); err != nil { // after all holds are taken
		slog.Warn("cannot remove what nobody uses", "error", err)
	} else if bytes > 0 {
		slog.Info("removed what nobody used", "bytes", bytes)
	}
	facts := host.Facts{
		ID: id, Version: version, MinAPI: engineapi.MinVersion, MaxAPI: engineapi.MaxVersion, Config: cfg, Runtime: program,
		Registries: registryFacts(cfg, registries), Warnings: warnings,
	}
	o.services = engineapi.Services{
		Containers: o.engine.Containers, Execs: o.engine.Execs, Images: store, Archives: engineapi.Archives{Store: store},
		Transfers: transfers, Moves: image.History{Store: store}, Verifier: transfers, Attached: image.Attachments{Store: store}, Registry: registries, Commits: o.engine.Commits,
		Networks: o.networks, Volumes: o.engine.Volumes, Builds: builds, Events: bus,
		Info: facts.Info, Version: facts.Engine,
		Debugf: debugf,
	}
	return o, nil
}

// cgroupParent is where build steps run, beside the containers.
func cgroupParent(cfg *config.Config) string {
	if cfg.CgroupParent != "" {
		return cfg.CgroupParent
	}
	return "/tare/" + cfg.Instance()
}

func debugf(format string, args ...any) {
	if slog.Default().Enabled(context.Background(), slog.LevelDebug) {
		slog.Debug(fmt.Sprintf(format, args...))
	}
}

// runProgram finds tare-run beside this program, then in PATH.
func runProgram(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "tare-run")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("tare-run")
	if err != nil {
		return "", errors.New("tare-run, which runs the containers, is neither beside tared nor in PATH: give its place with --runtime-path")
	}
	return path, nil
}

// engineID is made once per data root.
func engineID(dataRoot string) (string, error) {
	if err := files.Sweep(dataRoot); err != nil {
		return "", err
	}
	path := filepath.Join(dataRoot, "engine-id")
	if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
		return strings.TrimSpace(string(data)), nil
	}
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a random UUID (RFC 9562)
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return id, files.Write(path, []byte(id+"\n"), 0o600, files.Synced)
}

// setProxies lets this process's own requests go through the proxies.
func setProxies(cfg *config.Config) {
	for name, value := range map[string]string{"HTTP_PROXY": cfg.HTTPProxy, "HTTPS_PROXY": cfg.HTTPSProxy, "NO_PROXY": cfg.NoProxy} {
		if value != "" {
			os.Setenv(name, value)
		}
	}
}

func networkConfig(cfg *config.Config) (network.Config, error) {
	n := network.Config{
		Root: filepath.Join(cfg.DataRoot, "networks"), Instance: cfg.Instance(),
		BridgeName: cfg.Bridge, BridgeIP: cfg.BridgeIP, Firewall: cfg.Firewall, IPForward: cfg.IPForward, IPMasq: cfg.IPMasq, ICC: cfg.ICC,
		DefaultIP: cfg.DefaultIP, DNS: cfg.DNS, DNSSearch: cfg.DNSSearch, DNSOptions: cfg.DNSOptions, MTU: cfg.MTU,
	}
	for _, p := range cfg.AddressPools {
		if n.PoolSize != 0 && n.PoolSize != p.Size {
			return n, errors.New("address pools with different sizes are not supported by this engine: give all --default-address-pool the same size")
		}
		n.PoolSize = p.Size
		n.AddressPools = append(n.AddressPools, p.Base)
	}
	return n, nil
}

// logConfig is the default of containers that don't name a log driver: JSON files that don't grow without bounds.
func logConfig(cfg *config.Config) container.LogConfig {
	lc := container.LogConfig{Type: cfg.LogDriver, Config: map[string]string{}}
	for k, v := range cfg.LogOptions {
		lc.Config[k] = v
	}
	if _, ok := lc.Config["max-size"]; !ok && cfg.LogDriver == "json-file" {
		lc.Config["max-size"] = "10m"
		if _, ok := lc.Config["max-file"]; !ok {
			lc.Config["max-file"] = "3"
		}
	}
	return lc
}

// registriesOf is how registries are reached: daemon.json's keys and the registries file.
func registriesOf(cfg *config.Config) (imageregistry.Config, error) {
	rules, err := imageregistry.LoadRules(cfg.RegistriesFile)
	return imageregistry.Config{
		Mirrors: cfg.Mirrors, InsecureRegistries: cfg.InsecureRegistries, Rules: rules, Tries: cfg.MaxAttempts, UserAgent: "tare/" + version,
	}, err
}

// registryFacts is the registry part of `docker info`.
func registryFacts(cfg *config.Config, c *imageregistry.Client) *registry.ServiceConfig {
	s := &registry.ServiceConfig{
		InsecureRegistryCIDRs: c.InsecureNets(), Mirrors: append([]string{}, cfg.Mirrors...),
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: append([]string{}, cfg.Mirrors...), Secure: true, Official: true},
		},
	}
	for _, r := range cfg.InsecureRegistries {
		if _, err := netip.ParsePrefix(r); err != nil {
			s.IndexConfigs[r] = &registry.IndexInfo{Name: r, Mirrors: []string{}}
		}
	}
	return s
}
