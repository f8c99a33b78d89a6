#include "textflag.h"

// The interpreter; see the package comment. It is never called here: its bytes
// become the image, whose first instruction is its first. Position-independent.
// Registers: R12 the call, R14 the first call, R15 the header.
TEXT ·interpreter(SB), NOSPLIT|NOFRAME, $0
	MOVQ $4, DI             // ProgramFD
	LEAQ -256(SP), SI
	MOVQ $5, AX             // fstat
	SYSCALL
	MOVQ -208(SP), SI       // st_size
	MOVQ $4, R8
	MOVQ $0x10000000, DI    // base
	MOVQ $3, DX             // PROT_READ|PROT_WRITE
	MOVQ $0x12, R10         // MAP_PRIVATE|MAP_FIXED
	XORQ R9, R9
	MOVQ $9, AX             // mmap
	SYSCALL
	CMPQ AX, DI
	JNE  dead
	MOVQ DI, R15
	MOVQ 24(R15), R14
	MOVQ R14, R12

call:
	MOVQ 0(R12), AX
	MOVQ 56(R12), R13
	MOVQ 8(R12), DI
	BTQ  $0, R13
	JCC  2(PC)
	MOVQ (DI), DI
	MOVQ 16(R12), SI
	BTQ  $1, R13
	JCC  2(PC)
	MOVQ (SI), SI
	MOVQ 24(R12), DX
	BTQ  $2, R13
	JCC  2(PC)
	MOVQ (DX), DX
	MOVQ 32(R12), R10
	BTQ  $3, R13
	JCC  2(PC)
	MOVQ (R10), R10
	MOVQ 40(R12), R8
	BTQ  $4, R13
	JCC  2(PC)
	MOVQ (R8), R8
	MOVQ 48(R12), R9
	BTQ  $5, R13
	JCC  2(PC)
	MOVQ (R9), R9
	CMPQ AX, $0x1000
	JCC  own
	SYSCALL
	CMPQ AX, $-4095
	JCC  error
	MOVQ 64(R12), BX
	TESTQ BX, BX
	JEQ  next
	MOVQ AX, (BX)

next:
	MOVL 88(R12), BX

go:
	IMUL3Q $96, BX, R12
	ADDQ R14, R12
	JMP  call

error:
	NEGQ AX
	CMPQ AX, $4             // EINTR
	JEQ  call

fail:
	MOVQ AX, 40(R15)
	LEAQ 72(R12), DX
	MOVQ $4, CX

handler:
	MOVWLZX 0(DX), SI
	MOVWLZX 2(DX), BX
	CMPL SI, AX
	JEQ  go
	CMPL SI, $0xffff
	JEQ  go
	ADDQ $4, DX
	DECQ CX
	JNE  handler
	MOVL 92(R12), BX
	MOVL BX, 8(R15)
	MOVL AX, 12(R15)
	MOVQ 16(R15), BX
	JMP  go

own:
	CMPQ AX, $0x1000
	JEQ  test
	CMPQ AX, $0x1001
	JEQ  home
	CMPQ AX, $0x1002
	JEQ  set
	CMPQ AX, $0x1004
	JEQ  octal
	MOVQ DI, AX
	JMP  fail

octal:                          // DI value, SI place, DX digits
	TESTQ DX, DX
	JEQ  next
	DECQ DX
	MOVQ DI, BX
	ANDL $7, BX
	ADDL $0x30, BX
	MOVB BX, (SI)(DX*1)
	SHRQ $3, DI
	JMP  octal

set:
	MOVQ DI, (SI)
	JMP  next

test:
	MOVQ (DI), AX
	ANDQ SI, AX
	CMPQ AX, DX
	JEQ  next
	MOVQ R10, BX
	JMP  go

home:                           // DI text, R11 its end, DX uid, R10 place, R8 its size
	MOVQ DI, R11
	ADDQ SI, R11

line:
	MOVQ $2, CX             // name and password

skip:
	CMPQ DI, R11
	JCC  next
	MOVBLZX (DI), BX
	INCQ DI
	CMPL BX, $10
	JEQ  line
	CMPL BX, $58            // colon
	JNE  skip
	DECQ CX
	JNE  skip
	MOVQ DX, SI

digit:
	CMPQ DI, R11
	JCC  next
	MOVBLZX (DI), BX
	MOVBLZX (SI), CX
	TESTL CX, CX
	JEQ  digits
	CMPL BX, CX
	JNE  rest
	INCQ DI
	INCQ SI
	JMP  digit

digits:
	CMPL BX, $58
	JEQ  found

rest:
	CMPQ DI, R11
	JCC  next
	MOVBLZX (DI), BX
	INCQ DI
	CMPL BX, $10
	JNE  rest
	JMP  line

found:
	INCQ DI
	MOVQ $2, CX             // group and comment

skip2:
	CMPQ DI, R11
	JCC  next
	MOVBLZX (DI), BX
	INCQ DI
	CMPL BX, $10
	JEQ  line
	CMPL BX, $58
	JNE  skip2
	DECQ CX
	JNE  skip2
	MOVQ R10, SI
	ADDQ R10, R8
	DECQ R8                 // the last byte is for the zero

copy:
	CMPQ DI, R11
	JCC  copied
	MOVBLZX (DI), BX
	CMPL BX, $10
	JEQ  copied
	CMPL BX, $58
	JEQ  copied
	CMPQ SI, R8
	JCC  long
	MOVB BX, (SI)
	INCQ DI
	INCQ SI
	JMP  copy

copied:
	CMPQ SI, R10
	JEQ  next               // empty: as if it were not there
	MOVB $0, (SI)
	JMP  next

long:
	MOVW $0x2f, (R10)       // "/"
	JMP  next

dead:
	MOVQ $125, DI
	MOVQ $231, AX           // exit_group
	SYSCALL
	UNDEF
	QUAD $0x646e652d65726174 // "tare-end": the end of the image's code
	QUAD $0x646e652d65726174

// func address() uintptr
TEXT ·address(SB), NOSPLIT, $0-8
	LEAQ ·interpreter(SB), AX
	MOVQ AX, ret+0(FP)
	RET
