package seccomp

import (
	"encoding/binary"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Offsets in struct seccomp_data.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// section is one architecture's part of the filter.
type section struct {
	*arch
	spans []span
}

type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// assembler writes the program from its end to its start: jumps only go
// forward, so every target is known when the jump is written. A label is the
// number of instructions from the target to the end, target included.
type assembler struct {
	reversed []instruction
	returns  map[uint32]label // the latest return of each action
}

type label int

func (a *assembler) here() label { return label(len(a.reversed)) }

func (a *assembler) emit(code uint16, jt, jf uint8, k uint32) label {
	a.reversed = append(a.reversed, instruction{code, jt, jf, k})
	return a.here()
}

// far is the distance that a jump emitted next would have to skip.
func (a *assembler) far(to label) int { return int(a.here() - to) }

// ret is a return of that action that a jump emitted soon can reach.
func (a *assembler) ret(act uint32) label {
	if l, ok := a.returns[act]; ok && a.far(l) < 200 {
		return l
	}
	l := a.emit(unix.BPF_RET|unix.BPF_K, 0, 0, act)
	a.returns[act] = l
	return l
}

// jump emits a conditional jump; conditional jumps reach 255 instructions, so a far target gets an unconditional one in between.
func (a *assembler) jump(cond uint16, k uint32, yes, no label) label {
	if a.far(no) > 254 {
		no = a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(a.far(no)))
	}
	if a.far(yes) > 255 {
		yes = a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(a.far(yes)))
	}
	return a.emit(unix.BPF_JMP|cond|unix.BPF_K, uint8(a.far(yes)), uint8(a.far(no)), k)
}

// goes emits an unconditional jump unless the target is next.
func (a *assembler) goes(to label) label {
	if a.far(to) == 0 {
		return to
	}
	return a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(a.far(to)))
}

func (a *assembler) load(offset uint32) label {
	return a.emit(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset)
}

// search is a binary search for the accumulator among spans.
func (a *assembler) search(spans []span) label {
	if len(spans) == 1 {
		return a.decide(&spans[0].decision)
	}
	mid := len(spans) / 2
	high := a.search(spans[mid:])
	low := a.search(spans[:mid])
	return a.jump(unix.BPF_JGE, spans[mid].first, high, low)
}

func (a *assembler) decide(d *decision) label {
	if len(d.branches) == 0 {
		return a.ret(d.action)
	}
	next := a.ret(d.action)
	for _, b := range slices.Backward(d.branches) {
		// Keep targets of the short jumps in a comparison near.
		yes := a.ret(b.action)
		for _, c := range slices.Backward(b.conditions) {
			yes = a.compare(c, yes, next)
		}
		next = yes
	}
	return next
}

// compare tests one 64-bit argument by its two halves.
func (a *assembler) compare(c condition, yes, no label) label {
	low := uint32(offsetArgs + 8*c.arg)
	high := low + 4
	vl, vh := uint32(c.value), uint32(c.value>>32)
	switch c.op {
	case specs.OpNotEqual:
		return a.compare(condition{c.arg, specs.OpEqualTo, c.value, 0}, no, yes)
	case specs.OpLessThan:
		return a.compare(condition{c.arg, specs.OpGreaterEqual, c.value, 0}, no, yes)
	case specs.OpLessEqual:
		return a.compare(condition{c.arg, specs.OpGreaterThan, c.value, 0}, no, yes)
	case specs.OpEqualTo:
		a.jump(unix.BPF_JEQ, vl, yes, no)
		lower := a.load(low)
		a.jump(unix.BPF_JEQ, vh, lower, no)
		return a.load(high)
	case specs.OpMaskedEqual: // value is the mask, two is compared
		a.jump(unix.BPF_JEQ, uint32(c.two), yes, no)
		a.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, vl)
		lower := a.load(low)
		a.jump(unix.BPF_JEQ, uint32(c.two>>32), lower, no)
		a.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, vh)
		return a.load(high)
	}
	cond := uint16(unix.BPF_JGT)
	if c.op == specs.OpGreaterEqual {
		cond = unix.BPF_JGE
	}
	a.jump(cond, vl, yes, no)
	lower := a.load(low)
	equal := a.jump(unix.BPF_JEQ, vh, lower, no)
	a.jump(unix.BPF_JGT, vh, yes, equal)
	return a.load(high)
}

func assemble(sections []section) ([]byte, error) {
	a := &assembler{returns: map[uint32]label{}}
	wrong := a.ret(retKillProcess)
	// next is where an unknown architecture goes on; sections follow in the order of the list.
	next := wrong
	var x32 *section
	for i := range sections {
		if sections[i].x32 {
			x32 = &sections[i]
		}
	}
	for _, s := range slices.Backward(sections) {
		if s.x32 {
			continue
		}
		if s.audit == unix.AUDIT_ARCH_X86_64 {
			above := a.ret(retKillProcess)
			if x32 != nil {
				a.goes(a.search(x32.spans))
				// The search compares plain numbers: take the bit off.
				above = a.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, x32Bit-1)
			}
			below := a.search(s.spans)
			a.jump(unix.BPF_JGE, x32Bit, above, below)
		} else {
			a.goes(a.search(s.spans))
		}
		entry := a.load(offsetNr)
		next = a.jump(unix.BPF_JEQ, s.audit, entry, next)
	}
	a.load(offsetArch)
	if len(a.reversed) > 4096 { // BPF_MAXINSNS
		return nil, fault.Invalid("the seccomp profile compiles to %d instructions; the kernel takes 4096", len(a.reversed))
	}
	code := make([]byte, 0, 8*len(a.reversed))
	for _, in := range slices.Backward(a.reversed) {
		code = binary.LittleEndian.AppendUint16(code, in.code)
		code = append(code, in.jt, in.jf)
		code = binary.LittleEndian.AppendUint32(code, in.k)
	}
	return code, nil
}
