package engineapi

import (
	"io/fs"
	"path/filepath"
	"syscall"
)

// treeSize adds up the lengths of the regular files below a folder, each hard-linked file once. Symlinks are not
// followed; what vanishes meanwhile doesn't count.
func treeSize(dir string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var sum int64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil
		}
		if !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			id := inode{uint64(st.Dev), st.Ino}
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
