package spec

import (
	"fmt"
	"strconv"
	"strings"

	"tare/internal/base/fault"
)

// maxCPU bounds the numbers of processors and memory nodes, so that a list like 0-4000000000 costs nothing.
const maxCPU = 8191

// numbers reads the kernel's list format (cpuset(7)), such as "0-2,7".
func numbers(list string) (map[int]bool, error) {
	out := map[int]bool{}
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || a < 0 || b < a || b > maxCPU {
			return nil, fmt.Errorf("invalid format: %s", part)
		}
		for n := a; n <= b; n++ {
			out[n] = true
		}
	}
	return out, nil
}

// validateSet checks a list of processors or memory nodes against those there are; an empty available allows all.
func validateSet(list, available, name, things string) error {
	want, err := numbers(list)
	if err != nil {
		return fault.Invalid("Invalid value %s for cpuset %s: %w", list, name, err)
	}
	have, err := numbers(available)
	if err != nil || len(have) == 0 {
		return nil
	}
	for n := range want {
		if !have[n] {
			return fault.Invalid("Requested %s are not available - requested %s, available: %s", things, list, available)
		}
	}
	return nil
}
