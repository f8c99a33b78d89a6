// Package defaults is Docker's default container as an OCI spec: mounts,
// devices and their rules, capabilities, masked and read-only paths, seccomp
// profile. It is pure; the engine and the builder change a fresh copy.
package defaults

import specs "github.com/opencontainers/runtime-spec/specs-go"

// Spec returns a fresh copy of the default Linux spec: private pid, mount,
// network, uts, ipc and cgroup namespaces, no process arguments, no cgroup path.
func Spec() *specs.Spec { return nil }

// Capabilities returns the names of the default set ("CAP_CHOWN", …), sorted.
func Capabilities() []string { return nil }

// Seccomp returns the default profile for a process with these capabilities.
func Seccomp(caps []string) (*specs.LinuxSeccomp, error) { return nil, nil }
