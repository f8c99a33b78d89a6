package volume

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"tare/internal/base/fault"
	"tare/internal/base/files"
)

// Source is how a container mounts a volume.
type Source struct {
	FSType  string   // "" binds Path; else the volume is a file system of its own
	Path    string   // folder to bind, or the file system's source
	Options []string // of the file system
}

// Source tells how to mount a volume.
func (s *Service) Source(name string) (Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.get(name)
	if err != nil {
		return Source{}, err
	}
	src, err := parseOptions(r.Options)
	if err == nil && src.Path == "" {
		src.Path = s.data(name)
	}
	return src, err
}

// parseOptions reads the local driver's type, device and o. Path "" stands for the volume's own folder.
func parseOptions(opts map[string]string) (Source, error) {
	for key := range opts {
		if key != "type" && key != "device" && key != "o" {
			return Source{}, fault.Invalid("invalid option: %q", key)
		}
	}
	if len(opts) == 0 {
		return Source{}, nil
	}
	var o []string
	bound := false
	for part := range strings.SplitSeq(opts["o"], ",") {
		switch part {
		case "":
		case "bind", "rbind":
			bound = true
		default:
			o = append(o, part)
		}
	}
	device := opts["device"]
	switch {
	case opts["type"] == "tmpfs":
		return Source{FSType: "tmpfs", Path: "tmpfs", Options: o}, nil
	case bound || opts["type"] == "bind":
		if !path.IsAbs(device) {
			return Source{}, fault.Invalid("missing device in volume options: a bind wants device=/an/absolute/path")
		}
		for _, part := range o {
			if part != "rw" {
				return Source{}, fault.Unsupported("the option o=%s of a bind volume is not supported", part)
			}
		}
		return Source{Path: path.Clean(device)}, nil
	}
	return Source{}, fault.Unsupported("volumes of type %q are not supported: the local driver knows tmpfs and o=bind", opts["type"])
}

// Populate calls fill with the volume's folder if it is empty and was never populated, so that an image's content
// is copied once, by the first container. A fill that fails is tried again by the next.
func (s *Service) Populate(name string, fill func(dir string) error) error {
	s.filling.Lock()
	defer s.filling.Unlock()
	s.mu.Lock()
	r, err := s.get(name)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	done := r.Populated || len(r.Options) > 0
	s.mu.Unlock()
	if done {
		return nil
	}
	dir := s.data(name)
	if empty, err := isEmpty(dir); err != nil {
		return err
	} else if empty {
		if err := fill(dir); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Populated {
		return nil
	}
	if empty, err := isEmpty(dir); err != nil || empty {
		return err // Docker copies again as long as the volume is empty
	}
	r.Populated = true
	return files.WriteJSON(filepath.Join(s.root, name, recordName), r, files.Fast)
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}
