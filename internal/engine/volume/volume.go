// Package volume is the named volumes: DATA_ROOT/volumes/<name>/ with _data, the
// folder that containers mount, and record.json. There is one driver, local.
//
// A volume's options (type, device, o) make it a file system of its own, tmpfs or
// a bind of a host folder, which is mounted inside each container that uses the
// volume and never on the host; its _data stays empty. Other types are refused.
//
// A hold keeps a volume from being removed while a container refers to it; holds live in memory and are taken
// again by their owners at start.
package volume

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/base/filter"
	"tare/internal/base/ids"
)

// anonymousLabel marks volumes that got their name from the engine, as in Docker.
const anonymousLabel = "com.docker.volume.anonymous"

const recordName = "record.json"

// Service is the volumes of one engine. It is safe for concurrent use.
type Service struct {
	root string
	bus  *event.Bus

	filling sync.Mutex // one Populate at a time; taken before mu

	mu      sync.Mutex // guards all below
	volumes map[string]*record
	holds   map[string]map[string]bool // volume → holders
}

// record is a volume as it lies on the disk.
type record struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	// Populated says that the first container's image content was copied, or that nothing is to be.
	Populated bool `json:"populated,omitempty"`
}

// Open reads DATA_ROOT/volumes, which it makes, and removes what a crash left half-made.
func Open(root string, bus *event.Bus) (*Service, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, err
	}
	if err := files.Sweep(root); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	s := &Service{root: root, bus: bus, volumes: map[string]*record{}, holds: map[string]map[string]bool{}}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := files.Sweep(filepath.Join(root, e.Name())); err != nil {
			return nil, err
		}
		var r record
		err := files.ReadJSON(filepath.Join(root, e.Name(), recordName), &r)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not ours: a folder gets its name with the record inside
		}
		if err != nil {
			return nil, err
		}
		s.volumes[e.Name()] = &r
	}
	return s, nil
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// Create is idempotent: an existing volume of that name is returned as it is, Conflict if its options differ.
func (s *Service) Create(ctx context.Context, req volume.CreateRequest) (*volume.Volume, error) {
	if req.Driver != "" && req.Driver != "local" {
		return nil, fault.Invalid("error looking up volume plugin %s: plugin %q not found", req.Driver, req.Driver)
	}
	if req.ClusterVolumeSpec != nil {
		return nil, fault.Unsupported("cluster volumes are not supported")
	}
	if _, err := parseOptions(req.DriverOpts); err != nil {
		return nil, err
	}
	name := req.Name
	labels := maps.Clone(req.Labels)
	if name == "" {
		name = ids.New()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[anonymousLabel] = ""
	} else if len(name) < 2 || len(name) > 255 || !validName.MatchString(name) {
		return nil, fault.Invalid("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.volumes[name]; ok {
		if len(req.DriverOpts) > 0 && !maps.Equal(req.DriverOpts, r.Options) {
			return nil, fault.Conflict("a volume named %s exists already with other options", name)
		}
		return s.describe(r), nil
	}
	r := &record{Name: name, Created: time.Now().UTC(), Labels: labels, Options: maps.Clone(req.DriverOpts)}
	if err := s.store(r); err != nil {
		return nil, err
	}
	s.volumes[name] = r
	s.publish("create", name)
	return s.describe(r), nil
}

// store makes the folder under a temporary name and renames it.
func (s *Service) store(r *record) error {
	tmp, err := os.MkdirTemp(s.root, files.TempPrefix)
	if err != nil {
		return err
	}
	err = errors.Join(
		os.Chmod(tmp, 0o701),
		os.Mkdir(filepath.Join(tmp, "_data"), 0o755),
		files.WriteJSON(filepath.Join(tmp, recordName), r, files.Fast),
	)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(s.root, r.Name))
	}
	if err != nil {
		os.RemoveAll(tmp)
	}
	return err
}

func (s *Service) publish(action, name string) {
	s.bus.Publish(event.Event{Type: "volume", Action: action, ID: name, Attributes: map[string]string{"driver": "local"}})
}

func (s *Service) data(name string) string { return filepath.Join(s.root, name, "_data") }

// describe wants mu.
func (s *Service) describe(r *record) *volume.Volume {
	v := &volume.Volume{
		Name: r.Name, Driver: "local", Scope: "local", Mountpoint: s.data(r.Name),
		CreatedAt: r.Created.Format(time.RFC3339), Labels: maps.Clone(r.Labels), Options: maps.Clone(r.Options),
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	if v.Options == nil {
		v.Options = map[string]string{}
	}
	return v
}

func (s *Service) get(name string) (*record, error) {
	r, ok := s.volumes[name]
	if !ok {
		return nil, fault.NotFound("get %s: no such volume", name)
	}
	return r, nil
}

// Get finds a volume by name.
func (s *Service) Get(name string) (*volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.get(name)
	if err != nil {
		return nil, err
	}
	return s.describe(r), nil
}

// List returns the volumes that match (dangling, driver, label, name), by name.
func (s *Service) List(f filter.Args) ([]*volume.Volume, error) {
	if err := f.Only("dangling", "driver", "label", "label!", "name"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*volume.Volume
	for name, r := range s.volumes {
		held := len(s.holds[name]) > 0
		if f.Has("dangling") && held == dangling ||
			!f.Match("driver", func(v string) bool { return v == "local" }) ||
			!f.Match("name", func(v string) bool { return strings.Contains(name, v) }) || !f.Labels(r.Labels) {
			continue
		}
		out = append(out, s.describe(r))
	}
	slices.SortFunc(out, func(a, b *volume.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove deletes a volume that nothing holds. With force a missing one is no error.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	trash, err := s.take(name, force)
	if err != nil || trash == "" {
		return err
	}
	return os.RemoveAll(trash)
}

// take removes an unused volume's name and returns the folder that is left to delete.
func (s *Service) take(name string, force bool) (trash string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.get(name); err != nil {
		if force {
			return "", nil
		}
		return "", err
	}
	if holders := slices.Sorted(maps.Keys(s.holds[name])); len(holders) > 0 {
		return "", fault.Conflict("remove %s: volume is in use - [%s]", name, strings.Join(holders, ", "))
	}
	return s.discard(name)
}

// discard wants mu. The folder is renamed, so that a crash before its deletion leaves only garbage.
func (s *Service) discard(name string) (trash string, err error) {
	trash = filepath.Join(s.root, files.TempPrefix+ids.New())
	if err := os.Rename(filepath.Join(s.root, name), trash); err != nil {
		return "", fault.Internal("cannot remove volume %s: %w", name, err)
	}
	delete(s.volumes, name)
	s.publish("destroy", name)
	return trash, nil
}

// Prune removes unused anonymous volumes, with the filter all=1 all unused ones, and returns names and bytes won.
func (s *Service) Prune(ctx context.Context, f filter.Args) ([]string, uint64, error) {
	if err := f.Only("all", "label", "label!"); err != nil {
		return nil, 0, err
	}
	all, err := f.Bool("all", false)
	if err != nil {
		return nil, 0, err
	}
	list, err := s.List(filter.Args{"dangling": {"true"}})
	if err != nil {
		return nil, 0, err
	}
	var removed []string
	var won uint64
	for _, v := range list {
		if ctx.Err() != nil {
			return removed, won, ctx.Err()
		}
		if _, anonymous := v.Labels[anonymousLabel]; !all && !anonymous || !f.Labels(v.Labels) {
			continue
		}
		size, err := diskUsage(v.Mountpoint)
		if err != nil {
			return removed, won, err
		}
		if err := s.Remove(ctx, v.Name, true); err != nil {
			if errdefs.IsConflict(err) {
				continue // in use by now
			}
			return removed, won, err
		}
		removed, won = append(removed, v.Name), won+uint64(size)
	}
	s.bus.Publish(event.Event{Type: "volume", Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatUint(won, 10)}})
	return removed, won, nil
}

// Hold keeps a volume from being removed while holder (a container id) refers to it.
func (s *Service) Hold(name, holder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.get(name); err != nil {
		return err
	}
	if s.holds[name] == nil {
		s.holds[name] = map[string]bool{}
	}
	s.holds[name][holder] = true
	return nil
}

// Release ends all that holder holds.
func (s *Service) Release(holder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, holders := range s.holds {
		delete(holders, holder)
		if len(holders) == 0 {
			delete(s.holds, name)
		}
	}
}
