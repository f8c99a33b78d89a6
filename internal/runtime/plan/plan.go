// Package plan compiles an OCI runtime spec into the list of steps that turn a
// new process into the container. Compiling is pure: no files, no clock, no
// host beyond what Host carries, so every flag of `docker run` is a golden test.
// Each step carries the spec field that it stands for.
package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// Host is what compiling must know of the machine.
type Host struct {
	Cgroup   CgroupMode
	Cgroups  map[string]string // v1: controller → mount point; v2: "" → mount point
	HardFile uint64            // hard RLIMIT_NOFILE that can't be raised; limits above are clamped
	// CanRaiseLimits is false without CAP_SYS_RESOURCE.
	CanRaiseLimits bool
}

// CgroupMode is how the host's cgroup controllers are mounted.
type CgroupMode string

const (
	CgroupV1 CgroupMode = "v1" // also hybrid: controllers on v1, an empty v2 tree
	CgroupV2 CgroupMode = "v2"
)

// Plan is the compiled form. TODO(runtime): steps, namespaces to make and to join, ids.
type Plan struct{}

// Compile makes the plan for a container's init.
func Compile(spec *specs.Spec, rootfs *runtime.Overlay, host Host) (*Plan, error) {
	return nil, fault.Unsupported("")
}

// CompileExec makes the plan for a further process in a container of that spec.
func CompileExec(spec *specs.Spec, process *specs.Process, host Host) (*Plan, error) {
	return nil, fault.Unsupported("")
}
