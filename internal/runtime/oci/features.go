package oci

import (
	"encoding/json"
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
	e := json.NewEncoder(g.stdout)
	e.SetIndent("", "    ")
	return 0, e.Encode(ocifeatures.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  plan.MountOptions(),
		Linux: &ocifeatures.Linux{
			Namespaces:   plan.Namespaces(),
			Capabilities: plan.Capabilities(),
			Cgroup:       &ocifeatures.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp: &ocifeatures.Seccomp{
				Enabled: &yes, Actions: seccomp.Actions(), Operators: seccomp.Operators(), Archs: seccomp.Archs(),
				KnownFlags: seccomp.Flags(), SupportedFlags: seccomp.Flags(),
			},
			// Whether this runtime has it, not whether this machine does (features-linux.md).
			Apparmor:        &ocifeatures.Apparmor{Enabled: &yes},
			Selinux:         &ocifeatures.Selinux{Enabled: &yes},
			IntelRdt:        &ocifeatures.IntelRdt{Enabled: &no, Schemata: &no, Monitoring: &no},
			MemoryPolicy:    &ocifeatures.MemoryPolicy{Modes: plan.MemoryPolicyModes(), Flags: plan.MemoryPolicyFlags()},
			MountExtensions: &ocifeatures.MountExtensions{IDMap: &ocifeatures.IDMap{Enabled: &yes}},
			NetDevices:      &ocifeatures.NetDevices{Enabled: &yes},
		},
		PotentiallyUnsafeConfigAnnotations: []string{},
	})
}
