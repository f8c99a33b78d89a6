package cgroup

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Under v2 there is no devices controller: a BPF program of type CGROUP_DEVICE
// decides (Documentation/admin-guide/cgroup-v2.rst, "Device controller"). It gets
// a struct bpf_cgroup_dev_ctx: type and access in one word, major, minor.

// What is asked for, in the program's context (linux/bpf.h, BPF_DEVCG_ACC_…).
const (
	bpfMknod = 1
	bpfRead  = 2
	bpfWrite = 4

	bpfBlock = 1
	bpfChar  = 2
)

// bpfOp is one eBPF instruction's opcode (linux/bpf_common.h, linux/bpf.h).
const (
	bpfLoadWord = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	bpfMoveReg  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	bpfMoveImm  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	bpfAndImm   = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
	bpfShiftImm = unix.BPF_ALU64 | unix.BPF_RSH | unix.BPF_K
	bpfIfEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfIfNot    = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	bpfExit     = unix.BPF_JMP | unix.BPF_EXIT
)

// Registers of the program: 2 holds the access that no rule has granted yet.
const (
	regResult, regContext, regWant, regType, regMajor, regMinor, regScratch = 0, 1, 2, 3, 4, 5, 6
)

type bpfProgram []byte

func (p *bpfProgram) add(op, dst, src byte, off int16, imm int32) {
	*p = append(*p, op, src<<4|dst)
	*p = binary.LittleEndian.AppendUint16(*p, uint16(off))
	*p = binary.LittleEndian.AppendUint32(*p, uint32(imm))
}

func (p *bpfProgram) answer(yes int32) {
	p.add(bpfMoveImm, regResult, 0, 0, yes)
	p.add(bpfExit, 0, 0, 0, 0)
}

// deviceProgram asks the rules from the last to the first: one that allows takes
// its share off what is wanted, one that forbids any of the rest ends it. What no rule speaks of is allowed, as under v1.
func deviceProgram(rules []specs.LinuxDeviceCgroup) (bpfProgram, error) {
	var p bpfProgram
	p.add(bpfLoadWord, regType, regContext, 0, 0)
	p.add(bpfMoveReg, regWant, regType, 0, 0)
	p.add(bpfAndImm, regType, 0, 0, 0xffff)
	p.add(bpfShiftImm, regWant, 0, 0, 16)
	p.add(bpfLoadWord, regMajor, regContext, 4, 0)
	p.add(bpfLoadWord, regMinor, regContext, 8, 0)
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if _, err := deviceRule(r); err != nil {
			return nil, err
		}
		access := int32(0)
		for _, a := range orAll(r.Access) {
			access |= map[rune]int32{'m': bpfMknod, 'r': bpfRead, 'w': bpfWrite}[a]
		}
		var body bpfProgram
		if r.Allow {
			body.add(bpfAndImm, regWant, 0, 0, ^access)
			body.add(bpfIfNot, regWant, 0, 2, 0)
			body.answer(1)
		} else {
			body.add(bpfMoveReg, regScratch, regWant, 0, 0)
			body.add(bpfAndImm, regScratch, 0, 0, access)
			body.add(bpfIfEqual, regScratch, 0, 2, 0)
			body.answer(0)
		}
		skip := int16(len(body) / 8)
		type test struct {
			reg  byte
			want int32
		}
		var tests []test
		switch r.Type {
		case "b":
			tests = append(tests, test{regType, bpfBlock})
		case "c", "u":
			tests = append(tests, test{regType, bpfChar})
		}
		if r.Major != nil && *r.Major >= 0 {
			tests = append(tests, test{regMajor, int32(*r.Major)})
		}
		if r.Minor != nil && *r.Minor >= 0 {
			tests = append(tests, test{regMinor, int32(*r.Minor)})
		}
		for j, t := range tests {
			p.add(bpfIfNot, t.reg, 0, skip+int16(len(tests)-1-j), t.want)
		}
		p = append(p, body...)
	}
	p.answer(1)
	return p, nil
}

func orAll(access string) string {
	if access == "" {
		return "rwm"
	}
	return access
}

// devicesName is what the program is called in the kernel, by which a later one finds what it replaces.
const devicesName = "tare_devices"

// devicesV2 attaches the rules' program to the group; it goes away with the group. One that was
// attached before is exchanged for it in one step.
func devicesV2(dir string, rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	prog, err := deviceProgram(withEveryContainers(rules))
	if err != nil {
		return err
	}
	cg, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Internal("cannot open cgroup %s: %w", dir, err)
	}
	defer unix.Close(cg)
	license := []byte("Apache\x00")
	var pin runtime.Pinner // what is handed over as a number must not move
	defer pin.Unpin()
	pin.Pin(&prog[0])
	pin.Pin(&license[0])
	// The start of union bpf_attr for BPF_PROG_LOAD.
	load := struct {
		kind, count    uint32
		insns, license uint64
		logLevel       uint32
		logSize        uint32
		log            uint64
		kernel, flags  uint32
		name           [16]byte
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog) / 8),
		insns: uint64(uintptr(unsafe.Pointer(&prog[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	copy(load.name[:], devicesName)
	fd, errno := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	if errno != 0 {
		return fault.Internal("cannot load the device rules of cgroup %s: %w", dir, errno)
	}
	defer unix.Close(fd)
	attach := struct{ target, prog, kind, flags, replace uint32 }{uint32(cg), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
	old := attachedDevices(cg)
	for i, o := range old {
		defer unix.Close(o)
		if i == 0 {
			attach.flags, attach.replace = unix.BPF_F_ALLOW_MULTI|unix.BPF_F_REPLACE, uint32(o)
		}
	}
	if _, errno := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); errno != 0 {
		return fault.Internal("cannot attach the device rules of cgroup %s: %w", dir, errno)
	}
	for _, o := range old[min(1, len(old)):] { // none, but for two writers at once
		detach := struct{ target, prog, kind uint32 }{uint32(cg), uint32(o), unix.BPF_CGROUP_DEVICE}
		_, _ = bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&detach), unsafe.Sizeof(detach))
	}
	return nil
}

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, unix.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
	return int(r), errno
}

// attachedDevices are our programs on the group, as descriptors; others' (systemd's) are left alone: all have to allow.
func attachedDevices(cg int) []int {
	ids := make([]uint32, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	query := struct {
		target, kind, flags, attachFlags uint32
		ids                              uint64
		count                            uint32
		_                                uint32
	}{target: uint32(cg), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	if _, errno := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&query), unsafe.Sizeof(query)); errno != 0 {
		return nil
	}
	var ours []int
	for _, id := range ids[:min(int(query.count), len(ids))] {
		get := struct{ id, next, flags uint32 }{id: id}
		fd, errno := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
		if errno != 0 {
			continue
		}
		if programName(fd) == devicesName {
			ours = append(ours, fd)
		} else {
			unix.Close(fd)
		}
	}
	return ours
}

// programName reads struct bpf_prog_info (linux/bpf.h), whose name is at byte 64.
func programName(fd int) string {
	info := make([]byte, 80)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info[0])
	get := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(&info[0])))}
	if _, errno := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&get), unsafe.Sizeof(get)); errno != 0 {
		return ""
	}
	return unix.ByteSliceToString(info[64:])
}
