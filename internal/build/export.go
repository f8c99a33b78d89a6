package build

import (
	"context"
	"maps"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/trace"
	"tare/internal/build/graph"
	"tare/internal/build/solve"
	"tare/internal/image"
	"tare/internal/image/layer"
)

// comment marks history entries as BuildKit does, whose form they have.
const comment = "buildkit.dockerfile.v0"

// export makes the image of the target stage and names it. The same inputs give the same image: it bears no time of the build.
func (s *Service) export(ctx context.Context, g *graph.Graph, run *solve.Run, req *Request, build string, names []reference.NamedTagged) (*image.Image, error) {
	trace.Step(ctx, "build", "export", "image", "")
	target := g.Stages[g.Target]
	config := target.Config
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	if target.Last != graph.None {
		r, err := run.Tasks[target.Last].Result()
		if err != nil {
			return nil, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, r.Layers...)
	}
	if len(req.Labels) > 0 {
		labels := maps.Clone(config.Config.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, req.Labels)
		config.Config.Labels = labels
	}
	created := time.Unix(target.Epoch, 0).UTC()
	config.Created = &created
	s.history(&config, g, run, created)
	var err error
	layers := make([]layer.Layer, len(config.RootFS.DiffIDs))
	for i, d := range config.RootFS.DiffIDs {
		if layers[i], err = s.cfg.Layers.Get(d); err != nil {
			return nil, err
		}
	}
	img, err := s.cfg.Images.Put(&config, layers, names...)
	if err == nil {
		trace.Step(ctx, "image", "put", "image", img.ID.String())
		for _, n := range names {
			trace.Step(ctx, "image", "name", "image", reference.FamiliarString(n))
		}
	}
	return img, err
}

// history appends the lines of the target and of the stages that it is FROM.
func (s *Service) history(config *image.Config, g *graph.Graph, run *solve.Run, created time.Time) {
	var chain []graph.Stage
	for i := g.Target; i != graph.None; i = g.Stages[i].Parent {
		chain = append([]graph.Stage{g.Stages[i]}, chain...)
	}
	for _, stage := range chain {
		for _, l := range stage.Lines {
			if l.CreatedBy == "" {
				continue
			}
			h := ocispec.History{Created: &created, CreatedBy: l.CreatedBy, Comment: comment, EmptyLayer: true}
			if l.Step != graph.None {
				r, _ := run.Tasks[l.Step].Result()
				h.EmptyLayer = !r.Added
			}
			config.History = append(config.History, h)
		}
	}
}
