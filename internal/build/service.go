package build

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/progress"
	"tare/internal/base/trace"
	"tare/internal/build/graph"
	"tare/internal/build/solve"
	"tare/internal/build/source"
	"tare/internal/image"
)

// Build runs the request and returns the image's id. A broken Dockerfile is Invalid and
// its message has file, line and the line's text. A RUN that fails is an *ExitError.
func (s *Service) Build(ctx context.Context, req Request, out Output) (digest.Digest, error) {
	names, err := parseTags(req.Tags)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(req.Network, "container:") {
		return "", fault.Unsupported("build steps can't share the network of a container: use default, host, none or a network's name")
	}
	platform, err := parsePlatform(req.Platform, s.cfg.Host)
	if err != nil {
		return "", err
	}
	files, dockerfile, text, err := s.contexts.read(ctx, &req)
	if err != nil {
		return "", err
	}
	id := "build " + ids.New()
	defer s.running.begin(ctx)()
	defer s.contexts.contents.Use()()
	w := &worker{s: s, req: &req, files: files, downloads: map[string]*download{}, also: map[string]*source.Archive{}}
	defer s.cfg.Images.Arrive()()
	defer s.finish(ctx, id, w)
	o := &serial{out: out}
	g, err := s.graph(ctx, &req, platform, dockerfile, text, id, o)
	if err != nil {
		return "", err
	}
	w.graph = g
	if req.Check {
		return "", checked(g, dockerfile, text, o)
	}
	o.Stream(notes(g))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := s.solve.Start(ctx, g, w, solve.Options{Build: id, NoCache: req.NoCache, Fresh: fresh(g, req.NoCacheFilter)})
	e := s.stories.compare(w, g, run, cmp.Or(req.Origin, strings.Join(append([]string{req.Remote, dockerfile}, req.Tags...), " "))+" "+req.Target+" "+req.Platform)
	n := narrator{g: g, run: run, out: o, explain: req.Explain, why: e}
	n.tell(ctx)
	if step, err := run.Wait(); err != nil {
		n.failed(step)
		return "", g.Located(err, step)
	}
	e.save()
	if req.Files {
		return "", s.sendFiles(ctx, g, run, &req)
	}
	img, err := s.export(ctx, g, run, &req, id, names)
	if err != nil {
		return "", err
	}
	n.done(img, names)
	return img.ID, nil
}

// running counts the builds that have not ended.
type running struct {
	mu     sync.Mutex                        // guards builds
	builds map[chan struct{}]context.Context // closed when a build has let go of all; its context
}

// begin counts a build as running until end is called.
func (r *running) begin(ctx context.Context) (end func()) {
	done := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.builds[done] = ctx
	return func() {
		r.mu.Lock()
		delete(r.builds, done)
		r.mu.Unlock()
		close(done)
	}
}

// settle waits until the builds that were cancelled have let go of all they used.
func (r *running) settle(ctx context.Context) {
	r.mu.Lock()
	var ending []chan struct{}
	for done, build := range r.builds {
		if build.Err() != nil {
			ending = append(ending, done)
		}
	}
	r.mu.Unlock()
	for _, done := range ending {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
}

// graph parses the Dockerfile, finds the base images and makes the steps.
func (s *Service) graph(ctx context.Context, req *Request, platform ocispec.Platform, name string, text []byte, id string, o *serial) (*graph.Graph, error) {
	trace.Step(ctx, "build", "parse", "file", name)
	f, err := graph.Parse(name, text, req.BuildArgs)
	if err != nil {
		return nil, err
	}
	opt := graph.Options{Args: req.BuildArgs, Target: req.Target, Platform: platform, Host: s.cfg.Host, Network: req.Network,
		Hosts: req.ExtraHosts, Allow: req.Allow, Ignore: req.Ignore, Contexts: map[string]graph.Context{},
		ShmSize: req.ShmSize, Ulimits: req.Ulimits,
		Limits: graph.Limits{Memory: req.Memory, CPUShares: req.CPUShares, CPUPeriod: req.CPUPeriod, CPUQuota: req.CPUQuota, CPUSetCPUs: req.CPUSetCPUs}}
	if opt.ShmSize == 0 {
		opt.ShmSize = s.cfg.ShmSize
	}
	for name, c := range req.Contexts {
		opt.Contexts[strings.ToLower(name)] = graph.Context{Folder: c.Image == "", Image: c.Image}
	}
	wanted, err := f.Bases(opt)
	if err != nil {
		return nil, err
	}
	b := &bases{s: s, ctx: ctx, req: req, holder: id, found: map[[2]string]*image.Image{}, sink: func(u progress.Update) {
		o.Status(u.ID, u.Action, u.Current, u.Total)
	}}
	if err := b.fetch(wanted); err != nil {
		return nil, err
	}
	trace.Step(ctx, "build", "graph", "of", name)
	return f.Graph(opt, b.resolve)
}

// finish lets go of what the build used, once no step of it runs on for another build.
func (s *Service) finish(ctx context.Context, id string, w *worker) {
	s.cache.Unpin(id)
	trace.Step(ctx, "image", "release", "", "all of the build")
	s.cfg.Images.Release(id)
	s.after.Go(func() {
		w.close()
		s.pruner.collect(context.WithoutCancel(ctx))
	})
}

// parseTags checks all names before any work is done.
func parseTags(tags []string) ([]reference.NamedTagged, error) {
	var out []reference.NamedTagged
	seen := map[string]bool{}
	for _, t := range tags {
		if t == "" {
			continue
		}
		ref, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, fault.Invalid("invalid argument %q for \"-t, --tag\" flag: %w", t, err)
		}
		if _, ok := ref.(reference.Canonical); ok {
			return nil, fault.Invalid("build tag cannot contain a digest")
		}
		named := reference.TagNameOnly(ref).(reference.NamedTagged)
		if !seen[named.String()] {
			seen[named.String()] = true
			out = append(out, named)
		}
	}
	return out, nil
}

// notes are the parser's warnings and the build args that nobody asked for.
func notes(g *graph.Graph) string {
	var b strings.Builder
	for _, w := range g.Warnings {
		fmt.Fprintf(&b, "[Warning] %s\n", w)
	}
	if len(g.UnusedArgs) > 0 {
		fmt.Fprintf(&b, "[Warning] One or more build-args %v were not consumed\n", g.UnusedArgs)
	}
	return b.String()
}

// serial lets one caller at a time through to an Output.
type serial struct {
	mu  sync.Mutex // held while out is called
	out Output
}

func (s *serial) Stream(text string) {
	if text == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Stream(text)
}

func (s *serial) Status(id, action string, current, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Status(id, action, current, total)
}
