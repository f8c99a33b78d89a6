package engineapi

import (
	"context"
	"net/http"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/image"
)

// Commit is what POST /commit asks for.
type Commit struct {
	Container string
	Name      reference.NamedTagged // nil: none
	Comment   string
	Author    string
	Pause     bool
	Changes   []string          // Dockerfile instructions
	Config    *container.Config // replaces the container's; nil: keeps it
}

// commitService makes images of containers.
type commitService interface {
	Commit(ctx context.Context, c Commit) (id string, err error)
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
	c := Commit{
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
	return &image.Config{}, nil
}
