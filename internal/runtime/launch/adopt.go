package launch

import "tare/internal/runtime/plan"

// Adopt is Resume for a successor of the parent, which cannot know whether the word to go was given: the end of the
// child's socket then counts as the exec.
func Adopt(p *plan.Plan, conn int) *Process {
	proc := Resume(p, conn)
	proc.told = true
	return proc
}
