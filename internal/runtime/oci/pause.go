package oci

import (
	"flag"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
)

func pause(g *global, fs *flag.FlagSet, args []string) (int, error) {
	r, group, err := g.loadGroup(fs, args)
	if err != nil {
		return 1, err
	}
	if r.Status != specs.StateRunning && r.Status != specs.StateCreated {
		return 1, fault.Conflict("container not running or created: %s", r.Status)
	}
	return 0, group.Freeze()
}

func resume(g *global, fs *flag.FlagSet, args []string) (int, error) {
	r, group, err := g.loadGroup(fs, args)
	if err != nil {
		return 1, err
	}
	if r.Status != specs.ContainerState(runtime.Paused) {
		return 1, fault.Conflict("container not paused")
	}
	return 0, group.Thaw()
}

func (g *global) loadGroup(fs *flag.FlagSet, args []string) (*record, *cgroup.Group, error) {
	if err := parse(fs, args, 1, 1); err != nil {
		return nil, nil, err
	}
	r, _, err := g.load(fs.Arg(0))
	if err != nil {
		return nil, nil, err
	}
	group, err := cgroup.Open(r.Cgroup)
	return r, group, err
}
