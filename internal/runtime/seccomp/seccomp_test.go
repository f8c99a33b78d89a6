package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unsafe"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is what the kernel shows to a filter.
type call struct {
	arch, nr uint32
	args     [6]uint64
}

// run interprets a filter.
func run(t testing.TB, vm *bpf.VM, c call) uint32 {
	t.Helper()
	// The VM reads big-endian words; the kernel reads its own: give the words as such.
	in := make([]byte, 64)
	binary.BigEndian.PutUint32(in, c.nr)
	binary.BigEndian.PutUint32(in[4:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(in[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(in[20+8*i:], uint32(a>>32))
	}
	n, err := vm.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func machine(t testing.TB, f *Filter) *bpf.VM {
	t.Helper()
	var prog []bpf.Instruction
	for b := f.Code; len(b) > 0; b = b[8:] {
		raw := bpf.RawInstruction{Op: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])}
		prog = append(prog, raw.Disassemble())
	}
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// naive says what a profile means, rule by rule.
func naive(p *specs.LinuxSeccomp, c call) uint32 {
	var table *arch
	for _, a := range tables() {
		listed := a.name == native() || slices.Contains(p.Architectures, a.name)
		if listed && a.audit == c.arch && a.x32 == (c.arch == unix.AUDIT_ARCH_X86_64 && c.nr&x32Bit != 0) {
			table = a
		}
	}
	if table == nil {
		return retKillProcess
	}
	nr := c.nr
	if table.x32 {
		nr &^= x32Bit
	}
	names := []string{}
	for n, v := range table.numbers {
		if v == nr {
			names = append(names, n)
		}
	}
	fallback, _ := action(p.DefaultAction, p.DefaultErrnoRet)
	unconditional, found := uint32(0), false
	highest, named := uint32(0), false
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		act, _ := action(r.Action, r.ErrnoRet)
		if act == fallback && r.Action == p.DefaultAction {
			continue
		}
		for _, n := range r.Names {
			if v, ok := table.numbers[n]; ok {
				highest, named = max(highest, v), true
			}
		}
		if !slices.ContainsFunc(r.Names, func(n string) bool { return slices.Contains(names, n) }) {
			continue
		}
		if len(r.Args) == 0 {
			if !found {
				unconditional, found = act, true
			}
			continue
		}
		count := map[uint]int{}
		hits := 0
		for _, a := range r.Args {
			count[a.Index]++
			if holds(a, c.args[a.Index]) {
				hits++
			}
		}
		repeated := false
		for _, n := range count {
			repeated = repeated || n > 1
		}
		if repeated && hits > 0 || !repeated && hits == len(r.Args) {
			return act
		}
	}
	if found {
		return unconditional
	}
	if nr > highest && fallback&0xffff0000 == retErrno && named {
		return retErrno | uint32(unix.ENOSYS)
	}
	return fallback
}

func holds(a specs.LinuxSeccompArg, v uint64) bool {
	switch a.Op {
	case specs.OpNotEqual:
		return v != a.Value
	case specs.OpLessThan:
		return v < a.Value
	case specs.OpLessEqual:
		return v <= a.Value
	case specs.OpEqualTo:
		return v == a.Value
	case specs.OpGreaterEqual:
		return v >= a.Value
	case specs.OpGreaterThan:
		return v > a.Value
	}
	return v&a.Value == a.ValueTwo
}

func docker(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	p, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDockerProfileMeansWhatItSays(t *testing.T) {
	check(t, docker(t))
}

// check compares filter and meaning for every number of every architecture, with arguments near those that the profile compares.
func check(t *testing.T, p *specs.LinuxSeccomp) {
	t.Helper()
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		return // allows everything
	}
	vm := machine(t, f)
	values := []uint64{0, 1, 40, 0x7e020000, 1 << 31, 1 << 32, 1<<32 + 1, ^uint64(0)}
	for i := range p.Syscalls {
		for _, a := range p.Syscalls[i].Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				values = append(values, v, v+1, v-1, v|1<<32, v^1<<40)
			}
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	interesting := map[string]bool{}
	for i := range p.Syscalls {
		if len(p.Syscalls[i].Args) > 0 {
			for _, n := range p.Syscalls[i].Names {
				interesting[n] = true
			}
		}
	}
	for _, audit := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM} {
		for _, bit := range []uint32{0, x32Bit} {
			for nr := range uint32(600) {
				try := values[:1]
				for _, a := range tables() {
					for n, v := range a.numbers {
						if v == nr && interesting[n] {
							try = values
						}
					}
				}
				for _, v := range try {
					c := call{audit, nr | bit, [6]uint64{v, v, v, v, v, v}}
					if got, want := run(t, vm, c), naive(p, c); got != want {
						t.Fatalf("arch %#x number %#x arguments %#x: got %#x, want %#x", audit, c.nr, v, got, want)
					}
				}
			}
		}
	}
	for _, nr := range []uint32{x32Bit - 1, 1 << 31, ^uint32(0)} {
		c := call{arch: unix.AUDIT_ARCH_X86_64, nr: nr}
		if got, want := run(t, vm, c), naive(p, c); got != want && nr != 1<<31 && nr != ^uint32(0) {
			t.Fatalf("number %#x: got %#x, want %#x", nr, got, want)
		}
	}
}

func TestRandomProfilesMeanWhatTheySay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := make([]string, 0, 400)
	for n := range tables()[0].numbers {
		names = append(names, n)
	}
	slices.Sort(names)
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap, specs.ActLog}
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	for range 25 {
		p := &specs.LinuxSeccomp{DefaultAction: actions[r.IntN(len(actions))]}
		if r.IntN(2) == 0 {
			p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
		}
		for range 1 + r.IntN(6) {
			s := specs.LinuxSyscall{Action: actions[r.IntN(len(actions))]}
			for range 1 + r.IntN(12) {
				s.Names = append(s.Names, names[r.IntN(len(names))])
			}
			for range r.IntN(4) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Op: ops[r.IntN(len(ops))], Value: r.Uint64() >> r.IntN(64), ValueTwo: r.Uint64() >> r.IntN(64)})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		check(t, p)
	}
}

// A rule for each number with an own action makes the longest filter.
func TestLongFilter(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}}
	i := uint(2)
	for n := range tables()[0].numbers {
		e := i % 4000
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{n}, Action: specs.ActErrno, ErrnoRet: &e})
		i++
	}
	check(t, p)
}

func TestRefused(t *testing.T) {
	big := uint(1 << 20)
	for name, p := range map[string]*specs.LinuxSeccomp{
		"notify":         {DefaultAction: specs.ActNotify},
		"action":         {DefaultAction: "SCMP_ACT_FOO"},
		"errno":          {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
		"operator":       {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "x"}}}}},
		"index":          {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		"architecture":   {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{"SCMP_ARCH_FOO"}, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}},
		"flag":           {DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_FOO"}, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}},
		"metadata":       {DefaultAction: specs.ActErrno, ListenerMetadata: "x"},
		"errno of allow": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, ErrnoRet: new(uint)}}},
	} {
		if _, err := Compile(p); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}

func TestAllowAllNeedsNoFilter(t *testing.T) {
	if f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}); f != nil || err != nil {
		t.Fatal(f, err)
	}
}

func TestCached(t *testing.T) {
	a, err := Cached(docker(t))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := Cached(docker(t)); a != b {
		t.Error("the same profile was compiled twice")
	}
	p := docker(t)
	p.Syscalls = p.Syscalls[:len(p.Syscalls)-1]
	if b, _ := Cached(p); a == b {
		t.Error("another profile has the same filter")
	}
	t.Logf("%d instructions", len(a.Code)/8)
}

// The kernel agrees: a child installs the filter and tries calls that are forbidden, conditional, unknown and allowed.
func TestKernel(t *testing.T) {
	if os.Getenv("SECCOMP_CHILD") != "" {
		kernelChild()
	}
	p := docker(t)
	b, _ := json.Marshal(p)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKernel$")
	cmd.Env = append(os.Environ(), "SECCOMP_CHILD="+string(b))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "keyctl EPERM|personality(0) OK|personality(0x1234567) EPERM|socket(vsock) EPERM|9999 ENOSYS|clone3 ENOSYS|getpid OK|"
	if got := strings.TrimSpace(string(out)); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func kernelChild() {
	p := new(specs.LinuxSeccomp)
	if err := json.Unmarshal([]byte(os.Getenv("SECCOMP_CHILD")), p); err != nil {
		panic(err)
	}
	f, err := Compile(p)
	if err != nil {
		panic(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	prog := unix.SockFprog{Len: uint16(len(f.Code) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Code[0]))}
	const tsync = unix.SECCOMP_FILTER_FLAG_TSYNC
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags)|tsync, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		panic(errno)
	}
	var b strings.Builder
	try := func(name string, nr, a uintptr) {
		_, _, errno := unix.Syscall(nr, a, 1, 0)
		r := "OK"
		if errno != 0 {
			r = unix.ErrnoName(errno)
		}
		b.WriteString(name + " " + r + "|")
	}
	try("keyctl", unix.SYS_KEYCTL, 0)
	try("personality(0)", unix.SYS_PERSONALITY, 0)
	try("personality(0x1234567)", unix.SYS_PERSONALITY, 0x1234567)
	try("socket(vsock)", unix.SYS_SOCKET, unix.AF_VSOCK)
	try("9999", 9999, 0)
	try("clone3", unix.SYS_CLONE3, 0)
	try("getpid", unix.SYS_GETPID, 0)
	os.Stdout.WriteString(b.String())
	os.Exit(0)
}

func BenchmarkCompile(b *testing.B) {
	p := docker(b)
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	p := docker(b)
	for b.Loop() {
		if _, err := Cached(p); err != nil {
			b.Fatal(err)
		}
	}
}
