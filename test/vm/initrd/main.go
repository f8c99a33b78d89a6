// Command initrd is the first process of the virtual machine that `make e2e-vm` boots: it loads the modules
// for the disk, in the order in which they lie beside it, mounts the disk and goes on with its /sbin/init.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := boot(); err != nil {
		fmt.Println("initrd:", err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}

func boot() error {
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, m := range modules { // sorted
		f, err := os.Open(m)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	if err := unix.Mount("dev", "/dev", "devtmpfs", 0, ""); err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Mount("/dev/vda", "/root", "ext4", 0, "")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("/dev/vda: %w", err)
		}
	}
	if err := unix.Mount("/dev", "/root/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	if err := unix.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("/: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	var env []string
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "TERM=") {
			env = append(env, e)
		}
	}
	return unix.Exec("/sbin/init", append([]string{"/sbin/init"}, os.Args[1:]...), env)
}
