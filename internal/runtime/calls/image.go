//go:build amd64 || arm64

package calls

import (
	"bytes"
	"encoding/binary"
	"unsafe"
)

// Supported tells whether there is an interpreter for this processor.
const Supported = true

func interpreter() // never called
func address() uintptr

// codeEnd marks the end of the interpreter's code.
const codeEnd = "tare-endtare-end"

// maxCode bounds the search for codeEnd.
const maxCode = 4096

// Image is the executable: an ELF file with one segment that can't be written to (elf(5)).
func Image() []byte {
	at := address()
	text := unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), maxCode)
	code := text[:bytes.Index(text, []byte(codeEnd))]
	const (
		ehdr, phdr = 64, 56
		start      = ehdr + 2*phdr
		vaddr      = 0x400000
	)
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 15: 0}
	for _, v := range [...]uint16{2 /* ET_EXEC */, machine} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1)
	for _, v := range [...]uint64{vaddr + start, ehdr, 0} { // entry, program headers, section headers
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0)
	for _, v := range [...]uint16{ehdr, phdr, 2, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint64(start + len(code))
	for _, h := range [...][2]uint32{{1, 5}, {0x6474e551, 6}} { // PT_LOAD r-x, PT_GNU_STACK rw-
		b = le.AppendUint32(le.AppendUint32(b, h[0]), h[1])
		for _, v := range [...]uint64{0, vaddr, vaddr, size, size, 0x10000} {
			if h[0] != 1 {
				v = 0
			}
			b = le.AppendUint64(b, v)
		}
	}
	return append(b, code...)
}
