package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/trace"
	"tare/internal/engine/rootfs"
	"tare/internal/engine/spec"
	"tare/internal/image"
)

// Create makes a container: it resolves the image and holds it, reserves the name, makes folders and volumes and writes
// the record, last. What it made is undone on error.
func (s *Service) Create(ctx context.Context, req CreateRequest) (container.CreateResponse, error) {
	if req.Config == nil {
		return container.CreateResponse{}, fault.Invalid("config cannot be empty in order to create a container")
	}
	c := creation{parts: s.parts, index: s.index, req: req, id: ids.New()}
	trace.Step(ctx, "engine", "create", "container", c.id)
	e, err := c.do(ctx)
	if err != nil {
		c.undoAll()
		return container.CreateResponse{Warnings: []string{}}, err
	}
	s.index.add(e)
	trace.Step(ctx, "engine", "event", "create", c.id)
	e.publish("create")
	if c.warnings == nil {
		c.warnings = []string{}
	}
	return container.CreateResponse{ID: c.id, Warnings: c.warnings}, nil
}

// creation is one Create under way.
type creation struct {
	*parts
	index    *index
	req      CreateRequest
	id       string
	img      *image.Image
	lower    []string
	warnings []string
	undo     []func()
}

func (c *creation) undoAll() {
	for i := len(c.undo) - 1; i >= 0; i-- {
		c.undo[i]()
	}
}

func (c *creation) onError(f func()) { c.undo = append(c.undo, f) }

func (c *creation) do(ctx context.Context) (*entry, error) {
	if err := c.findImage(ctx); err != nil {
		return nil, err
	}
	config, err := spec.Merge(c.req.Config, c.img.Config.Config)
	if err != nil {
		return nil, err
	}
	config.Image = c.req.Config.Image
	host := c.hostConfig()
	if config.Hostname == "" && !host.UTSMode.IsHost() && !host.NetworkMode.IsContainer() {
		config.Hostname = ids.Short(c.id)
		if host.NetworkMode.IsHost() { // who listens on the host's addresses goes by the host's name
			if config.Hostname, err = os.Hostname(); err != nil {
				return nil, err
			}
		}
	}
	warnings, err := spec.Validate(config, host, c.host)
	if err != nil {
		return nil, err
	}
	if host.Init != nil && *host.Init && c.cfg.InitProgram == "" {
		return nil, fault.Unsupported("--init is not supported here: the engine knows no init program")
	}
	c.warnings = append(c.warnings, warnings...)
	if err := c.resolveModes(host); err != nil {
		return nil, err
	}
	if err := c.resolveLinks(host); err != nil {
		return nil, err
	}
	name, err := c.index.claimName(c.req.Name, c.id)
	if err != nil {
		return nil, err
	}
	c.onError(func() { c.index.free(name, c.id) })

	rec := record{
		ID: c.id, Name: name, Created: time.Now().UTC(), Image: c.img.ID.String(), Config: config, HostConfig: host,
		Platform: ocispec.Platform{OS: c.img.Config.OS, Architecture: c.img.Config.Architecture, Variant: c.img.Config.Variant},
		State:    state{Status: container.StateCreated},
	}
	if m := c.img.Manifest; m.Digest != "" {
		rec.Manifest = &m
	}
	if rec.Networks, err = c.endpoints(host); err != nil {
		return nil, err
	}
	if err := c.folders(); err != nil {
		return nil, err
	}
	if rec.Mounts, err = c.mounts(ctx, config, host); err != nil {
		return nil, err
	}
	if err := c.workingDir(config, rec.Mounts); err != nil {
		return nil, err
	}
	trace.Step(ctx, "engine", "record", "container", c.id)
	if err := c.save(rec); err != nil {
		return nil, fmt.Errorf("cannot write the record of container %s: %w", name, err)
	}
	e := newEntry(rec, c.cfg.Bus)
	e.lower = c.lower
	return e, nil
}

// holder is the name under which a container holds its image.
func holder(id string) string { return "container " + id }

// runningHolder is the name under which it holds it once more while it runs: then even force does not remove the image.
func runningHolder(id string) string { return "running container " + id }

func (c *creation) findImage(ctx context.Context) error {
	if c.req.Config.Image == "" {
		return fault.Invalid("no image was named: Config.Image is empty")
	}
	trace.Step(ctx, "image", "get", "image", c.req.Config.Image)
	img, err := c.cfg.Images.Get(c.req.Config.Image)
	if err != nil {
		return err
	}
	if p := c.req.Platform; p != nil {
		have := img.Config.Platform
		if p.OS != "" && p.OS != have.OS || p.Architecture != "" && p.Architecture != have.Architecture || p.Variant != "" && have.Variant != "" && p.Variant != have.Variant {
			return fault.NotFound("image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
				c.req.Config.Image, platform(have), platform(*p))
		}
	}
	trace.Step(ctx, "image", "hold", "image", img.ID.String())
	c.cfg.Images.Hold(holder(c.id), img.ID)
	c.onError(func() { c.cfg.Images.Release(holder(c.id)) })
	// The hold came after the look-up; a removal in between shows as an image that is gone.
	if c.img, err = c.cfg.Images.Get(img.ID.String()); err != nil {
		return err
	}
	trace.Step(ctx, "image", "lower", "image", c.img.ID.String())
	c.lower, err = c.cfg.Images.Lower(c.img)
	return err
}

func platform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// hostConfig copies the request's and fills in the engine's defaults, as inspect shows them.
func (c *creation) hostConfig() *container.HostConfig {
	var h container.HostConfig
	if c.req.HostConfig != nil {
		h = *c.req.HostConfig
	}
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
	}
	if c.req.Config.NetworkDisabled {
		h.NetworkMode = network.NetworkNone
	}
	if h.IpcMode.IsEmpty() {
		if h.IpcMode = c.cfg.IPC; h.IpcMode.IsEmpty() {
			h.IpcMode = container.IPCModePrivate
		}
	}
	if h.CgroupnsMode.IsEmpty() {
		if h.CgroupnsMode = c.cfg.CgroupNS; h.CgroupnsMode.IsEmpty() {
			h.CgroupnsMode = container.CgroupnsModePrivate
		}
		if h.Privileged && c.cfg.CgroupNS.IsEmpty() {
			h.CgroupnsMode = container.CgroupnsModeHost
		}
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = c.cfg.Log.Type
		if h.LogConfig.Type == "" {
			h.LogConfig.Type = "json-file"
		}
		if len(h.LogConfig.Config) == 0 && (c.req.HostConfig == nil || c.req.HostConfig.LogConfig.Type == "") {
			h.LogConfig.Config = c.cfg.Log.Config
		}
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyDisabled}
	}
	if h.ShmSize == 0 {
		if h.ShmSize = c.cfg.ShmSize; h.ShmSize == 0 {
			h.ShmSize = 64 << 20
		}
	}
	if h.Memory > 0 && h.MemorySwap == 0 && c.host.SwapLimit {
		h.MemorySwap = h.Memory * 2
	}
	if h.Runtime == "" {
		if h.Runtime = c.cfg.DefaultRuntime; h.Runtime == "" || h.Runtime == "tare-run" {
			h.Runtime = "tare"
		}
	}
	if h.Init == nil && c.cfg.Init {
		on := true
		h.Init = &on
	}
	if c.cfg.NoNewPrivs && !strings.Contains(strings.Join(h.SecurityOpt, " "), "no-new-privileges") {
		h.SecurityOpt = append(h.SecurityOpt[:len(h.SecurityOpt):len(h.SecurityOpt)], "no-new-privileges")
	}
	if h.MaskedPaths == nil && !h.Privileged || h.ReadonlyPaths == nil && !h.Privileged {
		masked, readonly := spec.DefaultPaths()
		if h.MaskedPaths == nil {
			h.MaskedPaths = append(masked, c.host.Masked...)
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = readonly
		}
	}
	return &h
}

// resolveModes replaces names by ids in container:x modes, so that a rename does not matter.
func (c *creation) resolveModes(h *container.HostConfig) error {
	id := func(what, ref string) (string, error) {
		e, err := c.index.find(ref)
		if err != nil {
			// Not NotFound: the stock client would pull the image and try again.
			return "", fault.Invalid("cannot join the %s namespace of container %s: %s", what, ref, err)
		}
		return "container:" + e.id, nil
	}
	if h.NetworkMode.IsContainer() {
		m, err := id("network", h.NetworkMode.ConnectedContainer())
		if err != nil {
			return err
		}
		h.NetworkMode = container.NetworkMode(m)
	}
	if h.PidMode.IsContainer() {
		m, err := id("PID", h.PidMode.Container())
		if err != nil {
			return err
		}
		h.PidMode = container.PidMode(m)
	}
	if h.IpcMode.IsContainer() {
		m, err := id("IPC", h.IpcMode.Container())
		if err != nil {
			return err
		}
		h.IpcMode = container.IpcMode(m)
	}
	return nil
}

// endpoints are the wanted networks by name: the network mode's and those of the request.
func (c *creation) endpoints(h *container.HostConfig) (map[string]*network.EndpointSettings, error) {
	out := map[string]*network.EndpointSettings{}
	if h.NetworkMode.IsContainer() {
		return out, nil
	}
	mode := string(h.NetworkMode)
	out[mode] = &network.EndpointSettings{}
	if c.req.Networking == nil {
		return out, nil
	}
	for name, e := range c.req.Networking.EndpointsConfig {
		if name == network.NetworkDefault {
			name = network.NetworkBridge
		}
		if e == nil {
			e = &network.EndpointSettings{}
		}
		if (mode == network.NetworkHost || mode == network.NetworkNone) && name != mode {
			return nil, fault.Invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if name != mode && out[mode] != nil {
			// One network may be named in two ways, by name and by id.
			if n, err := c.networks.Get(name); err == nil && (n.Name == mode || n.ID == mode) {
				name = mode
			}
		}
		out[name] = e.Copy()
	}
	return out, nil
}

// folders makes the container's own.
func (c *creation) folders() error {
	dir := c.dir(c.id)
	if err := os.Mkdir(dir, 0o710); err != nil {
		return fmt.Errorf("cannot make the container's folder: %w", err)
	}
	c.onError(func() { os.RemoveAll(dir) })
	for name, mode := range map[string]os.FileMode{"upper": 0o755, "work": 0o700} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil {
			return fmt.Errorf("cannot make the container's folder: %w", err)
		}
	}
	// By this file programs have always told that they run in a container.
	if err := unix.Mknod(filepath.Join(dir, "upper", ".dockerenv"), unix.S_IFREG|0o755, 0); err != nil {
		return fmt.Errorf("cannot make the container's /.dockerenv: %w", err)
	}
	return nil
}

// workingDir makes the working directory where the image lacks it and no mount covers it, as Docker does.
func (c *creation) workingDir(config *container.Config, mounts []mounted) error {
	dir := filepath.Clean("/" + config.WorkingDir)
	if config.WorkingDir == "" || dir == "/" {
		return nil
	}
	for _, m := range mounts {
		if dst := m.Spec.Destination; dir == dst || strings.HasPrefix(dir, dst+"/") {
			return nil
		}
	}
	exists, folder, err := rootfs.Exists(rootfs.Layers{Lower: c.lower}, dir)
	switch {
	case err != nil:
		return fmt.Errorf("cannot look for the working directory %s: %w", dir, err)
	case exists && folder:
		return nil
	case exists:
		return fault.Invalid("Cannot mkdir: %s is not a directory", dir)
	}
	root := c.dir(c.id)
	v, err := rootfs.Mount(rootfs.Layers{Lower: c.lower, Upper: filepath.Join(root, "upper"), Work: filepath.Join(root, "work")})
	if err != nil {
		return err
	}
	err = v.MkdirAll(dir)
	if e := v.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fault.Invalid("cannot make the working directory %s: %w", dir, err)
	}
	return nil
}
