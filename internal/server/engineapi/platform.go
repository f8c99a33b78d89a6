package engineapi

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// arches are other names of GOARCH values, with the variant they imply.
var arches = map[string][2]string{
	"x86_64": {"amd64", ""}, "x86-64": {"amd64", ""}, "i386": {"386", ""}, "i686": {"386", ""},
	"aarch64": {"arm64", ""}, "armhf": {"arm", "v7"}, "armel": {"arm", "v6"},
}

// knownArches are the GOARCH values that a bare word may name; any other bare word is an operating system.
var knownArches = []string{"386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"}

// parsePlatform decodes a platform: os[/arch[/variant]], a bare architecture, or an OCI platform in
// JSON. "" is nil, the host's.
func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	if strings.HasPrefix(s, "{") {
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(s), &p); err != nil {
			return nil, fault.Invalid("failed to parse platform: %w", err)
		}
		if p.OS == "" || p.Architecture == "" {
			return nil, fault.Invalid("both OS and Architecture must be provided")
		}
		return &p, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return nil, fault.Invalid("%q: invalid platform", s)
	}
	p := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if len(parts) == 1 {
		a, v := arch(parts[0])
		if slices.Contains(knownArches, a) {
			p.Architecture, p.Variant = a, v
		} else {
			p.OS = parts[0]
		}
		return &p, nil
	}
	p.OS = parts[0]
	p.Architecture, p.Variant = arch(parts[1])
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	if p.Architecture == "arm64" && p.Variant == "v8" {
		p.Variant = ""
	}
	return &p, nil
}

func arch(word string) (name, variant string) {
	if a, ok := arches[word]; ok {
		return a[0], a[1]
	}
	return word, ""
}
