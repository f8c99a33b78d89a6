package build

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// fields reads "key=value,key=value" as Docker's flags have it; a word without "=" gets the key bare.
func fields(flag, text, bare string) (map[string]string, error) {
	words, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("invalid argument %q for \"--%s\" flag: %w", text, flag, err)
	}
	out := map[string]string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok && bare != "" {
			k, v = bare, w
		} else if !ok {
			return nil, fmt.Errorf("invalid argument %q for \"--%s\" flag: invalid field '%s' must be a key=value pair", text, flag, w)
		}
		out[strings.ToLower(strings.TrimSpace(k))] = v
	}
	return out, nil
}

// parseSecrets reads --secret id=…[,src=…|,env=…][,type=file|env].
func parseSecrets(flags []string) (map[string]secret, error) {
	out := map[string]secret{}
	for _, f := range flags {
		kv, err := fields("secret", f, "")
		if err != nil {
			return nil, err
		}
		var s secret
		id := ""
		for k, v := range kv {
			switch k {
			case "id":
				id = v
			case "src", "source":
				s.file = v
			case "env":
				s.env = v
			case "type":
				if v != "file" && v != "env" {
					return nil, fmt.Errorf("unsupported secret type %q", v)
				}
			default:
				return nil, fmt.Errorf("unexpected key '%s' in '%s'", k, f)
			}
		}
		if id == "" {
			return nil, fmt.Errorf("invalid argument %q for \"--secret\" flag: it needs an id", f)
		}
		if kv["type"] == "env" && s.env == "" {
			s.env, s.file = s.file, ""
			if s.env == "" {
				s.env = id
			}
		}
		if s.file == "" && s.env == "" { // a variable of that name, else a file
			if _, ok := os.LookupEnv(id); ok {
				s.env = id
			} else {
				s.file = id
			}
		}
		if s.file != "" {
			if _, err := os.Stat(s.file); err != nil {
				return nil, fmt.Errorf("secret %s: %w", id, err)
			}
		} else if _, ok := os.LookupEnv(s.env); !ok {
			return nil, fmt.Errorf("secret %s: environment variable %s is not set", id, s.env)
		}
		out[id] = s
	}
	return out, nil
}

// parseAgents reads --ssh default|id[=socket]. Keys are for an agent: this program holds none.
func parseAgents(flags []string) (map[string]string, error) {
	out := map[string]string{}
	for _, f := range flags {
		id, path, _ := strings.Cut(f, "=")
		if path == "" {
			path = os.Getenv("SSH_AUTH_SOCK")
		}
		if path == "" {
			return nil, fmt.Errorf("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("SSH agent %s: %w", id, err)
		}
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("SSH agent %s: %s is no socket: add the key to an agent (ssh-add %s) and name the agent", id, path, path)
		}
		out[id] = path
	}
	return out, nil
}

// destination is what --output asks for.
type destination struct {
	kind string // "", "local", "tar", "docker", "oci", "image", "registry"
	dest string // folder or file; "-" is stdout
	name string // of an image
	push bool
}

func parseOutput(flags []string) (destination, error) {
	var d destination
	if len(flags) > 1 {
		return d, errors.New("multiple outputs are not supported")
	}
	if len(flags) == 0 {
		return d, nil
	}
	if f := flags[0]; !strings.ContainsAny(f, "=,") { // a path
		if d.kind, d.dest = "local", f; f == "-" {
			d.kind = "tar"
		}
		return d, nil
	}
	kv, err := fields("output", flags[0], "")
	if err != nil {
		return d, err
	}
	for k, v := range kv {
		switch k {
		case "type":
			d.kind = v
		case "dest":
			d.dest = v
		case "name":
			d.name = v
		case "push":
			d.push = v == "true" || v == "1"
		default:
			return d, fmt.Errorf("output option %s=%s is not supported", k, v)
		}
	}
	switch d.kind {
	case "local":
		if d.dest == "" || d.dest == "-" {
			return d, errors.New("dest is required for local output")
		}
	case "tar", "oci":
		if d.dest == "" {
			d.dest = "-"
		}
	case "docker", "image":
	case "registry":
		d.kind, d.push = "image", true
	default:
		return d, fmt.Errorf("unsupported output type %q: must be local, tar, docker, oci, image or registry", d.kind)
	}
	return d, nil
}

// namedContext is one --build-context.
type namedContext struct{ name, dir, image string }

func parseContexts(flags []string) (out []namedContext, err error) {
	for _, f := range flags {
		name, v, ok := strings.Cut(f, "=")
		if !ok || name == "" || v == "" {
			return nil, fmt.Errorf("invalid context value: %s, expected key=value", f)
		}
		c := namedContext{name: strings.ToLower(name)}
		switch image, is := strings.CutPrefix(v, "docker-image://"); {
		case is:
			c.image = image
		case strings.Contains(v, "://") || strings.HasPrefix(v, "git@"):
			return nil, fmt.Errorf("build context %s: %s is not supported: only folders and docker-image:// are", name, v)
		default:
			info, err := os.Stat(v)
			if err != nil || !info.IsDir() {
				return nil, fmt.Errorf("unable to prepare context: path %q not found or no folder", v)
			}
			c.dir = filepath.Clean(v)
		}
		out = append(out, c)
	}
	return out, nil
}
