package volume

import (
	"errors"
	"io/fs"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"tare/internal/base/files"
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

// diskUsage is what a volume's data takes on the disk, its own folder not counted; none if it was removed meanwhile.
func diskUsage(dir string) (int64, error) {
	n, err := files.Usage(dir)
	var st unix.Stat_t
	if errors.Is(err, fs.ErrNotExist) || unix.Lstat(dir, &st) != nil {
		return 0, nil
	}
	return max(0, n-st.Blocks*512), err
}
