package oci

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// number is a flag for an optional integer.
type number[T int64 | uint64 | uint16] struct{ to **T }

func (n number[T]) String() string { return "" }
func (n number[T]) Set(s string) error {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return err
	}
	t := T(v)
	if int64(t) != v {
		return strconv.ErrRange
	}
	*n.to = &t
	return nil
}

func update(g *global, fs *flag.FlagSet, args []string) (int, error) {
	mem, cpu, pids, io := &specs.LinuxMemory{}, &specs.LinuxCPU{}, &specs.LinuxPids{}, &specs.LinuxBlockIO{}
	file := fs.String("resources", "", "file with OCI resources; - is stdin")
	fs.StringVar(file, "r", "", "short for --resources")
	fs.Var(number[int64]{&mem.Limit}, "memory", "limit of memory in bytes")
	fs.Var(number[int64]{&mem.Reservation}, "memory-reservation", "soft limit of memory in bytes")
	fs.Var(number[int64]{&mem.Swap}, "memory-swap", "limit of memory plus swap in bytes")
	fs.Var(number[uint64]{&cpu.Shares}, "cpu-share", "relative weight")
	fs.Var(number[int64]{&cpu.Quota}, "cpu-quota", "microseconds per period")
	fs.Var(number[uint64]{&cpu.Period}, "cpu-period", "microseconds")
	fs.Var(number[uint64]{&cpu.Burst}, "cpu-burst", "microseconds")
	fs.StringVar(&cpu.Cpus, "cpuset-cpus", "", "CPUs to use")
	fs.StringVar(&cpu.Mems, "cpuset-mems", "", "memory nodes to use")
	fs.Var(number[int64]{&pids.Limit}, "pids-limit", "number of processes")
	fs.Var(number[uint16]{&io.Weight}, "blkio-weight", "block I/O weight, 10 to 1000")
	_, group, err := g.loadGroup(fs, args)
	if err != nil {
		return 1, err
	}
	r := &specs.LinuxResources{Memory: mem, CPU: cpu, Pids: pids, BlockIO: io}
	if *file != "" {
		r = &specs.LinuxResources{}
		if err := readResources(g, *file, r); err != nil {
			return 1, err
		}
	}
	return 0, group.Set(r)
}

func readResources(g *global, file string, r *specs.LinuxResources) error {
	in := g.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fault.Invalid("cannot read the resources: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(in)
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err != nil {
		return fault.Invalid("cannot read the resources: %w", err)
	}
	return nil
}
