package oci

import (
	"encoding/json"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/runtime/cgroup"
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
	if int64(t) != v || t < 0 && v >= 0 || v < 0 && t > 0 {
		return strconv.ErrRange
	}
	*n.to = &t
	return nil
}

// size is a flag for an optional number of bytes: 512, 100k, 64MB, 1g, or -1 for no limit.
type size struct{ to **int64 }

func (z size) String() string { return "" }
func (z size) Set(s string) error {
	text, unit := strings.ToLower(strings.TrimSpace(s)), int64(1)
	text = strings.TrimSuffix(strings.TrimSuffix(text, "b"), "i")
	if i := strings.IndexByte("kmgtp", lastByte(text)); i >= 0 && text != "" {
		unit, text = 1<<(10*(i+1)), strings.TrimSpace(text[:len(text)-1])
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err == nil && (v < -1 || v > math.MaxInt64/unit) {
		err = strconv.ErrRange
	}
	if err != nil {
		return fault.Invalid("%q is no size", s)
	}
	if v > 0 {
		v *= unit
	}
	*z.to = &v
	return nil
}

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

func update(g *global, fs *flag.FlagSet, args []string) (int, error) {
	mem, cpu, pids, io := &specs.LinuxMemory{}, &specs.LinuxCPU{}, &specs.LinuxPids{}, &specs.LinuxBlockIO{}
	file := fs.String("resources", "", "file with OCI resources; - is stdin")
	fs.StringVar(file, "r", "", "short for --resources")
	fs.Var(size{&mem.Limit}, "memory", "limit of memory in bytes, or with k, m, g")
	fs.Var(size{&mem.Reservation}, "memory-reservation", "soft limit of memory in bytes")
	fs.Var(size{&mem.Swap}, "memory-swap", "limit of memory plus swap in bytes; -1 is no limit")
	fs.Var(size{&mem.KernelTCP}, "kernel-memory-tcp", "limit of the kernel's TCP buffers in bytes")
	kernel := fs.String("kernel-memory", "", "without effect: the kernel has it no more")
	fs.Var(number[uint64]{&cpu.Shares}, "cpu-share", "relative weight")
	fs.Var(number[int64]{&cpu.Quota}, "cpu-quota", "microseconds per period")
	fs.Var(number[uint64]{&cpu.Period}, "cpu-period", "microseconds")
	fs.Var(number[uint64]{&cpu.Burst}, "cpu-burst", "microseconds")
	fs.Var(number[int64]{&cpu.RealtimeRuntime}, "cpu-rt-runtime", "microseconds of realtime per period")
	fs.Var(number[uint64]{&cpu.RealtimePeriod}, "cpu-rt-period", "microseconds")
	fs.Var(number[int64]{&cpu.Idle}, "cpu-idle", "1: only when nobody else runs")
	fs.StringVar(&cpu.Cpus, "cpuset-cpus", "", "CPUs to use")
	fs.StringVar(&cpu.Mems, "cpuset-mems", "", "memory nodes to use")
	fs.Var(number[int64]{&pids.Limit}, "pids-limit", "number of processes")
	fs.Var(number[uint16]{&io.Weight}, "blkio-weight", "block I/O weight, 10 to 1000")
	l3 := fs.String("l3-cache-schema", "", "refused: this runtime has no resource director")
	bandwidth := fs.String("mem-bw-schema", "", "refused: this runtime has no resource director")
	if err := parse(fs, args, 1, 1); err != nil {
		return 1, err
	}
	if *l3+*bandwidth != "" {
		return 1, fault.Unsupported("--l3-cache-schema and --mem-bw-schema: linux.intelRdt is not supported by this runtime")
	}
	if *kernel != "" {
		g.warn("--kernel-memory has no effect: the kernel has no limit of its own memory any more")
	}
	r, dir, err := g.load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	if r.Status == specs.StateStopped {
		return 1, fault.Conflict("container %s has stopped", r.ID)
	}
	group, err := cgroup.Open(r.Cgroup)
	if err != nil {
		return 1, err
	}
	res := &specs.LinuxResources{Memory: mem, CPU: cpu, Pids: pids, BlockIO: io}
	if *file != "" {
		res = &specs.LinuxResources{}
		if err := readResources(g, *file, res); err != nil {
			return 1, err
		}
	}
	if err := group.Set(res); err != nil {
		return 1, err
	}
	return 0, r.keep(dir, res)
}

// keep writes the new limits into the kept spec, for what comes to the container later.
func (r *record) keep(dir string, res *specs.LinuxResources) error {
	s, err := r.spec(dir)
	if err != nil {
		return err
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	// Fields that are not given are left out of the text, so they keep what they were.
	b, err := json.Marshal(res)
	if err == nil {
		err = json.Unmarshal(b, s.Linux.Resources)
	}
	if err == nil {
		err = files.WriteJSON(filepath.Join(dir, specFile), s, files.Fast)
	}
	if err != nil {
		return fault.Internal("cannot keep the limits of container %s: %w", r.ID, err)
	}
	return nil
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
