package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probe is this program inside a container: it tells what a shell can't.
func probe(words []string) int {
	switch words[0] {
	case "scheduler": // policy nice priority
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(a.Policy, a.Nice, a.Priority)
	case "ioprio": // class level
		v, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
		if errno != 0 {
			fmt.Println(errno)
			return 1
		}
		fmt.Println(v>>13, v&0x1fff)
	case "mempolicy":
		var mode int32
		if _, _, errno := unix.RawSyscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), 0, 0, 0, 0, 0); errno != 0 {
			fmt.Println(errno)
			return 1
		}
		fmt.Println(mode)
	case "keyring":
		id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
		fmt.Println(id, err)
	case "personality":
		v, _, _ := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
		fmt.Printf("%#x\n", v)
	case "affinity":
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			fmt.Println(err)
			return 1
		}
		for i := range 64 {
			if set.IsSet(i) {
				fmt.Print(i, " ")
			}
		}
		fmt.Println()
	case "limits": // NAME=NUMBER…: soft and hard
		for _, w := range words[1:] {
			name, n, _ := strings.Cut(w, "=")
			num, _ := strconv.Atoi(n)
			var l [2]uint64
			if _, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(num), 0, uintptr(unsafe.Pointer(&l)), 0, 0); errno != 0 {
				fmt.Println(name, errno)
				return 1
			}
			fmt.Println(name, l[0], l[1])
		}
	case "call": // NUMBER ARG…: a system call's error
		var a [7]uintptr
		for i, w := range words[1:] {
			n, err := strconv.ParseInt(w, 0, 64)
			if err != nil {
				return 2
			}
			a[i] = uintptr(n)
		}
		_, _, errno := unix.RawSyscall6(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
		if errno != 0 {
			fmt.Println(unix.ErrnoName(errno))
		} else {
			fmt.Println("done")
		}
	case "clock": // seconds since boot, as this time namespace sees it
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
		fmt.Println(ts.Sec)
	case "openall": // FILE…: the error of opening each for reading
		for _, f := range words[1:] {
			fd, err := unix.Open(f, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
			if err == nil {
				unix.Close(fd)
				fmt.Println(f, "done")
			} else {
				fmt.Println(f, unix.ErrnoName(err.(syscall.Errno)))
			}
		}
	case "eat": // MEGABYTES of memory, until killed
		n, _ := strconv.Atoi(words[1])
		b := make([]byte, n<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		fmt.Println("eaten", len(b)>>20)
	case "zombie": // a child that nobody waits for
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
		fmt.Println(pid, err)
		time.Sleep(1000 * time.Second)
	case "window": // columns rows of stdin's terminal
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(ws.Col, ws.Row)
	default:
		fmt.Fprintln(os.Stderr, "no such word")
		return 2
	}
	return 0
}

// softFiles is the limit of open files that this process was started with, before Go's runtime raised it.
var softFiles = func() uint64 {
	// A child gets the original limit back.
	out, _ := exec.Command("/bin/sh", "-c", "ulimit -n").Output()
	n, _ := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	return n
}()

// probeHere are the limits of this process's children.
func probeHere(words []string) [][2]uint64 {
	self, _ := os.Executable()
	cmd := exec.Command(self)
	cmd.Args = append([]string{probeName}, words...)
	out, _ := cmd.Output()
	var limits [][2]uint64
	for line := range strings.Lines(string(out)) {
		var name string
		var l [2]uint64
		fmt.Sscan(line, &name, &l[0], &l[1])
		limits = append(limits, l)
	}
	return limits
}

func probeKeyring() string {
	id, _ := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	return strconv.Itoa(id)
}

// runPiped runs a container whose output is a pipe.
func runPiped(c *check, ct *container) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := c.runtime(ctx, "run", "--bundle", ct.bundle, ct.id)
	cmd.WaitDelay = time.Second
	var errout strings.Builder
	cmd.Stderr = &errout
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errout.String())
	}
	return string(out), err
}
