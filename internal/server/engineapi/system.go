package engineapi

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
)

// registryService speaks to registries for doors that need no store.
type registryService interface {
	Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error)
	inspector
}

type systemDoor struct {
	listeners  *atomic.Int64 // of events
	info       func() system.Info
	version    func() system.VersionResponse
	containers containerLister
	images     imageStore
	login      interface {
		Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error)
	}
}

// ping tells a client what it needs before its first call. Builder-Version 1 says that builds are
// sent to POST /build.
func (d systemDoor) ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (d systemDoor) getVersion(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, d.version())
}

func (d systemDoor) getInfo(w http.ResponseWriter, r *http.Request) error {
	list, err := d.containers.List(r.Context(), enginecontainer.ListOptions{All: true})
	if err != nil {
		return err
	}
	info := d.info()
	info.Containers = len(list)
	for _, c := range list {
		switch c.State {
		case container.StateRunning, container.StateRestarting:
			info.ContainersRunning++
		case container.StatePaused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
	info.Images, info.NEventsListener = len(d.images.List()), int(d.listeners.Load())
	return writeJSON(w, http.StatusOK, info)
}

// auth checks credentials with their registry.
func (d systemDoor) auth(w http.ResponseWriter, r *http.Request) error {
	var a registry.AuthConfig
	if err := readJSON(w, r, &a, true); err != nil {
		return err
	}
	res, err := d.login.Login(r.Context(), a)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

// inspector describes names at their registries.
type inspector interface {
	Inspect(ctx context.Context, ref named, auth *registry.AuthConfig) (registry.DistributionInspect, error)
}

type distributionDoor struct{ s inspector }

func (d distributionDoor) inspect(w http.ResponseWriter, r *http.Request) error {
	a, err := auth(r)
	if err != nil {
		return err
	}
	ref, err := parseName(r.PathValue("name"))
	if err != nil {
		return err
	}
	res, err := d.s.Inspect(r.Context(), ref, a)
	if err != nil {
		return err
	}
	res.Platforms = orEmpty(res.Platforms)
	return writeJSON(w, http.StatusOK, res)
}

// notSwarm answers what only a swarm's manager can, as an engine does that is in no swarm.
func notSwarm(http.ResponseWriter, *http.Request) error {
	return fault.Unavailable(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
}

func notInSwarm(http.ResponseWriter, *http.Request) error {
	return fault.Unavailable("This node is not part of a swarm")
}

func noSwarm(http.ResponseWriter, *http.Request) error {
	return fault.Unsupported("swarm mode is not supported by this engine")
}
