#include "textflag.h"

// The interpreter; see image_amd64.s, whose labels it shares.
// Registers: R20 the call, R21 the first call, R22 the header.
TEXT ·interpreter(SB), NOSPLIT|NOFRAME, $0
	MOVD $4, R0             // ProgramFD
	SUB  $256, RSP, R1
	MOVD R1, R23
	MOVD $80, R8            // fstat
	SVC
	MOVD 48(R23), R1        // st_size
	MOVD $0x10000000, R0    // base
	MOVD $3, R2             // PROT_READ|PROT_WRITE
	MOVD $0x12, R3          // MAP_PRIVATE|MAP_FIXED
	MOVD $4, R4
	MOVD $0, R5
	MOVD $222, R8           // mmap
	SVC
	MOVD $0x10000000, R22
	CMP  R22, R0
	BNE  dead
	MOVD 24(R22), R21
	MOVD R21, R20

call:
	MOVD 0(R20), R8
	MOVD 56(R20), R19
	MOVD 8(R20), R0
	TBZ  $0, R19, 2(PC)
	MOVD (R0), R0
	MOVD 16(R20), R1
	TBZ  $1, R19, 2(PC)
	MOVD (R1), R1
	MOVD 24(R20), R2
	TBZ  $2, R19, 2(PC)
	MOVD (R2), R2
	MOVD 32(R20), R3
	TBZ  $3, R19, 2(PC)
	MOVD (R3), R3
	MOVD 40(R20), R4
	TBZ  $4, R19, 2(PC)
	MOVD (R4), R4
	MOVD 48(R20), R5
	TBZ  $5, R19, 2(PC)
	MOVD (R5), R5
	MOVD $0x1000, R9
	CMP  R9, R8
	BHS  own
	SVC
	CMN  $4095, R0
	BHS  error
	MOVD 64(R20), R9
	CBZ  R9, next
	MOVD R0, (R9)

next:
	MOVWU 88(R20), R9

go:
	MOVD $96, R10
	MADD R10, R21, R9, R20  // R20 = R21 + R9*R10
	B    call

error:
	NEG  R0, R0
	CMP  $4, R0             // EINTR
	BEQ  call

fail:
	MOVD R0, 40(R22)
	ADD  $72, R20, R11
	MOVD $4, R12
	MOVD $0xffff, R14

handler:
	MOVHU 0(R11), R13
	MOVHU 2(R11), R9
	CMPW R13, R0
	BEQ  go
	CMPW R13, R14
	BEQ  go
	ADD  $4, R11, R11
	SUB  $1, R12, R12
	CBNZ R12, handler
	MOVWU 92(R20), R9
	MOVW R9, 8(R22)
	MOVW R0, 12(R22)
	MOVD 16(R22), R9
	B    go

own:
	CMP  R9, R8             // R9 is Test's number
	BEQ  test
	ADD  $1, R9, R9
	CMP  R9, R8
	BEQ  home
	ADD  $1, R9, R9
	CMP  R9, R8
	BEQ  set
	ADD  $2, R9, R9
	CMP  R9, R8
	BEQ  octal
	B    fail               // the errno is in R0

octal:                          // R0 value, R1 place, R2 digits
	CBZ  R2, next
	SUB  $1, R2, R2
	AND  $7, R0, R9
	ADD  $0x30, R9, R9
	ADD  R1, R2, R10
	MOVB R9, (R10)
	LSR  $3, R0, R0
	B    octal

set:
	MOVD R0, (R1)
	B    next

test:
	MOVD (R0), R10
	AND  R1, R10, R10
	CMP  R2, R10
	BEQ  next
	MOVD R3, R9
	B    go

home:                           // R0 text, R6 its end, R2 uid, R3 place, R4 its size
	ADD  R0, R1, R6

line:
	MOVD $2, R7

skip:
	CMP  R6, R0
	BHS  next
	MOVBU (R0), R9
	ADD  $1, R0, R0
	CMPW $10, R9
	BEQ  line
	CMPW $58, R9
	BNE  skip
	SUB  $1, R7, R7
	CBNZ R7, skip
	MOVD R2, R1

digit:
	CMP  R6, R0
	BHS  next
	MOVBU (R0), R9
	MOVBU (R1), R10
	CBZ  R10, digits
	CMPW R10, R9
	BNE  rest
	ADD  $1, R0, R0
	ADD  $1, R1, R1
	B    digit

digits:
	CMPW $58, R9
	BEQ  found

rest:
	CMP  R6, R0
	BHS  next
	MOVBU (R0), R9
	ADD  $1, R0, R0
	CMPW $10, R9
	BNE  rest
	B    line

found:
	ADD  $1, R0, R0
	MOVD $2, R7

skip2:
	CMP  R6, R0
	BHS  next
	MOVBU (R0), R9
	ADD  $1, R0, R0
	CMPW $10, R9
	BEQ  line
	CMPW $58, R9
	BNE  skip2
	SUB  $1, R7, R7
	CBNZ R7, skip2
	MOVD R3, R1
	ADD  R3, R4, R4
	SUB  $1, R4, R4         // the last byte is for the zero

copy:
	CMP  R6, R0
	BHS  copied
	MOVBU (R0), R9
	CMPW $10, R9
	BEQ  copied
	CMPW $58, R9
	BEQ  copied
	CMP  R4, R1
	BHS  long
	MOVB R9, (R1)
	ADD  $1, R0, R0
	ADD  $1, R1, R1
	B    copy

copied:
	CMP  R3, R1
	BEQ  next
	MOVB ZR, (R1)
	B    next

long:
	MOVD $0x2f, R9          // "/"
	MOVH R9, (R3)
	B    next

dead:
	MOVD $125, R0
	MOVD $94, R8            // exit_group
	SVC
	UNDEF
	WORD $0x65726174        // "tare-end": the end of the image's code
	WORD $0x646e652d
	WORD $0x65726174
	WORD $0x646e652d

// func address() uintptr
TEXT ·address(SB), NOSPLIT, $0-8
	MOVD $·interpreter(SB), R0
	MOVD R0, ret+0(FP)
	RET
