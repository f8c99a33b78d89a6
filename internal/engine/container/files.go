package container

import (
	"context"
	"path/filepath"
	"sync"

	"tare/internal/base/fault"
)

// Open gives access to a container's files; call Release when done.
func (s *Service) Open(ctx context.Context, ref string) (*Files, error) {
	e, err := s.index.find(ref)
	if err != nil {
		return nil, err
	}
	rec := e.snapshot()
	lower, err := s.launch.lower(e, rec)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	if e.gone || e.removing {
		e.mu.Unlock()
		return nil, fault.Conflict("container %s is being removed", e.id)
	}
	if e.users++; e.unused == nil {
		e.unused = make(chan struct{})
	}
	rec = e.rec
	e.mu.Unlock()
	var once sync.Once
	dir := s.dir(e.id)
	return &Files{
		ID: e.id, Name: rec.Name, Config: rec.Config, ImageID: rec.Image, Lower: lower, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Pid: rec.State.Pid, Terminal: rec.Config.Tty, LogPath: s.logPath(rec), LogDriver: rec.HostConfig.LogConfig.Type, Mounts: points(rec), Subpaths: subpaths(rec), ReadonlyRootfs: rec.HostConfig.ReadonlyRootfs,
		Running: func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.rec.State.running() && !e.gone
		},
		Publish: func(action string) { e.publish(action) },
		Release: func() {
			once.Do(func() {
				e.mu.Lock()
				if e.users--; e.users == 0 {
					close(e.unused)
					e.unused = nil
				}
				e.mu.Unlock()
			})
		},
	}, nil
}

func subpaths(r record) map[string]string {
	var out map[string]string
	for _, m := range r.Mounts {
		if m.Spec.Subpath == "" {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[m.Point.Destination] = m.Spec.Subpath
	}
	return out
}
