package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// refuse is one field that no step honours, and whether the spec uses it.
type refuse struct {
	field string
	used  bool
}

func firstRefused(fields []refuse) error {
	for _, f := range fields {
		if f.used {
			return unsupported(f.field)
		}
	}
	return nil
}

func refuseSpec(spec *specs.Spec) error {
	if spec.Linux == nil {
		return fault.Invalid("the spec has no linux section")
	}
	if spec.Process == nil {
		return fault.Invalid("the spec has no process")
	}
	h, l := spec.Hooks, spec.Linux
	if h == nil {
		h = &specs.Hooks{}
	}
	if err := firstRefused([]refuse{
		{"hooks.prestart", len(h.Prestart) != 0}, //nolint:staticcheck // the deprecated field is refused too
		{"hooks.createRuntime", len(h.CreateRuntime) != 0},
		{"hooks.createContainer", len(h.CreateContainer) != 0},
		{"hooks.startContainer", len(h.StartContainer) != 0},
		{"hooks.poststart", len(h.Poststart) != 0},
		{"hooks.poststop", len(h.Poststop) != 0},
		{"vm", spec.VM != nil},
		{"windows", spec.Windows != nil},
		{"solaris", spec.Solaris != nil},
		{"zos", spec.ZOS != nil},
		{"freebsd", spec.FreeBSD != nil},
		{"linux.uidMappings", len(l.UIDMappings) != 0},
		{"linux.gidMappings", len(l.GIDMappings) != 0},
		{"linux.mountLabel", l.MountLabel != ""},
		{"linux.intelRdt", l.IntelRdt != nil},
		{"linux.memoryPolicy", l.MemoryPolicy != nil},
		{"linux.netDevices", len(l.NetDevices) != 0},
		{"linux.timeOffsets", len(l.TimeOffsets) != 0},
	}); err != nil {
		return err
	}
	return refuseProcess(spec.Process)
}

func refuseProcess(p *specs.Process) error {
	return firstRefused([]refuse{
		{"process.commandLine", p.CommandLine != ""},
		{"process.apparmorProfile", p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined"},
		{"process.selinuxLabel", p.SelinuxLabel != ""},
		{"process.scheduler", p.Scheduler != nil},
		{"process.ioPriority", p.IOPriority != nil},
		{"process.execCPUAffinity", p.ExecCPUAffinity != nil},
		{"process.user.username", p.User.Username != ""},
	})
}
