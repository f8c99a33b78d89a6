package files

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Usage is the bytes that a tree takes on its disk, as du(1) counts them: the blocks of files, folders and all else, so that
// a sparse file counts for what it has; a file with several names once. Links are not followed, other file systems mounted inside not
// entered. What vanishes meanwhile doesn't count; a missing dir is an error.
func Usage(dir string) (int64, error) {
	var top unix.Stat_t
	if err := unix.Lstat(dir, &top); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	var sum int64
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if path != dir && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		var st unix.Stat_t
		switch err := unix.Lstat(path, &st); {
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return &fs.PathError{Op: "stat", Path: path, Err: err}
		case st.Dev != top.Dev:
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !e.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}
