package container

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/base/trace"
)

// Remove deletes a container with its folder, log and upper layer; Force kills it first, Volumes takes its anonymous volumes too.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return fault.Invalid("Conflict, cannot remove the default link name of the container")
	}
	e, err := s.index.find(ref)
	if err != nil {
		return err
	}
	name := refName(ref)
	e.mu.Lock()
	if e.removing {
		e.mu.Unlock()
		return fault.Conflict("removal of container %s is already in progress", name)
	}
	status := e.rec.State.Status
	active := e.rec.State.running() || status == container.StateRestarting || e.starting()
	if active && !o.Force {
		e.mu.Unlock()
		if status == container.StatePaused {
			return fault.Conflict("cannot remove container %q: container is paused and must be unpaused first", name)
		}
		if !e.rec.State.running() && status != container.StateRestarting {
			status = container.StateRunning
		}
		return fault.Conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", name, status)
	}
	e.removing = true
	e.mu.Unlock()
	if err := s.remover.byHand(ctx, e, active, o.Volumes); err != nil {
		e.mu.Lock()
		e.removing = false
		e.mu.Unlock()
		return fmt.Errorf("cannot remove container %q: %w", name, err)
	}
	return nil
}

// starting tells whether a start is under way. It wants mu.
func (e *entry) starting() bool {
	return e.begun || e.run != nil && !e.run.started && !closed(e.run.exited)
}

// remover deletes containers.
type remover struct {
	*parts
	index  *index
	killer func(ctx context.Context, e *entry) error // kills and waits for the end

	background sync.WaitGroup // folders on their way out
}

func (r *remover) byHand(ctx context.Context, e *entry, active, volumes bool) error {
	if active {
		if err := r.killer(ctx, e); err != nil {
			return fmt.Errorf("could not kill container: %w", err)
		}
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	e.cancelRestart()
	if e.snapshot().State.running() { // started again in between
		if err := r.killer(ctx, e); err != nil {
			return fmt.Errorf("could not kill container: %w", err)
		}
	}
	if err := e.settle(ctx); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, filesLimit)
	defer cancel()
	if err := e.unusedFiles(limited); err != nil {
		return err
	}
	return r.remove(ctx, e, volumes)
}

// filesLimit is how long a removal waits for a copy, export, commit or log reader to end.
const filesLimit = 10 * time.Second

// unusedFiles waits until nobody works with the container's files. No new work begins once removing is set.
func (e *entry) unusedFiles(ctx context.Context) error {
	e.mu.Lock()
	unused := e.unused
	e.mu.Unlock()
	if unused == nil {
		return nil
	}
	select {
	case <-unused:
		return nil
	case <-ctx.Done():
		return fault.Conflict("its files are in use: wait for the copy, export or commit to end")
	}
}

// auto removes an AutoRemove container after its end, with its anonymous volumes. It gives up when ctx ends; the next
// recovery does it then.
func (r *remover) auto(ctx context.Context, e *entry) {
	e.mu.Lock()
	if e.removing {
		e.mu.Unlock()
		return // by hand already
	}
	e.removing = true
	e.mu.Unlock()
	if e.unusedFiles(ctx) != nil || e.lock(ctx) != nil {
		return
	}
	defer e.unlock()
	if err := r.remove(ctx, e, true); err != nil {
		slog.Error("cannot remove a container after its end", "container", e.id, "error", err)
		e.mu.Lock()
		e.removing = false
		e.mu.Unlock()
	}
}

// remove deletes a container that does not run; the caller holds e.op. Name and record go first and at once; the
// folder, renamed so that a crash leaves only garbage, follows in the background.
func (r *remover) remove(ctx context.Context, e *entry, volumes bool) error {
	e.mu.Lock()
	rec := e.rec
	e.mu.Unlock()
	trace.Step(ctx, "engine", "remove", "container", rec.ID)
	trash := filepath.Join(r.root, files.TempPrefix+rec.ID)
	if err := os.Rename(r.dir(rec.ID), trash); err != nil && !os.IsNotExist(err) {
		return err
	}
	r.index.remove(e, rec.Name)
	trace.Step(ctx, "image", "release", "image", rec.Image)
	r.cfg.Images.Release(holder(rec.ID))
	r.cfg.Volumes.Release(rec.ID)
	if volumes {
		r.dropVolumes(rec)
	}
	trace.Step(ctx, "engine", "event", "destroy", rec.ID)
	rec.publish(r.cfg.Bus, "destroy")
	e.dropPending()
	e.mu.Lock()
	e.gone = true
	e.rec.State.Status = container.StateRemoving
	e.answer(ctx, true)
	e.mu.Unlock()
	r.background.Go(func() {
		runtime.Gosched() // those who wait for the removal get their answer first
		os.RemoveAll(trash)
	})
	return nil
}

// dropVolumes removes the volumes that were made for this container and that nobody else uses.
func (r *remover) dropVolumes(rec record) {
	for _, m := range slices.Clone(rec.Mounts) {
		if m.Anonymous && m.Point.Type == mount.TypeVolume {
			r.cfg.Volumes.Remove(context.Background(), m.Point.Name, true) // in use by another: it stays, as with Docker
		}
	}
}
