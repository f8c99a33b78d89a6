package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// task does a fixed piece of work and returns how long it took, in ms.
func task(name, folder string) (float64, error) {
	work := map[string]func() error{
		"cpu": func() error {
			sum := sha256.Sum256(nil)
			for range 400000 {
				sum = sha256.Sum256(sum[:])
			}
			return nil
		},
		"memory": func() error {
			from, to := make([]byte, 64<<20), make([]byte, 64<<20)
			for range 8 {
				copy(to, from)
			}
			return nil
		},
		"file": func() error {
			f, err := os.Create(filepath.Join(folder, "file"))
			if err != nil {
				return err
			}
			defer os.Remove(f.Name())
			defer f.Close()
			block := make([]byte, 64<<10)
			for range 512 {
				if _, err := f.Write(block); err != nil {
					return err
				}
			}
			for at := int64(0); at < 512<<16; at += 64 << 10 {
				if _, err := f.ReadAt(block, at); err != nil {
					return err
				}
			}
			return nil
		},
		"syscalls": func() error {
			for range 1000000 {
				_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
			}
			return nil
		},
	}[name]
	if work == nil {
		return 0, fmt.Errorf("no task %q", name)
	}
	return timed(work)
}
