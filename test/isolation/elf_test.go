package isolation

import (
	"bytes"
	"encoding/binary"
)

const loadAt = 0x400000

// le are the bytes of an immediate operand.
func le(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// program64 is a minimal ELF file that makes mkdir(path) by the given instructions, which get the path's
// address, and exits with the error's number.
func program64(path string, call func(path uint32) []byte) []byte {
	const header = 64 + 56
	exit := []byte{0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05} // neg eax; mov edi, eax; exit
	size := header + len(call(0)) + len(exit)
	code := append(call(uint32(loadAt+size)), exit...)
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	total := uint64(size + len(path) + 1)
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), uint64(loadAt + header), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(loadAt), uint64(loadAt), total, total, uint64(4096),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(code)
	b.WriteString(path + "\x00")
	return b.Bytes()
}

// program32 is the same as a 32-bit program.
func program32(path string) []byte {
	const header = 52 + 32
	code := func(at uint32) []byte {
		c := append([]byte{0xb8}, le(39)...)                         // mov eax, mkdir
		c = append(append(c, 0xbb), le(at)...)                       // mov ebx, path
		c = append(append(c, 0xb9), le(0o755)...)                    // mov ecx, mode
		c = append(c, 0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3)            // int 0x80; neg eax; mov ebx, eax
		return append(append(append(c, 0xb8), le(1)...), 0xcd, 0x80) // exit
	}
	size := header + len(code(0))
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	total := uint32(size + len(path) + 1)
	for _, v := range []any{
		uint16(2), uint16(3), uint32(1), uint32(loadAt + header), uint32(52), uint32(0), uint32(0), uint16(52), uint16(32), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(0), uint32(loadAt), uint32(loadAt), total, total, uint32(5), uint32(4096),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(code(uint32(loadAt + size)))
	b.WriteString(path + "\x00")
	return b.Bytes()
}

// byInt80 makes i386's mkdir from a 64-bit program.
func byInt80(path uint32) []byte {
	c := append([]byte{0xb8}, le(39)...)
	c = append(append(c, 0xbb), le(path)...)
	c = append(append(c, 0xb9), le(0o755)...)
	return append(c, 0xcd, 0x80)
}

// byX32 makes x32's mkdir.
func byX32(path uint32) []byte {
	c := append([]byte{0xb8}, le(0x40000000|83)...)
	c = append(append(c, 0xbf), le(path)...)
	c = append(append(c, 0xbe), le(0o755)...)
	return append(c, 0x0f, 0x05)
}

// byNative makes mkdir as every program does.
func byNative(path uint32) []byte {
	c := append([]byte{0xb8}, le(83)...)
	c = append(append(c, 0xbf), le(path)...)
	c = append(append(c, 0xbe), le(0o755)...)
	return append(c, 0x0f, 0x05)
}
