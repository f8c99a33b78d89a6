package oci

import (
	"flag"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	ocifeatures "github.com/opencontainers/runtime-spec/specs-go/features"

	"tare/internal/runtime/plan"
	"tare/internal/runtime/seccomp"
)

// features prints what this runtime can do (runtime-spec, features.md).
func features(g *global, fs *flag.FlagSet, args []string) (int, error) {
	if err := parse(fs, args, 0, 0); err != nil {
		return 1, err
	}
	yes, no := true, false
	return 0, printJSON(g.stdout, ocifeatures.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{},
		MountOptions:  plan.MountOptions(),
		Linux: &ocifeatures.Linux{
			Namespaces:   plan.Namespaces(),
			Capabilities: plan.Capabilities(),
			Cgroup:       &ocifeatures.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &no},
			Seccomp: &ocifeatures.Seccomp{
				Enabled: &yes, Actions: seccomp.Actions(), Operators: seccomp.Operators(), Archs: seccomp.Archs(),
				KnownFlags: seccomp.Flags(), SupportedFlags: seccomp.Flags(),
			},
			Apparmor:        &ocifeatures.Apparmor{Enabled: &no},
			Selinux:         &ocifeatures.Selinux{Enabled: &no},
			IntelRdt:        &ocifeatures.IntelRdt{Enabled: &no},
			MountExtensions: &ocifeatures.MountExtensions{IDMap: &ocifeatures.IDMap{Enabled: &no}},
		},
	})
}
