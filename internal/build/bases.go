package build

import (
	"context"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"tare/internal/base/fault"
	"tare/internal/base/progress"
	"tare/internal/base/trace"
	"tare/internal/build/graph"
	"tare/internal/image"
	"tare/internal/image/transfer"
)

// bases finds the base images of one build, pulls what is missing, and holds them until the build ends.
type bases struct {
	s      *Service
	ctx    context.Context
	req    *Request
	holder string
	sink   progress.Sink

	mu    sync.Mutex // guards found and held
	found map[[2]string]*image.Image
	held  []digest.Digest
}

// fetch gets several images at once.
func (b *bases) fetch(names [][2]string) error {
	g, ctx := errgroup.WithContext(b.ctx)
	for _, n := range names {
		beside := trace.Beside(ctx)
		g.Go(func() error {
			_, err := b.get(beside, n[0], n[1])
			return err
		})
	}
	return g.Wait()
}

// resolve answers the graph.
func (b *bases) resolve(name, platform string) (graph.Image, error) {
	img, err := b.get(b.ctx, name, platform)
	if err != nil {
		return graph.Image{}, err
	}
	c := img.Config
	return graph.Image{ID: img.ID, Config: c}, nil
}

func (b *bases) get(ctx context.Context, name, platform string) (*image.Image, error) {
	k := [2]string{name, platform}
	b.mu.Lock()
	img := b.found[k]
	b.mu.Unlock()
	if img != nil {
		return img, nil
	}
	img, err := b.find(ctx, name, platform)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found[k] = img
	b.held = append(b.held, img.ID)
	trace.Step(ctx, "image", "hold", "image", img.ID.String())
	b.s.cfg.Images.Hold(b.holder, b.held...)
	return img, nil
}

// find looks the image up, and pulls it if it is missing, made for another platform, or the request says so.
func (b *bases) find(ctx context.Context, name, platform string) (*image.Image, error) {
	want, err := parsePlatform(platform, b.s.cfg.Host)
	if err != nil {
		return nil, err
	}
	trace.Step(ctx, "image", "get", "image", name)
	img, err := b.s.cfg.Images.Get(name)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	ref, refErr := reference.ParseNormalizedNamed(name)
	have := err == nil && matches(img.Config.Platform, want)
	byID := err == nil && len(img.Names) == 0 || refErr != nil
	if have && (!b.req.Pull || byID) {
		return img, nil
	}
	if refErr != nil {
		return nil, fault.Invalid("invalid reference format: %s", name)
	}
	pull := transfer.PullRequest{Ref: reference.TagNameOnly(ref), Auth: auth(b.req.Auths, reference.Domain(ref))}
	if platform != "" {
		pull.Platform = &ocispec.Platform{OS: want.OS, Architecture: want.Architecture, Variant: want.Variant}
	}
	return b.s.cfg.Puller.Pull(ctx, pull, b.sink)
}

// auth picks a registry's credentials as the docker client stores them.
func auth(auths map[string]registry.AuthConfig, domain string) *registry.AuthConfig {
	keys := []string{domain, "https://" + domain, "http://" + domain, "https://" + domain + "/v1/", "https://" + domain + "/v2/"}
	if domain == "docker.io" {
		keys = append([]string{"https://index.docker.io/v1/", "index.docker.io"}, keys...)
	}
	for _, k := range keys {
		if a, ok := auths[k]; ok {
			return &a
		}
	}
	return nil
}
