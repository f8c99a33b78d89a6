package seccomp

import (
	"encoding/binary"
	"runtime"

	"golang.org/x/sys/unix"
)

var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// Allows tells whether a compiled filter lets a system call of this program's own architecture
// pass. It knows the instructions that Compile makes; where it meets another one, the answer is no.
func Allows(code []byte, number uint32, args [6]uint64) bool {
	var data [64]byte // struct seccomp_data, seccomp(2)
	le := binary.LittleEndian
	le.PutUint32(data[0:], number)
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return false
	}
	le.PutUint32(data[4:], arch)
	for i, a := range args {
		le.PutUint64(data[16+8*i:], a)
	}
	a := uint32(0)
	for pc := 0; pc >= 0 && pc+8 <= len(code); {
		op, jt, jf, k := le.Uint16(code[pc:]), int(code[pc+2]), int(code[pc+3]), le.Uint32(code[pc+4:])
		pc += 8
		yes := false
		switch op {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if k > 60 {
				return false
			}
			a = le.Uint32(data[k:])
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= k
			continue
		case unix.BPF_RET | unix.BPF_K:
			return k == unix.SECCOMP_RET_ALLOW || k&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_LOG
		case unix.BPF_JMP | unix.BPF_JA:
			pc += 8 * int(k)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == k
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			yes = a > k
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= k
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			yes = a&k != 0
		default:
			return false
		}
		if yes {
			pc += 8 * jt
		} else {
			pc += 8 * jf
		}
	}
	return false
}
