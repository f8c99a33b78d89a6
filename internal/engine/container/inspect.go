package container

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"tare/internal/engine/spec"
)

// Inspect tells all about a container.
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	e, err := s.index.find(ref)
	if err != nil {
		return container.InspectResponse{}, err
	}
	r := e.snapshot()
	dir := s.dir(r.ID)
	lower, err := s.launch.lower(e, r)
	if err != nil {
		lower = nil // the image's layers are damaged; the rest can still be told
	}
	command := spec.Command(r.Config)
	out := container.InspectResponse{
		ID: r.ID, Created: r.Created.Format(time.RFC3339Nano), Path: command[0], Args: command[1:], State: stateOf(r),
		Image: r.Image, ResolvConfPath: filepath.Join(dir, "resolv.conf"), HostnamePath: filepath.Join(dir, "hostname"),
		HostsPath: filepath.Join(dir, "hosts"), LogPath: s.logPath(r), Name: "/" + r.Name, RestartCount: r.State.RestartCount,
		Driver: "overlay2", Platform: r.Platform.OS, HostConfig: r.HostConfig, Mounts: points(r), Config: r.Config,
		ImageManifestDescriptor: r.Manifest,
		GraphDriver: &storage.DriverData{Name: "overlay2", Data: map[string]string{
			"ID": r.ID, "LowerDir": strings.Join(lower, ":"), "UpperDir": filepath.Join(dir, "upper"),
			"WorkDir": filepath.Join(dir, "work"), "MergedDir": filepath.Join(dir, "merged"),
		}},
		NetworkSettings: &container.NetworkSettings{Networks: reported(r), Ports: network.PortMap{}},
	}
	if len(r.HostConfig.Links) > 0 {
		h := *r.HostConfig
		h.Links = s.index.shownLinks(r)
		out.HostConfig = &h
	}
	if r.State.running() {
		out.NetworkSettings.SandboxID = r.ID
		out.NetworkSettings.SandboxKey = namespace(r.State.Pid, "net")
		for p := range r.Config.ExposedPorts {
			out.NetworkSettings.Ports[p] = nil
		}
		for p, b := range r.Ports {
			out.NetworkSettings.Ports[p] = b
		}
	}
	if out.LogPath != "" && r.State.StartedAt.IsZero() {
		out.LogPath = ""
	}
	e.mu.Lock()
	if len(e.execs) > 0 {
		out.ExecIDs = slices.Clone(e.execs)
	}
	e.mu.Unlock()
	if size {
		rw, root, err := s.sizes(e, r)
		if err != nil {
			return out, err
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return out, nil
}

func stateOf(r record) *container.State {
	st := r.State
	return &container.State{
		Status: st.Status, Running: st.running() || st.Status == container.StateRestarting, Paused: st.Status == container.StatePaused,
		Restarting: st.Status == container.StateRestarting, OOMKilled: st.OOMKilled, Dead: st.Status == container.StateDead,
		Pid: st.Pid, ExitCode: st.ExitCode, Error: st.Error,
		StartedAt: st.StartedAt.Format(time.RFC3339Nano), FinishedAt: st.FinishedAt.Format(time.RFC3339Nano), Health: st.Health,
	}
}

// sizes are the bytes of a container's own layer, and with its image's.
func (p *parts) sizes(e *entry, r record) (rw, root int64, err error) {
	err = filepath.WalkDir(filepath.Join(p.dir(r.ID), "upper"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		if d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				rw += info.Size()
			}
		}
		return nil
	})
	root = rw
	if img, e := p.cfg.Images.Get(r.Image); e == nil {
		root += img.Size
	}
	return rw, root, err
}
