package plan

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// compileKernel covers what lives in the kernel's namespaces rather than in files: names and sysctls.
func compileKernel(p *Plan, spec *specs.Spec, ns namespaces) error {
	if spec.Hostname != "" {
		if !ns.private(unix.CLONE_NEWUTS) {
			return fault.Invalid("hostname %s needs a uts namespace of the container's own", spec.Hostname)
		}
		p.add(Step{Op: OpHostname, Why: "hostname", Data: spec.Hostname})
	}
	if spec.Domainname != "" {
		if !ns.private(unix.CLONE_NEWUTS) {
			return fault.Invalid("domainname %s needs a uts namespace of the container's own", spec.Domainname)
		}
		p.add(Step{Op: OpDomainname, Why: "domainname", Data: spec.Domainname})
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Linux.Sysctl)) {
		file, err := sysctlFile(key, spec, ns)
		if err != nil {
			return err
		}
		p.add(Step{Op: OpSysctl, Why: "linux.sysctl " + key, Path: "/proc/sys/" + file, Data: spec.Linux.Sysctl[key]})
	}
	if err := compileMemoryPolicy(p, spec.Linux.MemoryPolicy); err != nil {
		return err
	}
	return compilePersonality(p, spec.Linux.Personality)
}

func compilePersonality(p *Plan, pers *specs.LinuxPersonality) error {
	if pers != nil {
		if len(pers.Flags) != 0 {
			return unsupported("linux.personality.flags")
		}
		domain := uint64(0)
		switch pers.Domain {
		case specs.PerLinux:
		case specs.PerLinux32:
			domain = 8 // PER_LINUX32, linux/personality.h
		default:
			return fault.Invalid("linux.personality.domain %s is unknown", pers.Domain)
		}
		p.add(Step{Op: OpPersonality, Why: "linux.personality", Flags: domain})
	}
	return nil
}

// ipcSysctls are the keys outside fs.mqueue. that belong to the ipc namespace (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// sysctlFile returns the file of a key below /proc/sys, and an error for a key
// that is not the container's own: it would change the host.
func sysctlFile(key string, spec *specs.Spec, ns namespaces) (string, error) {
	// A slash in a key stands for a dot in a name, and the other way round (sysctl(8)), if the first separator is a dot.
	file := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		file = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	for _, part := range strings.Split(file, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fault.Invalid("sysctl %q is not a key", key)
		}
	}
	dotted := strings.ReplaceAll(file, "/", ".")
	switch {
	case strings.HasPrefix(dotted, "net."):
		if ns.private(unix.CLONE_NEWNET) {
			return file, nil
		}
		return "", fault.Invalid("sysctl %q needs a network namespace of the container's own", key)
	case strings.HasPrefix(dotted, "fs.mqueue.") || slices.Contains(ipcSysctls, dotted):
		if ns.private(unix.CLONE_NEWIPC) {
			return file, nil
		}
		return "", fault.Invalid("sysctl %q needs an ipc namespace of the container's own", key)
	case dotted == "kernel.domainname":
		if ns.private(unix.CLONE_NEWUTS) {
			return file, nil
		}
		return "", fault.Invalid("sysctl %q needs a uts namespace of the container's own", key)
	case dotted == "kernel.hostname":
		return "", fault.Invalid("sysctl %q: use the hostname instead", key)
	}
	return "", fault.Invalid("sysctl %q is not in a separate kernel namespace", key)
}
