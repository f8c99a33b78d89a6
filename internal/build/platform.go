package build

import (
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

func hostPlatform() ocispec.Platform {
	p := ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	if p.Architecture == "arm64" {
		p.Variant = "v8"
	}
	return p
}

// parsePlatform reads os[/arch[/variant]] or an architecture alone; "" is the host's.
func parsePlatform(s string, host ocispec.Platform) (ocispec.Platform, error) {
	if s == "" {
		return host, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			return host, fault.Invalid("invalid platform: %q", s)
		}
	}
	p := ocispec.Platform{OS: parts[0]}
	switch len(parts) {
	case 1:
		if p.OS == host.OS {
			return host, nil
		}
		p = ocispec.Platform{OS: host.OS, Architecture: parts[0]}
	case 2:
		p.Architecture = parts[1]
	case 3:
		p.Architecture, p.Variant = parts[1], parts[2]
	default:
		return host, fault.Invalid("invalid platform: %q", s)
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	}
	if p.Architecture == "arm64" && p.Variant == "" {
		p.Variant = "v8"
	}
	if p.OS != "linux" {
		return host, fault.Invalid("cannot build for %s: only linux images are supported", s)
	}
	return p, nil
}

// matches tells whether an image made for have runs where want is asked for.
func matches(have, want ocispec.Platform) bool {
	return (have.OS == "" || have.OS == want.OS) && (have.Architecture == "" || have.Architecture == want.Architecture) &&
		(have.Variant == "" || want.Variant == "" || have.Variant == want.Variant)
}
