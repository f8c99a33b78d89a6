package build

import (
	"io/fs"
	"syscall"
)

// fileID names a file whatever its names are.
type fileID struct{ dev, ino uint64 }

// linkedTo returns the first name of a file that has several, if it was seen before.
func linkedTo(info fs.FileInfo, name string, seen map[fileID]string) (string, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || st.Nlink < 2 {
		return "", false
	}
	id := fileID{uint64(st.Dev), st.Ino}
	if first, ok := seen[id]; ok {
		return first, true
	}
	seen[id] = name
	return "", false
}
