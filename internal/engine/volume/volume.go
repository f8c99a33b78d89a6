// Package volume is the named volumes: DATA_ROOT/volumes/<name>/_data and its record.
package volume

import (
	"context"

	"github.com/moby/moby/api/types/volume"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Service is the volumes of one engine.
type Service struct{}

// Open reads DATA_ROOT/volumes.
func Open(root string, bus *event.Bus) (*Service, error) { return nil, fault.Unsupported("") }

// Create is idempotent: an existing volume of that name is returned as it is, Conflict if its driver differs.
func (s *Service) Create(ctx context.Context, req volume.CreateRequest) (*volume.Volume, error) {
	return nil, fault.Unsupported("")
}
func (s *Service) Get(name string) (*volume.Volume, error)      { return nil, fault.Unsupported("") }
func (s *Service) List(f filter.Args) ([]*volume.Volume, error) { return nil, fault.Unsupported("") }
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	return fault.Unsupported("")
}
func (s *Service) Prune(ctx context.Context, f filter.Args) ([]string, uint64, error) {
	return nil, 0, fault.Unsupported("")
}

// Hold keeps a volume from being removed while holder (a container id) refers to it.
func (s *Service) Hold(name, holder string) error { return nil }
func (s *Service) Release(holder string)          {}
