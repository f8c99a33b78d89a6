package engineapi

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
	enginecontainer "tare/internal/engine/container"
)

// networkService is the networks themselves.
type networkService interface {
	Create(ctx context.Context, name string, req network.CreateRequest) (id string, warning string, err error)
	Get(ref string) (network.Inspect, error)
	List(f filter.Args) ([]network.Inspect, error)
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, f filter.Args, inUse map[string]bool) ([]string, error)
}

// networkMember changes which networks a container is in.
type networkMember interface {
	Connect(ctx context.Context, networkRef, ref string, e *network.EndpointSettings) error
	Disconnect(ctx context.Context, networkRef, ref string, force bool) error
}

type networkDoor struct {
	s          networkService
	members    networkMember
	containers containerLister
}

func (d networkDoor) list(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	all, err := d.s.List(f)
	if err != nil {
		return err
	}
	list := make([]network.Summary, 0, len(all))
	for _, n := range all {
		list = append(list, network.Summary{Network: n.Network})
	}
	return writeJSON(w, http.StatusOK, list)
}

func (d networkDoor) inspect(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	n, err := d.s.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	if scope := r.FormValue("scope"); scope != "" && scope != n.Scope {
		return fault.NotFound("network %s not found", r.PathValue("id"))
	}
	if n.Containers == nil {
		n.Containers = map[string]network.EndpointResource{}
	}
	return writeJSON(w, http.StatusOK, n)
}

func (d networkDoor) create(w http.ResponseWriter, r *http.Request) error {
	var req network.CreateRequest
	if err := readJSON(w, r, &req, true); err != nil {
		return err
	}
	if req.Name == "" {
		return fault.Invalid("invalid network name: name is empty")
	}
	id, warning, err := d.s.Create(r.Context(), req.Name, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: warning})
}

func (d networkDoor) remove(w http.ResponseWriter, r *http.Request) error {
	if err := d.s.Remove(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

func (d networkDoor) connect(w http.ResponseWriter, r *http.Request) error {
	var req network.ConnectRequest
	if err := readJSON(w, r, &req, true); err != nil {
		return err
	}
	if err := d.members.Connect(r.Context(), r.PathValue("id"), req.Container, req.EndpointConfig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d networkDoor) disconnect(w http.ResponseWriter, r *http.Request) error {
	var req network.DisconnectRequest
	if err := readJSON(w, r, &req, true); err != nil {
		return err
	}
	if err := d.members.Disconnect(r.Context(), r.PathValue("id"), req.Container, req.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// prune spares networks that stopped containers are configured for.
func (d networkDoor) prune(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	list, err := d.containers.List(r.Context(), enginecontainer.ListOptions{All: true})
	if err != nil {
		return err
	}
	inUse := map[string]bool{}
	for _, c := range list {
		if c.NetworkSettings == nil {
			continue
		}
		for name, e := range c.NetworkSettings.Networks {
			inUse[name] = true
			if e != nil && e.NetworkID != "" {
				inUse[e.NetworkID] = true
			}
		}
	}
	removed, err := d.s.Prune(r.Context(), f, inUse)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, network.PruneReport{NetworksDeleted: orEmpty(removed)})
}
