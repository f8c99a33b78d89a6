package oci

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/defaults"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/plan"
)

// spec writes a config.json to start from: Docker's default container with a shell on a terminal.
func spec(g *global, flags *flag.FlagSet, args []string) (int, error) {
	var o options
	bundleFlag(flags, &o)
	rootless := flags.Bool("rootless", false, "for a user without privileges: a user namespace with that user as root")
	if err := parse(flags, args, 0, 0); err != nil {
		return 1, err
	}
	s := defaults.Spec()
	s.Process.Args, s.Process.Terminal = []string{"sh"}, true
	s.Process.Env = append(s.Process.Env, "TERM=xterm")
	s.Process.NoNewPrivileges = true
	s.Root.Readonly = true
	s.Hostname = "tare"
	if *rootless {
		withoutPrivileges(s)
	}
	file := filepath.Join(o.bundle, specFile)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return 1, fault.Conflict("File %s exists. Remove it first", file)
	}
	if err != nil {
		return 1, fault.Invalid("cannot write the spec: %w", err)
	}
	return 0, errors.Join(printJSON(f, s), f.Close())
}

// withoutPrivileges changes a spec into one that a user can run who is nobody special.
func withoutPrivileges(s *specs.Spec) {
	l := s.Linux
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace || n.Type == specs.UserNamespace
	})
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	l.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	var mounts []specs.Mount
	for _, m := range s.Mounts {
		switch {
		case m.Destination == "/sys": // one of its own needs a network namespace of its own
			mounts = append(mounts, specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}})
			continue
		case strings.HasPrefix(m.Destination, "/sys/fs/cgroup"):
			continue // in the bind of /sys
		}
		// Groups besides its own are not there.
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "gid=") || strings.HasPrefix(o, "uid=") })
		mounts = append(mounts, m)
	}
	s.Mounts, l.Resources = mounts, nil
}

// showPlan prints what starting a bundle would do on this machine, and does nothing.
func showPlan(g *global, flags *flag.FlagSet, args []string) (int, error) {
	if err := parse(flags, args, 1, 1); err != nil {
		return 1, err
	}
	s, err := runtime.LoadBundle(flags.Arg(0))
	if err != nil {
		return 1, err
	}
	if err := g.check(s, "ID"); err != nil {
		return 1, err
	}
	host, err := launch.Host()
	if err != nil {
		return 1, err
	}
	p, err := plan.CompileWith(s, nil, host, plan.Options{Runtime: true})
	if err != nil {
		return 1, err
	}
	by, why := launch.Executor(p)
	if why != "" {
		why = ", because of: " + why
	}
	_, err = fmt.Fprintf(g.stdout, "executed by the %s%s\n%s", by, why, p)
	return 0, err
}
