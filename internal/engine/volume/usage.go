package volume

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/moby/moby/api/types/volume"

	"tare/internal/base/filter"
)

// Usage lists all volumes with their size and the number of containers that hold them, for `system df`.
func (s *Service) Usage() ([]*volume.Volume, error) {
	list, err := s.List(filter.Args{})
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		size, err := diskUsage(v.Mountpoint)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		v.UsageData = &volume.UsageData{Size: size, RefCount: int64(len(s.holds[v.Name]))}
		s.mu.Unlock()
	}
	return list, nil
}

// diskUsage is the bytes of file content below dir; a file with several names counts once.
func diskUsage(dir string) (int64, error) {
	var total int64
	seen := map[[2]uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			key := [2]uint64{st.Dev, st.Ino}
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		total += info.Size()
		return nil
	})
	return total, err
}
