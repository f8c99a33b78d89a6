package engineapi

import (
	"context"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
	"tare/internal/base/progress"
	"tare/internal/image"
	"tare/internal/image/layer"
	"tare/internal/image/transfer"
)

// What only Tare answers about images: where tags were, how images differ, whether they are whole.

// imageHistory is the part of the store that knows about moves and differences.
type imageHistory interface {
	Get(ref string) (*image.Image, error)
	Log(name string) ([]image.Move, error)
	Earlier(name, to string) (image.Move, error)
	Rollback(name string, to image.Move) (*image.Image, error)
	Diff(ctx context.Context, a, b *image.Image) ([]layer.Difference, error)
}

// imageVerifier checks and mends.
type imageVerifier interface {
	Pull(ctx context.Context, req transfer.PullRequest, p progress.Sink) (*image.Image, error)
	Verify(ctx context.Context, rq transfer.VerifyRequest, p progress.Sink) (image.Verified, []transfer.Finding, error)
}

type imageMovesDoor struct {
	s         imageHistory
	transfers imageVerifier
}

// log answers a tag's moves, newest first.
func (d imageMovesDoor) log(w http.ResponseWriter, r *http.Request) error {
	moves, err := d.s.Log(r.PathValue("name"))
	if err != nil {
		return err
	}
	type line struct {
		Time   string
		Name   string
		ID     digest.Digest // "" where the tag was taken away
		Target digest.Digest
		Here   bool // the image is still in the store
	}
	list := []line{}
	for _, m := range moves {
		l := line{Time: m.Time.UTC().Format(time.RFC3339Nano), Name: m.Name, ID: m.Image, Target: m.Target}
		if ref, err := reference.ParseNormalizedNamed(m.Name); err == nil {
			l.Name = reference.FamiliarString(ref)
		}
		if m.Image != "" {
			_, err := d.s.Get(m.Image.String())
			l.Here = err == nil
		}
		list = append(list, l)
	}
	return writeJSON(w, http.StatusOK, list)
}

// rollback points a tag to what it stood for before ("to" names an earlier one). An image that is gone is pulled by its digest.
func (d imageMovesDoor) rollback(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	name := r.PathValue("name")
	to, err := d.s.Earlier(name, r.FormValue("to"))
	if err != nil {
		return err
	}
	img, err := d.s.Rollback(name, to)
	if errdefs.IsNotFound(err) {
		a, aerr := auth(r)
		if aerr != nil {
			return aerr
		}
		ref, perr := parseName(name)
		if perr != nil {
			return perr
		}
		digested, perr := reference.WithDigest(reference.TrimNamed(ref), to.Target)
		if perr != nil {
			return fault.Invalid("%w", perr)
		}
		if _, perr = d.transfers.Pull(r.Context(), transfer.PullRequest{Ref: digested, Auth: a}, nil); perr != nil {
			return fault.NotFound("%w; and it can't be pulled: %w", err, perr)
		}
		img, err = d.s.Rollback(name, to)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"ID": img.ID, "Target": to.Target})
}

// diff compares the files of two images.
func (d imageMovesDoor) diff(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	a, err := d.s.Get(r.FormValue("from"))
	if err != nil {
		return err
	}
	b, err := d.s.Get(r.FormValue("to"))
	if err != nil {
		return err
	}
	found, err := d.s.Diff(r.Context(), a, b)
	if err != nil {
		return err
	}
	type line struct {
		Path          string
		Kind          string
		Before, After int64
	}
	list := []line{}
	for _, f := range found {
		list = append(list, line{f.Path, string(f.Kind), f.Before, f.After})
	}
	return writeJSON(w, http.StatusOK, list)
}

// verify checks images, or the whole store, against their digests.
func (d imageMovesDoor) verify(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	accounts, err := registryConfig(r)
	if err != nil {
		return err
	}
	rq := transfer.VerifyRequest{Images: r.Form["name"], Repair: boolean(r, "repair"), Auth: func(host string) *registry.AuthConfig {
		if host == "docker.io" {
			host = "https://index.docker.io/v1/"
		}
		if a, ok := accounts[host]; ok {
			return &a
		}
		return nil
	}}
	v, found, err := d.transfers.Verify(r.Context(), rq, nil)
	if err != nil {
		return err
	}
	type line struct {
		Kind     string
		Digest   digest.Digest
		Images   []string
		Problem  string
		Repaired bool
		Note     string
	}
	res := struct {
		Blobs, Layers int
		Bytes         int64
		Damage        []line
	}{v.Blobs, v.Layers, v.Bytes, []line{}}
	for _, f := range found {
		res.Damage = append(res.Damage, line{f.Kind, f.Digest, orEmpty(f.Images), f.Problem, f.Repaired, f.Note})
	}
	return writeJSON(w, http.StatusOK, res)
}
