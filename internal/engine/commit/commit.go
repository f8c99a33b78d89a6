// Package commit makes an image from a container: a copy of its upper folder
// becomes a layer above its image's, and its configuration, with changes in Dockerfile syntax, the image's.
package commit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/engine/rootfs"
	"tare/internal/engine/spec"
	"tare/internal/image"
	"tare/internal/image/layer"
)

// Request is POST /commit.
type Request struct {
	Container string
	Name      reference.NamedTagged // nil: none
	Comment   string
	Author    string
	Pause     bool
	Changes   []string          // Dockerfile instructions
	Config    *container.Config // over the container's; nil keeps it
}

type containers interface {
	Open(ctx context.Context, ref string) (*enginecontainer.Files, error)
	Freeze(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
}

type publisher interface {
	Publish(id, action string, more ...string)
}

type images interface {
	Get(ref string) (*image.Image, error)
	Commit(ctx context.Context, upper string) (layer.Layer, error)
	Put(config *image.Config, layers []layer.Layer, names ...reference.NamedTagged) (*image.Image, error)
	Hold(holder string, ids ...digest.Digest)
	Release(holder string)
	Arrive() (done func())
}

// Service commits containers of one engine.
type Service struct {
	containers containers
	events     publisher
	images     images
}

// New makes the service.
func New(c containers, p publisher, i images) *Service {
	return &Service{containers: c, events: p, images: i}
}

// Commit makes the image and returns its id. A running container is paused while its files are copied, if Pause asks for it.
func (s *Service) Commit(ctx context.Context, req Request) (id string, err error) {
	f, err := s.containers.Open(ctx, req.Container)
	if err != nil {
		return "", err
	}
	defer f.Release()
	base, err := s.images.Get(f.ImageID)
	if err != nil {
		return "", err
	}
	config, err := configure(f.Config, req)
	if err != nil {
		return "", err
	}
	upper, err := s.copyUpper(ctx, f, req.Pause)
	if err != nil {
		return "", fmt.Errorf("cannot commit container %s: %w", f.Name, err)
	}
	defer os.RemoveAll(upper) // consumed, unless the commit failed
	defer s.images.Arrive()()
	hold := "commit " + f.ID + " " + filepath.Base(upper)
	l, err := s.images.Commit(ctx, upper)
	if err != nil {
		return "", fmt.Errorf("cannot commit container %s: %w", f.Name, err)
	}
	s.images.Hold(hold, base.ID, l.DiffID)
	defer s.images.Release(hold)

	now := time.Now().UTC()
	c := base.Config // a copy of the struct; slices are appended to below with their capacity cut
	c.Created, c.Author, c.Config = &now, req.Author, *config
	c.RootFS.DiffIDs = append(c.RootFS.DiffIDs[:len(c.RootFS.DiffIDs):len(c.RootFS.DiffIDs)], l.DiffID)
	c.History = append(c.History[:len(c.History):len(c.History)], ocispec.History{
		Created: &now, Author: req.Author, Comment: req.Comment, CreatedBy: strings.Join(spec.Command(f.Config), " "),
	})
	var names []reference.NamedTagged
	if req.Name != nil {
		names = append(names, req.Name)
	}
	img, err := s.images.Put(&c, append(base.Layers[:len(base.Layers):len(base.Layers)], l), names...)
	if err != nil {
		return "", err
	}
	name := ""
	if req.Name != nil {
		name = reference.FamiliarString(req.Name)
	}
	s.events.Publish(f.ID, "commit", "comment", req.Comment, "imageID", img.ID.String(), "imageRef", name)
	return img.ID.String(), nil
}

// copyUpper copies the container's own layer beside the container's folder, on the same file system as the layers.
func (s *Service) copyUpper(ctx context.Context, f *enginecontainer.Files, pause bool) (dir string, err error) {
	dir, err = os.MkdirTemp(filepath.Dir(filepath.Dir(f.Upper)), files.TempPrefix+"commit-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if pause && f.Running() {
		switch err := s.containers.Freeze(ctx, f.ID); {
		case err == nil:
			defer func() {
				if e := s.containers.Unpause(context.WithoutCancel(ctx), f.ID); err == nil && f.Running() {
					err = e
				}
			}()
		case f.Running() && !strings.Contains(err.Error(), "already paused"):
			return "", err
		}
	}
	src, err := os.Open(f.Upper)
	if err != nil {
		return "", err
	}
	defer src.Close()
	// Whiteouts are marked by overlayfs's own attributes, which have to stay; what else it notes is of this mount only.
	err = rootfs.CopyTree(src, dir, func(a string) bool {
		return !strings.HasPrefix(a, "trusted.overlay.") || a == "trusted.overlay.opaque"
	})
	if err != nil {
		return dir, err
	}
	return dir, dropPlaceholders(dir)
}

// configure is the new image's config: the container's, under the request's, with the changes applied.
func configure(own *container.Config, req Request) (*dockerspec.DockerOCIImageConfig, error) {
	c := own
	if req.Config != nil {
		merged, err := spec.Merge(req.Config, imageConfig(own))
		if err != nil {
			return nil, err
		}
		c = merged
	}
	out := imageConfig(c)
	if err := apply(&out, req.Changes); err != nil {
		return nil, err
	}
	return &out, nil
}

func imageConfig(c *container.Config) dockerspec.DockerOCIImageConfig {
	var out dockerspec.DockerOCIImageConfig
	out.User, out.Env, out.Entrypoint, out.Cmd, out.Volumes = c.User, clone(c.Env), clone(c.Entrypoint), clone(c.Cmd), map[string]struct{}{}
	out.WorkingDir, out.StopSignal, out.ArgsEscaped, out.Labels = c.WorkingDir, c.StopSignal, c.ArgsEscaped, map[string]string{}
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, clone(c.OnBuild), clone(c.Shell)
	for k, v := range c.Labels {
		out.Labels[k] = v
	}
	for v := range c.Volumes {
		out.Volumes[v] = struct{}{}
	}
	if len(c.ExposedPorts) > 0 {
		out.ExposedPorts = map[string]struct{}{}
		for p := range c.ExposedPorts {
			out.ExposedPorts[p.String()] = struct{}{}
		}
	}
	return out
}

func clone(s []string) []string { return append([]string(nil), s...) }

var errInstruction = func(what string) error {
	return fault.Invalid("%s is not a valid change command", what)
}
