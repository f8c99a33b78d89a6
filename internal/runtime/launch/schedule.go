package launch

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// schedule sets what sched_setattr(2) takes, for the calling thread.
func schedule(num []uint64) error {
	attr := unix.SchedAttr{
		Policy: uint32(num[0]), Flags: num[1], Nice: int32(num[2]), Priority: uint32(num[3]), Runtime: num[4], Deadline: num[5], Period: num[6],
	}
	attr.Size = uint32(unsafe.Sizeof(attr))
	return unix.SchedSetAttr(0, &attr, 0)
}

// memoryPolicy is set_mempolicy(2): where the kernel takes the memory of this thread, and of its children.
func memoryPolicy(st *plan.Step) error {
	var mask unsafe.Pointer
	if len(st.Num) != 0 {
		mask = unsafe.Pointer(&st.Num[0])
	}
	// The kernel looks at one bit less than it is told.
	_, _, errno := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, uintptr(st.Flags), uintptr(mask), uintptr(64*len(st.Num)+1))
	if errno != 0 {
		return errno
	}
	return nil
}

// label tells a security module what the program's label is to be; it takes effect with the exec.
func label(file, value string) error {
	err := writeFile("/proc/thread-self/attr/"+file, value)
	if err == unix.ENOENT && file == "apparmor/exec" { // before Linux 5.1
		err = writeFile("/proc/thread-self/attr/exec", value)
	}
	return err
}
