package container

import (
	"context"

	"tare/internal/base/fault"
)

// Rename gives a container another name; running ones resolve by it at once.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	if ref == "" || name == "" {
		return fault.Invalid("Neither old nor new names may be empty")
	}
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	name = refName(name)
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	old := e.snapshot()
	if name == old.Name {
		return fault.Invalid("Renaming a container with the same name as its current name")
	}
	if err := s.index.reserve(name, e.id); err != nil {
		return err
	}
	renamed := old
	renamed.Name = name
	if err := s.save(renamed); err != nil {
		s.index.free(name, e.id)
		return err
	}
	e.change(func(r *record) { r.Name = name })
	s.index.free(old.Name, e.id)
	s.networks.Rename(e.id, name)
	e.publish("rename", "oldName", "/"+old.Name)
	return nil
}
