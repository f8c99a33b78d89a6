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

func refuseSpec(spec *specs.Spec, host Host) error {
	if spec.Linux == nil {
		return fault.Invalid("the spec has no linux section")
	}
	if spec.Process == nil {
		return fault.Invalid("the spec has no process")
	}
	if err := checkHooks(spec.Hooks); err != nil {
		return err
	}
	l := spec.Linux
	if err := firstRefused([]refuse{
		{"vm", spec.VM != nil},
		{"windows", spec.Windows != nil},
		{"solaris", spec.Solaris != nil},
		{"zos", spec.ZOS != nil},
		{"freebsd", spec.FreeBSD != nil},
		{"linux.intelRdt", l.IntelRdt != nil},
	}); err != nil {
		return err
	}
	if l.MountLabel != "" && !host.SELinux {
		return fault.Invalid("linux.mountLabel needs SELinux, which is not enabled on this machine")
	}
	if len(l.NetDevices) != 0 && !hasNamespace(spec, specs.NetworkNamespace) {
		return fault.Invalid("linux.netDevices need a network namespace of the container's own")
	}
	return refuseProcess(spec.Process, host)
}

func hasNamespace(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	for _, n := range spec.Linux.Namespaces {
		if n.Type == kind {
			return true
		}
	}
	return false
}

func refuseProcess(p *specs.Process, host Host) error {
	switch {
	case p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" && !host.AppArmor:
		return fault.Invalid("process.apparmorProfile %s needs AppArmor, which is not enabled on this machine", p.ApparmorProfile)
	case p.SelinuxLabel != "" && !host.SELinux:
		return fault.Invalid("process.selinuxLabel %s needs SELinux, which is not enabled on this machine", p.SelinuxLabel)
	}
	return firstRefused([]refuse{
		{"process.commandLine", p.CommandLine != ""},
		{"process.user.username", p.User.Username != ""},
	})
}
