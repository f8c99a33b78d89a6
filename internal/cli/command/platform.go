package command

import (
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ParsePlatform reads "os/arch[/variant]"; a single word is the architecture, for linux.
func ParsePlatform(s string) (*ocispec.Platform, error) {
	p := ocispec.Platform{OS: "linux"}
	switch parts := strings.Split(s, "/"); len(parts) {
	case 1:
		p.Architecture = parts[0]
	case 2:
		p.OS, p.Architecture = parts[0], parts[1]
	case 3:
		p.OS, p.Architecture, p.Variant = parts[0], parts[1], parts[2]
	default:
		return nil, fmt.Errorf("error parsing specified platform: %q: cannot parse platform specifier: invalid argument", s)
	}
	return &p, nil
}
