package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"

	"tare/internal/base/event"
	"tare/internal/base/fault"
	"tare/internal/engine/rootfs"
	"tare/internal/engine/spec"
)

// mounts resolves what the request asks to be mounted, in Docker's order of precedence: volumes-from, then binds
// and mounts, which replace those, then tmpfs, then anonymous volumes where nothing else is.
func (c *creation) mounts(ctx context.Context, config *container.Config, host *container.HostConfig) ([]mounted, error) {
	all := map[string]mounted{}
	c.onError(func() { c.dropVolumes(all) })
	if err := c.volumesFrom(host.VolumesFrom, all); err != nil {
		return nil, err
	}
	var populate []mounted
	for _, s := range host.Binds {
		b, err := spec.ParseBind(s)
		if err != nil {
			return nil, err
		}
		var m mounted
		if b.IsPath() {
			if m, err = bindMount(b); err != nil {
				return nil, err
			}
		} else if m, err = c.volume(ctx, volume.CreateRequest{Name: b.Source, Driver: host.VolumeDriver}, b.Destination, b.ReadOnly, b.Mode); err != nil {
			return nil, err
		}
		all[b.Destination] = m
		if m.Point.Type == mount.TypeVolume && !b.NoCopy {
			populate = append(populate, m)
		}
	}
	for _, w := range host.Mounts {
		m, copyUp, err := c.mount(ctx, w)
		if err != nil {
			return nil, err
		}
		all[m.Spec.Destination] = m
		if copyUp {
			populate = append(populate, m)
		}
	}
	for dst, data := range host.Tmpfs {
		o, err := spec.ParseTmpfs(data)
		if err != nil {
			return nil, err
		}
		dst = path.Clean(dst)
		all[dst] = mounted{Spec: spec.Mount{Type: mount.TypeTmpfs, Destination: dst, Options: o}}
	}
	for dst := range config.Volumes {
		dst = path.Clean(dst)
		if !path.IsAbs(dst) || dst == "/" {
			return nil, fault.Invalid("invalid volume specification: '%s'", dst)
		}
		if _, ok := all[dst]; ok {
			continue
		}
		m, err := c.volume(ctx, volume.CreateRequest{}, dst, false, "")
		if err != nil {
			return nil, err
		}
		all[dst] = m
		populate = append(populate, m)
	}
	for _, m := range populate {
		if err := c.populate(m); err != nil {
			return nil, err
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b mounted) int { return strings.Compare(a.Spec.Destination, b.Spec.Destination) }), nil
}

func (c *creation) dropVolumes(all map[string]mounted) {
	c.cfg.Volumes.Release(c.id)
	for _, m := range all {
		if m.Anonymous {
			c.cfg.Volumes.Remove(context.Background(), m.Point.Name, true)
		}
	}
}

// bindMount is a -v with a host path, which is made as a folder if it is missing.
func bindMount(b spec.Bind) (mounted, error) {
	if _, err := os.Stat(b.Source); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(b.Source, 0o755); err != nil {
			return mounted{}, fault.Invalid("error while creating mount source path '%s': %w", b.Source, err)
		}
	} else if err != nil {
		return mounted{}, fault.Invalid("cannot use the mount source path '%s': %w", b.Source, err)
	}
	p := b.Propagation
	if p == "" {
		p = mount.PropagationRPrivate
	}
	return mounted{
		Point: container.MountPoint{Type: mount.TypeBind, Source: b.Source, Destination: b.Destination, Mode: b.Mode, RW: !b.ReadOnly, Propagation: p},
		Spec:  spec.Mount{Type: mount.TypeBind, Source: b.Source, Destination: b.Destination, ReadOnly: b.ReadOnly, Propagation: p},
	}, nil
}

// volume makes or takes a volume and holds it. An empty name makes an anonymous one.
func (c *creation) volume(ctx context.Context, req volume.CreateRequest, dst string, readOnly bool, mode string) (mounted, error) {
	anonymous := req.Name == ""
	v, err := c.cfg.Volumes.Create(ctx, req)
	if err != nil {
		return mounted{}, err
	}
	if err := c.cfg.Volumes.Hold(v.Name, c.id); err != nil {
		return mounted{}, fault.Conflict("volume %s was removed meanwhile", v.Name)
	}
	m, err := c.volumeMount(v, dst, readOnly, mode)
	m.Anonymous = anonymous
	return m, err
}

func (c *creation) volumeMount(v *volume.Volume, dst string, readOnly bool, mode string) (mounted, error) {
	src, err := c.cfg.Volumes.Source(v.Name)
	if err != nil {
		return mounted{}, err
	}
	if mode == "" {
		mode = "z"
	}
	return mounted{
		Point: container.MountPoint{Type: mount.TypeVolume, Name: v.Name, Source: v.Mountpoint, Destination: dst, Driver: v.Driver, Mode: mode, RW: !readOnly},
		Spec:  spec.Mount{Type: mount.TypeVolume, Source: src.Path, Destination: dst, ReadOnly: readOnly, FSType: src.FSType, Options: src.Options},
	}, nil
}

// mount resolves one of HostConfig.Mounts.
func (c *creation) mount(ctx context.Context, w mount.Mount) (m mounted, copyUp bool, err error) {
	dst := path.Clean(w.Target)
	switch w.Type {
	case mount.TypeBind:
		o := w.BindOptions
		if o == nil {
			o = &mount.BindOptions{}
		}
		src := path.Clean(w.Source)
		if _, err := os.Stat(src); errors.Is(err, fs.ErrNotExist) {
			if !o.CreateMountpoint {
				return m, false, fault.Invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", src)
			}
			if err := os.MkdirAll(src, 0o755); err != nil {
				return m, false, fault.Invalid("error while creating mount source path '%s': %w", src, err)
			}
		} else if err != nil {
			return m, false, fault.Invalid("invalid mount config for type \"bind\": %w", err)
		}
		p := o.Propagation
		if p == "" {
			p = mount.PropagationRPrivate
		}
		return mounted{
			Point: container.MountPoint{Type: mount.TypeBind, Source: src, Destination: dst, RW: !w.ReadOnly, Propagation: p},
			Spec: spec.Mount{Type: mount.TypeBind, Source: src, Destination: dst, ReadOnly: w.ReadOnly, ReadOnlyTop: o.ReadOnlyNonRecursive,
				NonRecursive: o.NonRecursive, Propagation: p},
		}, false, nil
	case mount.TypeVolume:
		req := volume.CreateRequest{Name: w.Source}
		if o := w.VolumeOptions; o != nil {
			req.Labels = o.Labels
			if o.DriverConfig != nil {
				req.Driver, req.DriverOpts = o.DriverConfig.Name, o.DriverConfig.Options
			}
			copyUp = !o.NoCopy && o.Subpath == ""
		} else {
			copyUp = true
		}
		if m, err = c.volume(ctx, req, dst, w.ReadOnly, ""); err != nil || w.VolumeOptions == nil || w.VolumeOptions.Subpath == "" {
			return m, copyUp, err
		}
		if m.Spec.FSType != "" {
			return m, false, fault.Unsupported("a subpath of a volume that is a file system of its own cannot be mounted: volume-subpath=%s", w.VolumeOptions.Subpath)
		}
		m.Spec.Subpath = path.Clean(w.VolumeOptions.Subpath)
		return m, false, nil
	case mount.TypeTmpfs:
		o, err := spec.TmpfsOptions(w.TmpfsOptions)
		return mounted{
			Point: container.MountPoint{Type: mount.TypeTmpfs, Destination: dst, RW: !w.ReadOnly},
			Spec:  spec.Mount{Type: mount.TypeTmpfs, Destination: dst, ReadOnly: w.ReadOnly, Options: o},
		}, false, err
	}
	return m, false, fault.Unsupported("mounts of type %q are not supported", w.Type)
}

// volumesFrom takes the binds and volumes of other containers, "container[:ro|rw]".
func (c *creation) volumesFrom(refs []string, all map[string]mounted) error {
	for _, s := range refs {
		ref, mode, _ := strings.Cut(s, ":")
		if ref == "" || !slices.Contains([]string{"", "ro", "rw", "z", "Z"}, mode) {
			return fault.Invalid("invalid volumes-from specification: %s", s)
		}
		donor, err := c.index.find(ref)
		if err != nil {
			return fault.Invalid("cannot take the volumes of container %s: %s", ref, err)
		}
		for _, m := range donor.snapshot().Mounts {
			if m.Point.Type == mount.TypeTmpfs || m.Point.Destination == "" {
				continue
			}
			m.Anonymous = false
			if mode == "ro" {
				m.Point.RW, m.Spec.ReadOnly = false, true
			}
			if m.Point.Type == mount.TypeVolume {
				if err := c.cfg.Volumes.Hold(m.Point.Name, c.id); err != nil {
					return fault.Conflict("volume %s was removed meanwhile", m.Point.Name)
				}
			}
			all[m.Spec.Destination] = m
		}
	}
	return nil
}

// populate copies what the image has at a new volume's place into it.
func (c *creation) populate(m mounted) error {
	return c.cfg.Volumes.Populate(m.Point.Name, func(dir string) error {
		exists, folder, err := rootfs.Exists(rootfs.Layers{Lower: c.lower}, m.Spec.Destination)
		if err != nil || !exists || !folder {
			return err
		}
		v, err := rootfs.Mount(rootfs.Layers{Lower: c.lower})
		if err != nil {
			return err
		}
		defer v.Close()
		if err := v.CopyOut(m.Spec.Destination, dir); err != nil {
			return fmt.Errorf("failed to populate volume %s: %w", m.Point.Name, err)
		}
		return nil
	})
}

// tellVolumes publishes that a container's volumes were mounted or unmounted, as Docker does.
func (p *parts) tellVolumes(r record, action string) {
	for _, m := range r.Mounts {
		if m.Point.Type != mount.TypeVolume {
			continue
		}
		attributes := map[string]string{"driver": m.Point.Driver, "container": r.ID}
		if action == "mount" {
			attributes["destination"], attributes["read/write"] = m.Point.Destination, strconv.FormatBool(m.Point.RW)
			attributes["propagation"] = string(m.Point.Propagation)
		}
		p.cfg.Bus.Publish(event.Event{Type: "volume", Action: action, ID: m.Point.Name, Attributes: attributes})
	}
}
