package engineapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
	enginecontainer "tare/internal/engine/container"
)

// containerService is what the doors of containers open to.
type containerService interface {
	lifecycle
	containerLister
	containerStreams
	containerFiles
	networkMember
}

// lifecycle is the verbs that change a container.
type lifecycle interface {
	Create(ctx context.Context, req enginecontainer.CreateRequest) (container.CreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref, signal string, timeout *int) error
	Restart(ctx context.Context, ref, signal string, timeout *int) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error)
	Remove(ctx context.Context, ref string, o enginecontainer.RemoveOptions) error
	Prune(ctx context.Context, f filter.Args) ([]string, uint64, error)
}

type containerDoor struct{ s lifecycle }

func (d containerDoor) create(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	var req container.CreateRequest
	if err := readJSON(w, r, &req, true); err != nil {
		return err
	}
	if req.Config == nil {
		return fault.Invalid("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if sw := req.HostConfig.MemorySwappiness; sw != nil && *sw == -1 {
		req.HostConfig.MemorySwappiness = nil // what the stock client sends for "not set"
	}
	p, err := parsePlatform(r.FormValue("platform"))
	if err != nil {
		return err
	}
	created, err := d.s.Create(r.Context(), enginecontainer.CreateRequest{
		Name: r.FormValue("name"), Platform: p,
		Config: req.Config, HostConfig: req.HostConfig, Networking: req.NetworkingConfig,
	})
	if err != nil {
		return err
	}
	created.Warnings = orEmpty(created.Warnings)
	return writeJSON(w, http.StatusCreated, created)
}

func (d containerDoor) start(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	if r.FormValue("checkpoint") != "" {
		return fault.Unsupported("starting from a checkpoint is not supported")
	}
	if err := d.s.Start(context.WithoutCancel(r.Context()), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

func (d containerDoor) stop(w http.ResponseWriter, r *http.Request) error {
	return stopWith(w, r, d.s.Stop)
}

func (d containerDoor) restart(w http.ResponseWriter, r *http.Request) error {
	return stopWith(w, r, d.s.Restart)
}

func stopWith(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, ref, signal string, timeout *int) error) error {
	if err := parseForm(r); err != nil {
		return err
	}
	var timeout *int
	if s := r.FormValue("t"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fault.Invalid("invalid timeout %q: not a number of seconds", s)
		}
		timeout = &n
	}
	// A stop that was begun is finished even if the client goes away.
	if err := f(context.WithoutCancel(r.Context()), r.PathValue("id"), r.FormValue("signal"), timeout); err != nil {
		return err
	}
	return noContent(w)
}

func (d containerDoor) kill(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	if err := d.s.Kill(r.Context(), r.PathValue("id"), r.FormValue("signal")); err != nil {
		return err
	}
	return noContent(w)
}

func (d containerDoor) pause(w http.ResponseWriter, r *http.Request) error {
	if err := d.s.Pause(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

func (d containerDoor) unpause(w http.ResponseWriter, r *http.Request) error {
	if err := d.s.Unpause(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

func (d containerDoor) rename(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	if err := d.s.Rename(r.Context(), r.PathValue("id"), r.FormValue("name")); err != nil {
		return err
	}
	return noContent(w)
}

func (d containerDoor) update(w http.ResponseWriter, r *http.Request) error {
	var u container.UpdateConfig
	if err := readJSON(w, r, &u, true); err != nil {
		return err
	}
	done, err := d.s.Update(r.Context(), r.PathValue("id"), u)
	if err != nil {
		return err
	}
	done.Warnings = orEmpty(done.Warnings)
	return writeJSON(w, http.StatusOK, done)
}

func (d containerDoor) remove(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	o := enginecontainer.RemoveOptions{Force: boolean(r, "force"), Volumes: boolean(r, "v"), Link: boolean(r, "link")}
	if err := d.s.Remove(context.WithoutCancel(r.Context()), r.PathValue("id"), o); err != nil {
		return err
	}
	return noContent(w)
}

func (d containerDoor) prune(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	ids, bytes, err := d.s.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, container.PruneReport{ContainersDeleted: orEmpty(ids), SpaceReclaimed: bytes})
}
