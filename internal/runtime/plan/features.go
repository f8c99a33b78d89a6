package plan

import (
	"maps"
	"slices"
)

// MountOptions are the options that a mount may have besides its file system's own, sorted.
func MountOptions() []string {
	names := slices.Concat(slices.Collect(maps.Keys(mountOptions)), slices.Collect(maps.Keys(propagation)))
	names = append(names, "tmpcopyup", "idmap", "ridmap")
	for n := range recursiveOptions {
		names = append(names, "r"+n)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Namespaces are the types that a container can have, sorted.
func Namespaces() []string {
	var names []string
	for n := range namespaceFlags {
		names = append(names, string(n))
	}
	slices.Sort(names)
	return names
}

// Capabilities are the names that a spec may use, in the kernel's order.
func Capabilities() []string {
	names := make([]string, 0, len(capabilityNames))
	for _, n := range capabilityNames {
		names = append(names, "CAP_"+n)
	}
	return names
}
