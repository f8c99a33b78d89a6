package build

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/trace"
	"tare/internal/build/graph"
	"tare/internal/build/rootfs"
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
	history(&config, g, run, created)
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
func history(config *image.Config, g *graph.Graph, run *solve.Run, created time.Time) {
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

// sendFiles sends the target's files to the peer instead of making an image.
func (s *Service) sendFiles(ctx context.Context, g *graph.Graph, run *solve.Run, req *Request) error {
	var lower []string
	times := layer.Times{At: time.Unix(g.Stages[g.Target].Epoch, 0)}
	if last := g.Stages[g.Target].Last; last != graph.None {
		r, err := run.Tasks[last].Result()
		if err != nil {
			return err
		}
		times.Since = r.Since
		if lower, err = s.lower(r.Layers); err != nil {
			return err
		}
	}
	out, err := req.Peer.Output(ctx)
	if err != nil {
		return err
	}
	defer out.Close()
	root, err := rootfs.Open(lower, "", "")
	if err != nil {
		return err
	}
	defer root.Close()
	if len(lower) == 0 {
		return tar.NewWriter(out).Close()
	}
	fd, err := root.OpenAt("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "/")
	defer dir.Close()
	_, err = layer.WriteTar(ctx, out, dir, layer.WriteOptions{Times: times})
	return err
}

// fresh lists the steps of the stages that are named.
func fresh(g *graph.Graph, stages []string) map[int]bool {
	out := map[int]bool{}
	for _, s := range g.Stages {
		if !slices.ContainsFunc(stages, func(n string) bool { return strings.EqualFold(n, s.Name) || n == strconv.Itoa(s.Index) }) {
			continue
		}
		for _, l := range s.Lines {
			if l.Step != graph.None {
				out[l.Step] = true
			}
		}
	}
	return out
}

// checked tells what the linter found, as `docker build --check` prints it.
func checked(g *graph.Graph, name string, text []byte, o *serial) error {
	if len(g.Warnings) == 0 {
		o.Stream("Check complete, no warnings found.\n")
		return nil
	}
	lines := strings.Split(string(text), "\n")
	plural := "s have"
	if len(g.Warnings) == 1 {
		plural = " has"
	}
	o.Stream(fmt.Sprintf("Check complete, %d warning%s been found!\n", len(g.Warnings), plural))
	warnings := slices.SortedStableFunc(slices.Values(g.Warnings), func(a, b graph.Warning) int { return cmp.Compare(a.Line, b.Line) })
	for _, w := range warnings {
		o.Stream(fmt.Sprintf("\nWARNING: %s - %s\n%s\n", w.Rule, w.URL, w.Text))
		if w.Line > 0 {
			o.Stream(fmt.Sprintf("%s:%d\n--------------------\n%s--------------------\n", name, w.Line, graph.Excerpt(lines, w.Line, w.Last)))
		}
	}
	return fault.Invalid("the Dockerfile has warnings")
}
