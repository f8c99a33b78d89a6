package engineapi

import (
	"context"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/engine/commit"
	"tare/internal/image"
)

// commitService makes images of containers.
type commitService interface {
	Commit(ctx context.Context, req commit.Request) (id string, err error)
}

type commitDoor struct{ s commitService }

func (d commitDoor) commit(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	name, err := parseTag(r.FormValue("repo"), r.FormValue("tag"))
	if err != nil {
		return err
	}
	c := commit.Request{
		Container: r.FormValue("container"), Name: name, Comment: r.FormValue("comment"), Author: r.FormValue("author"),
		Pause: booleanOr(r, "pause", true), Changes: r.Form["changes"],
	}
	if err := readJSON(w, r, &c.Config, false); err != nil {
		return err
	}
	id, err := d.s.Commit(r.Context(), c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}

// importConfig is the configuration that an import's parameters ask for.
func importConfig(r *http.Request, p *ocispec.Platform) (*image.Config, error) {
	c := &image.Config{}
	if p != nil {
		c.Platform = *p
	}
	if err := commit.Apply(&c.Config, r.Form["changes"]); err != nil {
		return nil, err
	}
	if m := r.FormValue("message"); m != "" {
		now := time.Now().UTC()
		c.Created, c.History = &now, []ocispec.History{{Created: &now, Comment: m}}
	}
	return c, nil
}
