package seccomp

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// arch is one system call table.
type arch struct {
	name    specs.Arch
	audit   uint32 // AUDIT_ARCH_… that seccomp_data carries
	x32     bool   // shares audit with x86-64; its numbers have x32Bit set
	numbers map[string]uint32
}

// x32Bit marks a system call of the x32 ABI (asm/unistd.h, __X32_SYSCALL_BIT).
const x32Bit = 0x40000000

var tables = sync.OnceValue(func() []*arch {
	amd64 := &arch{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, false, parse(amd64Calls, nil)}
	own := parse(x32Calls, nil)
	x32 := map[string]uint32{}
	for name, nr := range amd64.numbers {
		x32[name] = nr
	}
	for name, nr := range own {
		x32[name] = nr
	}
	return []*arch{
		amd64,
		{specs.ArchX32, unix.AUDIT_ARCH_X86_64, true, x32},
		{specs.ArchX86, unix.AUDIT_ARCH_I386, false, parse(i386Calls, nil)},
		{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, false, parse(arm64Calls, nil)},
	}
})

func parse(table string, into map[string]uint32) map[string]uint32 {
	if into == nil {
		into = make(map[string]uint32, 512)
	}
	nr := uint32(0)
	for word := range strings.FieldsSeq(table) {
		if word[0] <= '9' {
			n, _ := strconv.ParseUint(word, 10, 32)
			nr = uint32(n)
			continue
		}
		into[word] = nr
		nr++
	}
	return into
}

func native() specs.Arch {
	if runtime.GOARCH == "arm64" {
		return specs.ArchAARCH64
	}
	return specs.ArchX86_64
}

// known are the architectures of runtime-spec that can't run here: a profile may list them, no process has them.
var known = []specs.Arch{
	specs.ArchARM, specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
	specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

func architectures(names []specs.Arch) ([]*arch, error) {
	var list []*arch
	for _, a := range tables() {
		if a.name == native() || slices.Contains(names, a.name) {
			list = append(list, a)
		}
	}
	for _, n := range names {
		if !slices.Contains(known, n) && !slices.ContainsFunc(tables(), func(a *arch) bool { return a.name == n }) {
			return nil, fault.Invalid("linux.seccomp: architecture %q is unknown", n)
		}
	}
	return list, nil
}
