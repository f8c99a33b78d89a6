package defaults

import (
	"io/fs"
	"slices"
	"strings"
)

// Throttles are the further paths to mask on this machine: each processor's thermal_throttle folder, whose counters tell
// containers of each other's work. sys is what /sys shows; the paths are absolute.
func Throttles(sys fs.FS) []string {
	found, _ := fs.Glob(sys, "devices/system/cpu/cpu[0-9]*/thermal_throttle") // the pattern is right
	slices.SortFunc(found, func(a, b string) int {
		if len(a) != len(b) { // cpu2 before cpu10
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for i := range found {
		found[i] = "/sys/" + found[i]
	}
	return found
}
