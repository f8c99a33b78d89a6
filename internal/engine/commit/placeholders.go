package commit

import (
	"os"
	"path/filepath"
)

// dropPlaceholders removes from a copy of a container's layer what the engine put there for something to be mounted on,
// where the image had nothing: the container could not change any of it.
func dropPlaceholders(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range []string{".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		if info, err := root.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			if err := root.Remove(name); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"dev", "proc", "sys"} { // the kernel's, mounted over
		if info, err := root.Lstat(name); err == nil && info.IsDir() {
			if names, err := os.ReadDir(filepath.Join(dir, name)); err == nil && len(names) == 0 {
				if err := root.Remove(name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
