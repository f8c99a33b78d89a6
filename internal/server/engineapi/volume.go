package engineapi

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/volume"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// volumeService is what the door of volumes opens to.
type volumeService interface {
	Usage() ([]*volume.Volume, error)
	Create(ctx context.Context, req volume.CreateRequest) (*volume.Volume, error)
	Get(name string) (*volume.Volume, error)
	List(f filter.Args) ([]*volume.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, f filter.Args) ([]string, uint64, error)
}

type volumeDoor struct{ s volumeService }

func (d volumeDoor) list(w http.ResponseWriter, r *http.Request) error {
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
	res := volume.ListResponse{Volumes: []volume.Volume{}, Warnings: []string{}}
	for _, v := range all {
		res.Volumes = append(res.Volumes, *v)
	}
	return writeJSON(w, http.StatusOK, res)
}

func (d volumeDoor) inspect(w http.ResponseWriter, r *http.Request) error {
	v, err := d.s.Get(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (d volumeDoor) create(w http.ResponseWriter, r *http.Request) error {
	var req volume.CreateRequest
	if err := readJSON(w, r, &req, false); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return fault.Unsupported("cluster volumes need swarm mode, which is not supported by this engine")
	}
	v, err := d.s.Create(r.Context(), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (d volumeDoor) remove(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	if err := d.s.Remove(r.Context(), r.PathValue("name"), boolean(r, "force")); err != nil {
		return err
	}
	return noContent(w)
}

func (d volumeDoor) prune(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	names, bytes, err := d.s.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volume.PruneReport{VolumesDeleted: orEmpty(names), SpaceReclaimed: bytes})
}
