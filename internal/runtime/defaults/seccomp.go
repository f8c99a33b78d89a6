package defaults

import (
	"runtime"
	"slices"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Seccomp returns the default profile for a process with these capabilities in
// its bounding set. The profile's conditions on the kernel's version, the
// newest of which is 4.8, count as met: nothing here runs on an older kernel.
func Seccomp(caps []string) (*specs.LinuxSeccomp, error) {
	profile := seccomp.DefaultProfile()
	arch := runtime.GOARCH
	native := specs.ArchX86_64
	if arch == "arm64" {
		native = specs.ArchAARCH64
	}
	out := profile.LinuxSeccomp
	for _, a := range profile.ArchMap {
		if a.Arch == native {
			out.Architectures = append([]specs.Arch{a.Arch}, a.SubArches...)
		}
	}
	out.Syscalls = nil
	for _, s := range profile.Syscalls {
		if included(s.Includes, arch, caps) && !excluded(s.Excludes, arch, caps) {
			out.Syscalls = append(out.Syscalls, s.LinuxSyscall)
		}
	}
	return &out, nil
}

func included(f *seccomp.Filter, arch string, caps []string) bool {
	if f == nil {
		return true
	}
	if len(f.Arches) > 0 && !slices.Contains(f.Arches, arch) {
		return false
	}
	for _, c := range f.Caps {
		if !slices.Contains(caps, c) {
			return false
		}
	}
	return true
}

func excluded(f *seccomp.Filter, arch string, caps []string) bool {
	if f == nil {
		return false
	}
	if f.MinKernel != nil || slices.Contains(f.Arches, arch) {
		return true
	}
	return slices.ContainsFunc(f.Caps, func(c string) bool { return slices.Contains(caps, c) })
}
