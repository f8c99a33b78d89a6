package runtime

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// LoadBundle reads a bundle's config.json and makes the paths that the OCI spec
// lets be relative to the bundle (root.path, sources of bind mounts) absolute.
func LoadBundle(dir string) (*specs.Spec, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Invalid("cannot find bundle %s: %w", dir, err)
	}
	file := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.NotFound("JSON specification file %s not found", file)
	}
	if err != nil {
		return nil, fault.Internal("cannot read the container's spec: %w", err)
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(b, spec); err != nil {
		return nil, fault.Invalid("%s is not a container's spec: %w", file, err)
	}
	if spec.Root != nil && spec.Root.Path != "" && !filepath.IsAbs(spec.Root.Path) {
		spec.Root.Path = filepath.Join(dir, spec.Root.Path)
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Source != "" && !filepath.IsAbs(m.Source) && isBind(m) {
			m.Source = filepath.Join(dir, m.Source)
		}
	}
	return spec, nil
}

func isBind(m *specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}
