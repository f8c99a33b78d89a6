// Package calls runs lists of system calls in a process that has no other code.
//
//	program    calls in a row, with the data that they point to; made here, pure
//	call       a system call's number and arguments; where its result goes; what follows an error
//	slot       eight bytes of the data that a call's result is stored in and another's argument is loaded from
//	image      an executable of one page: the interpreter of programs, the same for all of them
//
// A child executes the image with a program on descriptor ProgramFD. The image maps it at a fixed
// address, so that the program's pointers are right as they are, and works through the calls. It has no
// stack to speak of, no heap, no handlers and no other code, and shares no memory with its parent.
//
//	ProgramFD, mapped privately at base:
//	┌────────┬─────────────────────────┬────────────────────────────┐
//	│ header │ data: strings, structs, │ calls, callSize bytes each │
//	│        │ slots                   │                            │
//	└────────┴─────────────────────────┴────────────────────────────┘
//
// A call that fails goes on where it says for that errno; without a word on it, the place
// in the caller's terms (At) and the errno are written to the header and the program goes on at Failed.
package calls

import (
	"encoding/binary"
	"errors"
)

// ProgramFD is the descriptor that the image reads its program from.
const ProgramFD = 4

// The header's fields, by their offset; the assembly knows them too. Numbers are little-endian.
const (
	base       = 0x10000000
	offFail    = 7  // a byte, then At and errno as uint32: a message of FailureSize bytes
	offAt      = 8  // uint32
	offErrno   = 12 // uint32
	offFailed  = 16 // index of the call that follows a failure
	offCalls   = 24 // address of the first call
	offExec    = 39 // a byte, then the errno of the last call that failed as uint32: a message of ErrnoSize bytes
	offLast    = 40 // uint64
	headerSize = 64
	callSize   = 96
)

// Messages that a program may send from its header.
const (
	Failure     = base + offFail
	FailureSize = 9
	Errno       = base + offExec
	ErrnoSize   = 5
	LastErrno   = base + offLast // slot: errno of the last call that failed
)

// Acts of the interpreter that are no system calls.
const (
	Test  = 0x1000 // Args: address, mask, value, Label: goes to the label unless the 8 bytes there, masked, are value
	Home  = 0x1001 // Args: text of an /etc/passwd, its length, uid in digits with a zero byte, place for the home directory and a zero byte, its size
	Set   = 0x1002 // Args: value, address: stores 8 bytes
	Fail  = 0x1003 // Args: errno: fails with it
	Octal = 0x1004 // Args: value, address, n: writes n octal digits
)

// Any stands for every errno in On.
const Any = 0xffff

// Arg is an argument: a number or an address, or what a slot holds at that time.
type Arg struct {
	value uint64
	kind  argKind
}

type argKind uint8

const (
	number argKind = iota
	slot
	label
)

// V is a number or an address.
func V[T ~int | ~uint32 | ~uint64 | ~uintptr](v T) Arg { return Arg{value: uint64(v)} }

// Slot is what the slot at that address holds.
func Slot(address uint64) Arg { return Arg{value: address, kind: slot} }

// To is the place that a Test goes to.
func To(l Label) Arg { return Arg{value: uint64(l), kind: label} }

// Label is a place in the program; see Here. The zero Label is the next call.
type Label int

// On says where to go on after an errno.
type On struct {
	Errno uint16 // or Any
	To    Label
}

// MaxOn is how many errnos a call may speak of.
const MaxOn = 4

// Call is one system call, or one act of the interpreter.
type Call struct {
	Number uint64
	Args   [6]Arg
	Out    uint64 // address of the slot for its result; 0: none
	On     []On
	Next   Label
	At     uint32 // what the header's failure message will say
}

// Program is a program in the making. Use New.
type Program struct {
	data    []byte // from the header on
	strings map[string]uint64
	calls   []Call
	labels  []int // index of the call by Label-1; -1: not set
	failed  Label
}

// New returns an empty program. failure and errno are the bytes in front of the header's two messages.
func New(failure, errno byte) *Program {
	p := &Program{data: make([]byte, headerSize, 16<<10), strings: map[string]uint64{}, calls: make([]Call, 0, 512)}
	p.data[offFail], p.data[offExec] = failure, errno
	return p
}

// Call appends one; what is returned may be completed until the next.
func (p *Program) Call(number uintptr, args ...Arg) *Call {
	p.calls = append(p.calls, Call{Number: uint64(number)})
	c := &p.calls[len(p.calls)-1]
	copy(c.Args[:], args)
	return c
}

// Label makes a place that is set later.
func (p *Program) Label() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels))
}

// Here sets a label to the next call.
func (p *Program) Here(l Label) { p.labels[l-1] = len(p.calls) }

// Failed says where failures go on.
func (p *Program) Failed(l Label) { p.failed = l }

// Bytes puts b into the data, on a multiple of eight, and returns its address.
func (p *Program) Bytes(b []byte) uint64 {
	p.align()
	at := base + uint64(len(p.data))
	p.data = append(p.data, b...)
	return at
}

// Space is n zero bytes in the data.
func (p *Program) Space(n int) uint64 { return p.Bytes(make([]byte, n)) }

// Words are numbers of eight bytes in the data; one is a slot with a first value.
func (p *Program) Words(v ...uint64) uint64 {
	p.align()
	at := base + uint64(len(p.data))
	for _, n := range v {
		p.data = binary.LittleEndian.AppendUint64(p.data, n)
	}
	return at
}

func (p *Program) align() {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
}

// String is s with a zero byte; equal ones share a place.
func (p *Program) String(s string) uint64 {
	if at, ok := p.strings[s]; ok {
		return at
	}
	at := base + uint64(len(p.data))
	p.data = append(append(p.data, s...), 0)
	p.strings[s] = at
	return at
}

// Strings is an array of pointers to strings with a zero at its end, as execve(2) wants it.
func (p *Program) Strings(list []string, more ...uint64) uint64 {
	ptrs := make([]uint64, 0, len(list)+len(more)+1)
	for _, s := range list {
		ptrs = append(ptrs, p.String(s))
	}
	return p.Words(append(append(ptrs, more...), 0)...)
}

// ErrTooLarge says that a program has more calls than it can number.
var ErrTooLarge = errors.New("too many system calls for one program")

// Marshal is what has to be on ProgramFD.
func (p *Program) Marshal() ([]byte, error) {
	if len(p.calls) >= Any {
		return nil, ErrTooLarge
	}
	p.align()
	b := make([]byte, len(p.data), len(p.data)+len(p.calls)*callSize)
	copy(b, p.data)
	le := binary.LittleEndian
	le.PutUint64(b[offCalls:], base+uint64(len(b)))
	le.PutUint64(b[offFailed:], uint64(p.index(p.failed, 0)))
	for i := range p.calls {
		b = p.append(b, i)
	}
	return b, nil
}

func (p *Program) index(l Label, otherwise int) int {
	if l == 0 {
		return otherwise
	}
	at := p.labels[l-1]
	if at < 0 {
		panic("calls: a label was not set")
	}
	return at
}

func (p *Program) append(b []byte, i int) []byte {
	c, le := &p.calls[i], binary.LittleEndian
	b = le.AppendUint64(b, c.Number)
	slots := uint64(0)
	for n := range 6 {
		v := c.Args[n].value
		switch c.Args[n].kind {
		case slot:
			slots |= 1 << n
		case label:
			v = uint64(p.index(Label(v), 0))
		}
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint64(b, slots)
	b = le.AppendUint64(b, c.Out)
	if len(c.On) > MaxOn {
		panic("calls: too many errnos")
	}
	for n := range MaxOn {
		var on, to uint16
		if n < len(c.On) {
			on, to = c.On[n].Errno, uint16(p.index(c.On[n].To, i+1))
		}
		b = le.AppendUint16(le.AppendUint16(b, on), to)
	}
	b = le.AppendUint32(b, uint32(p.index(c.Next, i+1)))
	return le.AppendUint32(b, c.At)
}
