package config

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"tare/internal/runtime"
)

// ownRuntimes are the names of tare-run, Docker's for its own among them; unless the configuration gives those to another.
var ownRuntimes = []string{"tare-run", "tare", "runc", "io.containerd.runc.v2"}

// addRuntime takes NAME=PATH, and from the file NAME={"path":…,"runtimeArgs":[…]}.
func addRuntime(c *Config, v string) error {
	name, val, ok := strings.Cut(v, "=")
	if !ok || name == "" || val == "" {
		return fmt.Errorf("invalid runtime %q: want NAME=PATH", v)
	}
	f := runtime.Foreign{Path: val}
	if strings.HasPrefix(val, "{") {
		var o struct {
			Path        string          `json:"path"`
			Args        []string        `json:"runtimeArgs"`
			RuntimeType string          `json:"runtimeType"`
			Options     json.RawMessage `json:"options"`
		}
		if err := json.Unmarshal([]byte(val), &o); err != nil {
			return fmt.Errorf("runtime %s: %w", name, err)
		}
		if o.RuntimeType != "" || o.Options != nil || o.Path == "" {
			return fmt.Errorf("runtime %s: this engine takes the path of an OCI runtime's command line and runtimeArgs, no containerd shim", name)
		}
		f = runtime.Foreign{Path: o.Path, Args: o.Args}
	}
	if name == "tare-run" || name == "tare" {
		return fmt.Errorf("runtime name '%s' is reserved", name)
	}
	if _, ok := c.Runtimes[name]; ok && c.Runtimes[name].Path != f.Path {
		return fmt.Errorf("runtime %s is given twice", name)
	}
	c.Runtimes[name] = f
	return nil
}

func runtimeObject(name string, v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil || !strings.HasPrefix(string(data), "{") {
		return "", fmt.Errorf("%v is not an object with path and runtimeArgs", v)
	}
	return name + "=" + string(data), nil
}

// finishRuntimes finds the programs.
func (c *Config) finishRuntimes() error {
	for name, f := range c.Runtimes {
		path, err := exec.LookPath(f.Path)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return fmt.Errorf("runtime %s: %w", name, err)
		}
		f.Path = path
		c.Runtimes[name] = f
	}
	if _, ok := c.Runtimes[c.DefaultRuntime]; !ok && !slices.Contains(ownRuntimes, c.DefaultRuntime) {
		return fmt.Errorf("specified default runtime '%s' does not exist", c.DefaultRuntime)
	}
	return nil
}
