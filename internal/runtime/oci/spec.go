package oci

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"

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
	refuse := refused(flags, "rootless")
	if err := parse(flags, args, 0, 0); err != nil {
		return 1, err
	}
	if err := refuse(); err != nil {
		return 1, err
	}
	s := defaults.Spec()
	s.Process.Args, s.Process.Terminal = []string{"sh"}, true
	s.Process.Env = append(s.Process.Env, "TERM=xterm")
	s.Process.NoNewPrivileges = true
	s.Root.Readonly = true
	s.Hostname = "tare"
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

// showPlan prints what starting a bundle would do on this machine, and does nothing.
func showPlan(g *global, flags *flag.FlagSet, args []string) (int, error) {
	if err := parse(flags, args, 1, 1); err != nil {
		return 1, err
	}
	s, err := runtime.LoadBundle(flags.Arg(0))
	if err != nil {
		return 1, err
	}
	if s.Linux != nil && s.Linux.CgroupsPath == "" {
		s.Linux.CgroupsPath = "/ID"
	}
	host, err := launch.Host()
	if err != nil {
		return 1, err
	}
	p, err := plan.Compile(s, nil, host)
	if err != nil {
		return 1, err
	}
	_, err = g.stdout.Write([]byte(p.String()))
	return 0, err
}
