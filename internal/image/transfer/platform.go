package transfer

import (
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// host is the platform of this machine.
func host() ocispec.Platform {
	return ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
}

// platformName is os/arch[/variant].
func platformName(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// normal gives the names that mean the same one form (image-spec, image-index.md, "Platform Variants").
func normal(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i686":
		p.Architecture = "386"
	}
	switch {
	case p.Architecture == "arm64" && (p.Variant == "8" || p.Variant == "v8"),
		p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Variant != "" && p.Variant[0] >= '0' && p.Variant[0] <= '9':
		p.Variant = "v" + p.Variant
	}
	return p
}

// fit tells how well an image's platform serves a wish: 0 not at all, else more is better. An older variant runs on a newer processor.
func fit(want, have ocispec.Platform) int {
	want, have = normal(want), normal(have)
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return 0
	}
	if want.Variant == have.Variant {
		return 100
	}
	if have.Variant == "" {
		return 1
	}
	if want.Variant != "" && have.Variant < want.Variant {
		return 2 + int(have.Variant[len(have.Variant)-1]-'0')
	}
	return 0
}

// attestation tells an index entry that describes another one and is no image (BuildKit's attestation storage).
func attestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// choose picks the entry of an index that serves a platform best.
func choose(entries []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, error) {
	var best ocispec.Descriptor
	var images []ocispec.Descriptor
	rank := 0
	for _, d := range entries {
		if attestation(d) {
			continue
		}
		images = append(images, d)
		if d.Platform == nil {
			continue
		}
		if f := fit(want, *d.Platform); f > rank {
			best, rank = d, f
		}
	}
	if rank == 0 && len(images) == 1 && images[0].Platform == nil {
		return images[0], nil // its config will tell
	}
	if rank == 0 {
		return best, fault.NotFound("no matching manifest for %s in the manifest list entries", platformName(want))
	}
	return best, nil
}
