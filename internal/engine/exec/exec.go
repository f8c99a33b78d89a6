// Package exec is POST /containers/{id}/exec and what follows: further processes in running containers.
package exec

import (
	"context"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
)

// Service is the execs of one engine. An exec is forgotten some minutes after its exit, or with its container.
type Service struct{}

func (s *Service) Create(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error) {
	return "", fault.Unsupported("")
}

// Start runs the exec; the stream is nil with Detach. Conflict if it was started before or the container is paused.
func (s *Service) Start(ctx context.Context, id string, req container.ExecStartRequest) (*enginecontainer.Stream, error) {
	return nil, fault.Unsupported("")
}
func (s *Service) Inspect(ctx context.Context, id string) (container.ExecInspectResponse, error) {
	return container.ExecInspectResponse{}, fault.Unsupported("")
}
func (s *Service) Resize(ctx context.Context, id string, width, height uint16) error {
	return fault.Unsupported("")
}
