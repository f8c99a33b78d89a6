package launch

import "tare/internal/runtime/plan"

// MountRoot does the step that mounts a root from layers (plan.OpOverlay), in the mount namespace of this process and for
// good: for a program that wants to find the root at the step's Path.
func MountRoot(st *plan.Step) error {
	s := &stage{root: -1}
	return s.overlay(st)
}
