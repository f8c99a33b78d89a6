package launch

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/plan"
)

// Shield executes this program again from a file that nobody can write to, unless that is so already. A child that is born into the
// pid namespace of a container shows this program as its /proc/PID/exe until it has executed the stage, to everybody there; who has
// CAP_SYS_PTRACE could keep that open and write to it later (CVE-2019-5736). It returns only with an error or when there is nothing to do.
func Shield() error {
	if shielded() {
		return os.WriteFile("/proc/self/comm", []byte("tare-run"), 0) // exec named it after a descriptor
	}
	const self = "/proc/self/exe"
	fd, err := readOnlyMount(self)
	if err != nil {
		if fd, err = sealedCopy(self); err != nil {
			return err
		}
	}
	program := fdPath(fd)
	return &os.PathError{Op: "exec", Path: program, Err: syscall.Exec(program, os.Args, os.Environ())}
}

// ShieldFor is Shield where a process of this plan would be born next to those of a container. It is for command lines, which may begin
// anew: call it before anything is made.
func ShieldFor(p *plan.Plan) error {
	if p.PidNS == "" && !p.JoinPid {
		return nil
	}
	return Shield()
}

// shielded tells whether this process runs from a mount that is read-only, or a sealed copy.
func shielded() bool {
	var fs unix.Statfs_t
	if unix.Statfs("/proc/self/exe", &fs) == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return true
	}
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && seals&unix.F_SEAL_WRITE != 0
}
