// Package upstream is the registry behind a cache, asked with the engine's own client.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/hub/config"
	"tare/internal/image/registry"
)

// Registry is one registry, as the cache's user sees it. Its errors are NotFound for what is not there,
// PermissionDenied where the user may not look, ResourceExhausted for "too many requests".
type Registry struct {
	client *registry.Client
	auth   *registrytypes.AuthConfig
	host   string
}

// Open makes the client that a cache is configured for; it asks nothing yet.
func Open(c config.Cache) (*Registry, error) {
	u, err := url.Parse(c.Upstream)
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	rc := registry.Config{CertsDir: c.Certs, UserAgent: "tare-registry"}
	if c.Insecure {
		rc.InsecureRegistries = []string{u.Host}
	}
	r := &Registry{host: u.Host}
	if r.client, err = registry.New(rc); err != nil {
		return nil, err
	}
	if c.Username != "" {
		secret, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		r.auth = &registrytypes.AuthConfig{Username: c.Username, Password: strings.TrimSpace(string(secret))}
	}
	return r, nil
}

func (r *Registry) repository(name string) (*registry.Repository, error) {
	host := r.host
	if host == "registry-1.docker.io" {
		host = "docker.io" // the client knows where that is
		if !strings.Contains(name, "/") {
			name = "library/" + name
		}
	}
	named, err := reference.WithName(host + "/" + name)
	if err != nil {
		return nil, fault.NotFound("%s can't have %s: %w", r.host, name, err)
	}
	return r.client.Repository(named, r.auth, registry.Pull), nil
}

// classed gives err the class that the cache looks at.
func classed(err error) error {
	var refused *registry.Error
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Status {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", errdefs.ErrNotFound, refused)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", errdefs.ErrPermissionDenied, refused)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", errdefs.ErrResourceExhausted, refused)
	}
	return err
}

// Digest asks what a tag stands for, with HEAD; "" if the registry does not say.
func (r *Registry) Digest(ctx context.Context, repository, tag string) (digest.Digest, error) {
	repo, err := r.repository(repository)
	if err != nil {
		return "", err
	}
	d, ok, err := repo.HasManifest(ctx, tag)
	if err == nil && !ok {
		return "", fmt.Errorf("%w: manifest %s of %s", errdefs.ErrNotFound, tag, repository)
	}
	return d, classed(err)
}

// Manifest fetches a manifest by tag or digest and verifies it.
func (r *Registry) Manifest(ctx context.Context, repository, ref string) ([]byte, ocispec.Descriptor, error) {
	repo, err := r.repository(repository)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	data, d, err := repo.Manifest(ctx, ref)
	return data, d, classed(err)
}

// Blob opens a blob; its content is not verified.
func (r *Registry) Blob(ctx context.Context, repository string, d ocispec.Descriptor) (io.ReadCloser, error) {
	repo, err := r.repository(repository)
	if err != nil {
		return nil, err
	}
	body, err := repo.Blob(ctx, d, 0)
	return body, classed(err)
}
