package container

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// volumeFlags reads --volume, --mount and --tmpfs.
func (f *flags) volumeFlags(c *container.Config, h *container.HostConfig) error {
	for _, v := range f.volumes {
		if !strings.Contains(v, ":") { // an anonymous volume
			if c.Volumes == nil {
				c.Volumes = map[string]struct{}{}
			}
			c.Volumes[v] = struct{}{}
			continue
		}
		parts := strings.Split(v, ":")
		if len(parts) > 3 {
			return fmt.Errorf("invalid spec: %s: too many colons", v)
		}
		if slices.Contains(parts, "") {
			return fmt.Errorf("invalid spec: %s: empty section between colons", v)
		}
		source, rest, _ := strings.Cut(v, ":")
		if strings.HasPrefix(source, ".") {
			abs, err := filepath.Abs(source)
			if err != nil {
				return err
			}
			v = abs + ":" + rest
		}
		h.Binds = append(h.Binds, v)
	}
	for _, t := range f.tmpfs {
		dst, opts, _ := strings.Cut(t, ":")
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[dst] = opts
	}
	for _, s := range f.mounts {
		m, err := parseMount(s)
		if err != nil {
			return err
		}
		h.Mounts = append(h.Mounts, m)
	}
	return nil
}

// parseMount reads type=…,source=…,target=… as one line of CSV.
func parseMount(s string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return m, err
	}
	for _, field := range fields {
		key, value, withValue := strings.Cut(strings.TrimSpace(field), "=")
		key = strings.ToLower(key)
		flag := func() (bool, error) {
			if !withValue {
				return true, nil
			}
			b, err := strconv.ParseBool(value)
			if err != nil {
				return false, fmt.Errorf("invalid value for %s: %s", key, value)
			}
			return b, nil
		}
		bind := func() *mount.BindOptions {
			if m.BindOptions == nil {
				m.BindOptions = &mount.BindOptions{}
			}
			return m.BindOptions
		}
		volume := func() *mount.VolumeOptions {
			if m.VolumeOptions == nil {
				m.VolumeOptions = &mount.VolumeOptions{}
			}
			return m.VolumeOptions
		}
		driver := func() *mount.Driver {
			if volume().DriverConfig == nil {
				m.VolumeOptions.DriverConfig = &mount.Driver{}
			}
			return m.VolumeOptions.DriverConfig
		}
		tmpfs := func() *mount.TmpfsOptions {
			if m.TmpfsOptions == nil {
				m.TmpfsOptions = &mount.TmpfsOptions{}
			}
			return m.TmpfsOptions
		}
		var b bool
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive":
			if b, err = flag(); err != nil {
				return m, err
			}
		default:
			if !withValue {
				return m, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
		}
		switch key {
		case "type":
			m.Type = mount.Type(strings.ToLower(value))
		case "source", "src":
			m.Source = value
			if strings.HasPrefix(value, ".") {
				if m.Source, err = filepath.Abs(value); err != nil {
					return m, err
				}
			}
		case "target", "dst", "destination":
			m.Target = value
		case "readonly", "ro":
			m.ReadOnly = b
		case "consistency":
			m.Consistency = mount.Consistency(value)
		case "bind-propagation":
			bind().Propagation = mount.Propagation(strings.ToLower(value))
		case "bind-nonrecursive":
			bind().NonRecursive = b
		case "bind-recursive":
			switch value {
			case "enabled":
			case "disabled":
				bind().NonRecursive = true
			case "writable":
				bind().ReadOnlyNonRecursive = true
			case "readonly":
				bind().ReadOnlyForceRecursive = true
			default:
				return m, fmt.Errorf("invalid value for %s: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", key, value)
			}
		case "volume-nocopy":
			volume().NoCopy = b
		case "volume-subpath":
			volume().Subpath = value
		case "volume-label":
			if volume().Labels == nil {
				m.VolumeOptions.Labels = map[string]string{}
			}
			k, v, _ := strings.Cut(value, "=")
			m.VolumeOptions.Labels[k] = v
		case "volume-driver":
			driver().Name = value
		case "volume-opt":
			d := driver()
			if d.Options == nil {
				d.Options = map[string]string{}
			}
			k, v, _ := strings.Cut(value, "=")
			d.Options[k] = v
		case "image-subpath":
			m.ImageOptions = &mount.ImageOptions{Subpath: value}
		case "tmpfs-size":
			n, err := units.RAMInBytes(value)
			if err != nil {
				return m, fmt.Errorf("invalid value for %s: %s", key, value)
			}
			tmpfs().SizeBytes = n
		case "tmpfs-mode":
			n, err := strconv.ParseUint(value, 8, 32)
			if err != nil {
				return m, fmt.Errorf("invalid value for %s: %s", key, value)
			}
			tmpfs().Mode = os.FileMode(n)
		default:
			return m, fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	switch {
	case m.Type == "":
		return m, errors.New("type is required")
	case m.Target == "":
		return m, errors.New("target is required")
	case !path.IsAbs(m.Target):
		return m, fmt.Errorf("target %s must be an absolute path", m.Target)
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return m, fmt.Errorf("cannot mix 'volume-*' options with mount type '%s'", m.Type)
	case m.BindOptions != nil && m.Type != mount.TypeBind:
		return m, fmt.Errorf("cannot mix 'bind-*' options with mount type '%s'", m.Type)
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return m, fmt.Errorf("cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	}
	return m, nil
}
