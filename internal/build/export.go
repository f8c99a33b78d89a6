package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/trace"
	"tare/internal/build/cache"
	"tare/internal/build/graph"
	"tare/internal/build/solve"
	"tare/internal/image"
	"tare/internal/image/layer"
)

// comment marks history entries as BuildKit does, whose form they have.
const comment = "buildkit.dockerfile.v0"

// export makes the image of the target stage and names it. If nothing changed since an earlier build, it is
// the same image: times come from the cache.
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
	at := s.history(&config, g, run)
	created, err := s.created(&config, req, build)
	if err != nil {
		return nil, err
	}
	for _, i := range at {
		config.History[i].Created = &created
	}
	config.Created = &created
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

// history appends the lines of the target and of the stages that it is FROM. It returns the entries whose
// time is the image's own: those with no layer of the build at or before them, or after the last.
func (s *Service) history(config *image.Config, g *graph.Graph, run *solve.Run) (open []int) {
	var chain []graph.Stage
	for i := g.Target; i != graph.None; i = g.Stages[i].Parent {
		chain = append([]graph.Stage{g.Stages[i]}, chain...)
	}
	for _, stage := range chain {
		for _, l := range stage.Lines {
			if l.CreatedBy == "" {
				continue
			}
			h := ocispec.History{CreatedBy: l.CreatedBy, Comment: comment, EmptyLayer: true}
			open = append(open, len(config.History))
			if l.Step != graph.None {
				r, _ := run.Tasks[l.Step].Result()
				t := r.Created.UTC()
				h.Created, h.EmptyLayer = &t, !r.Added
				for _, i := range open[:len(open)-1] {
					config.History[i].Created = &t
				}
				open = open[:0]
			}
			config.History = append(config.History, h)
		}
	}
	return open
}

// created finds when an image with this content was first made, or remembers that it is now.
func (s *Service) created(config *image.Config, req *Request, build string) (time.Time, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return time.Time{}, err
	}
	sum := sha256.Sum256(append([]byte("image "), data...))
	key := hex.EncodeToString(sum[:])
	if !req.NoCache {
		if r, ok := s.cache.Get(key, build); ok {
			return r.Created.UTC(), nil
		}
	}
	r := cache.Record{Key: key, Kind: "image", About: "exporting the image's config", Created: time.Now().UTC()}
	return r.Created, s.cache.Put(r, build)
}
