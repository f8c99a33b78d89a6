// Package transfer pulls and pushes images: the pipelines between a registry
// (package registry) and the store.
//
// A pull reads the manifest, then config and all layers at once; each layer is
// downloaded, verified, decompressed and unpacked in one pass over its bytes.
package transfer

import (
	"context"

	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/progress"
	"tare/internal/image"
	"tare/internal/image/registry"
)

// Service pulls into and pushes from one store.
type Service struct{}

// New makes the service.
func New(s *image.Store, r *registry.Client) *Service { return nil }

// PullRequest asks for one image, or with AllTags for all of a repository.
type PullRequest struct {
	Ref      reference.Named
	AllTags  bool
	Platform *ocispec.Platform // nil: this host's
	Auth     *registrytypes.AuthConfig
}

// Pull fetches the image; progress and the closing lines ("Digest: …", "Status: …") are Docker's.
func (s *Service) Pull(ctx context.Context, req PullRequest, p progress.Sink) (*image.Image, error) {
	return nil, fault.Unsupported("")
}

// PushRequest sends one name, or with AllTags all names of the repository.
type PushRequest struct {
	Ref     reference.Named
	AllTags bool
	Auth    *registrytypes.AuthConfig
}

// Push sends what the registry does not have. Aux of the last update is {Tag, Digest, Size}.
func (s *Service) Push(ctx context.Context, req PushRequest, p progress.Sink) error {
	return fault.Unsupported("")
}
